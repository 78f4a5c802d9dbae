"""Says of a drawing, to whoever asked for it, what of its prompts is not drawn as it was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nano_runtime import DrawOptions
from nano_runtime.drawing.demo_prompts import demo_hints
from nano_runtime.networks.other_syntax import read_as_words

if TYPE_CHECKING:
    from nano_serve.shelf import Shelved

__all__ = ["notes_of"]

_MOST_SHOWN: Final = 60  # characters


def notes_of(shelved: Shelved, options: DrawOptions, plan: Any) -> tuple[str, ...]:  # noqa: ANN401 - not public
    """Return sentences without a full stop; none for a prompt that is drawn as it stands.

    Args:
        shelved: the bundle that draws.
        options: of the job, which has one prompt.
        plan: of the same.
    """
    texts = {"prompt": str(options.prompt)}
    if plan.guided and options.negative_prompt:
        texts["negative prompt"] = str(options.negative_prompt)
    reading = {"prompt_weighting": options.prompt_weighting, "long_prompts": options.long_prompts}
    found: list[str] = []
    for name, text in texts.items():
        words = read_as_words(text, weighted=options.prompt_weighting)
        found += [f"{_shown(what)} in the {name} is read as words: {instead}" for what, instead in words]
        tokens = shelved.pipeline.tokenize(text, **reading)
        if tokens.cut:
            left_out = tokens.count - tokens.used
            found.append(
                f"of {tokens.count} tokens in the {name}, the last {left_out} are not read: {_shown(tokens.cut)}"
            )
    return (*found, *(demo_hints(plan) if shelved.is_demo else ()))


def _shown(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}\u2026"
