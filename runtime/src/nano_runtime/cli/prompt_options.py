"""How ``nano-generate`` reads prompts, and counts their tokens."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nano_runtime.cli.settings import Settings
    from nano_runtime.pipeline import Pipeline

__all__ = ["PromptOptions", "add_prompt_options", "print_tokens"]


class PromptOptions(argparse.Namespace):
    """What ``add_prompt_options`` adds to a command line, typed."""

    weights: bool
    long_prompt: bool
    count_tokens: bool


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--weights``, ``--long-prompt`` and ``--count-tokens``."""
    add = parser.add_argument
    add("--weights", action="store_true", help="read (word), (word:1.3), [word] and BREAK in prompts as A1111 does")
    add("--long-prompt", action="store_true", help="use what goes beyond the text encoder's length, often 75 tokens")
    add("--count-tokens", action="store_true", help="draw nothing; say how long the prompt is, and what does not fit")


def print_tokens(pipe: Pipeline, settings: Settings, *, as_json: bool) -> None:
    """Print how many tokens a prompt has and what of it would not be used.

    Raises:
        PromptError: it cannot be used.
    """
    tokens = pipe.tokenize(settings.prompt, prompt_weighting=settings.weights, long_prompts=settings.long_prompt)
    chunks, length = tokens.ids.shape
    room = chunks * (length - 2)
    if as_json:
        counts = {"tokens": tokens.count, "used": tokens.used, "room": room, "chunks": chunks, "cut": tokens.cut}
        print(json.dumps(counts, indent=1))
        return
    print(f"{tokens.count} tokens, room for {room} in {chunks} chunk{'s' if chunks > 1 else ''}")
    if tokens.cut:
        print(f"not used: {tokens.cut}")
