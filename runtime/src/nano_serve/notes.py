"""Says of a drawing, to whoever asked for it, what of its prompts and its picture is not drawn as it was sent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from nano_runtime import DrawOptions
from nano_runtime.drawing.demo_prompts import demo_hints
from nano_runtime.networks.other_syntax import read_as_words
from nano_serve.fit import is_cropped

if TYPE_CHECKING:
    from nano_serve.shelf import Shelved

__all__ = ["MOST_SHOWN", "changes_nothing", "notes_of", "warnings"]

MOST_SHOWN: Final = 60
"""Characters of what a client sent that are told again."""


def changes_nothing(name: str, value: object) -> str:
    """Return a note on a field of a request that no picture depends on here."""
    return f"{name[:MOST_SHOWN]}={str(value)[:MOST_SHOWN]} changes nothing here"


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
    if options.negative_prompt and not plan.guided:
        found.append("the negative prompt changes nothing without guidance")
    if options.image is not None and is_cropped(options.image.size, plan.image_size[::-1]):
        found.append("the picture was cropped to the shape of {1}x{0}".format(*plan.image_size))
    return (*found, *(demo_hints(plan) if shelved.is_demo else ()))


@contextmanager
def warnings() -> Iterator[list[str]]:
    """Give a list that fills with what the runtime warns of in this thread, as of a mask that has no white."""
    ear, logger = _Ear(), logging.getLogger("nano_runtime")
    logger.addHandler(ear)
    try:
        yield ear.heard
    finally:
        logger.removeHandler(ear)


class _Ear(logging.Handler):
    """Hears the warnings of the thread that made it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what a record says."""
        if record.thread == self._thread:
            self.heard.append(record.getMessage())


def _shown(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}\u2026"
