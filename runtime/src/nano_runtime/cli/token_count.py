"""``--count-tokens``: the length of a prompt, and the words that do not fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nano_runtime.errors.escaping import escaped

if TYPE_CHECKING:
    from nano_runtime.options import DrawOptions
    from nano_runtime.pipeline import Pipeline

__all__ = ["print_tokens"]


def print_tokens(pipe: Pipeline, options: DrawOptions, *, as_json: bool) -> None:
    """Print the number of tokens of a prompt and the part of it that would not be used.

    Raises:
        PromptError: the prompt cannot be used.
    """
    tokens = pipe.tokenize(
        str(options.prompt), prompt_weighting=options.prompt_weighting, long_prompts=options.long_prompts
    )
    chunks, length = tokens.ids.shape
    room = chunks * (length - 2)
    if as_json:
        counts = {"tokens": tokens.count, "used": tokens.used, "room": room, "chunks": chunks, "cut": tokens.cut}
        print(json.dumps(counts, indent=1))
        return
    print(f"{tokens.count} tokens, room for {room} in {chunks} chunk{'s' if chunks > 1 else ''}")
    if tokens.cut:
        print(f"not used: {escaped(tokens.cut)}")
