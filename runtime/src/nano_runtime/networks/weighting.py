r"""Weighted words: AUTOMATIC1111's prompt syntax, and its effect on the text encoder's output.

    (word)        1.1 times the weight       [word]      1 / 1.1 times
    (word:1.3)    1.3 times                  ((word))    1.1 * 1.1: nested brackets multiply
    \( \) \[ \] \\  the character itself     BREAK       the next word starts a new chunk

An opening bracket that is never closed reaches to the end. A closing one that was never opened is text, as are a ``:``
without ``number)`` behind it and ``BREAK`` inside a word; a lone backslash is dropped. Nothing is an error. This is how
``parse_prompt_attention`` of AUTOMATIC1111's web UI reads prompts, but for two cases: a ``BREAK`` in brackets is a
break (there it becomes a word of negative weight), and ``(a:1.2.3)``, which fails there, is text in brackets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from nano_runtime.arrays import F32, F64
from nano_runtime.errors import PromptError

__all__ = ["Fragment", "parse", "weigh"]

_ROUND, _SQUARE = 1.1, 1 / 1.1
_TOKEN = re.compile(
    r"""
    \\(?P<escaped>[()\[\]\\]?)
  | (?P<open>[(\[])
  | :\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
  | (?P<close>[)\]])
  | (?P<text>[^\\()\[\]:]+|:)
    """,
    re.VERBOSE | re.DOTALL,
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_OPENED_BY = {")": "(", "]": "["}
# Of the mean absolute value: a smaller mean is zero but for rounding, and no scale can be taken from it.
_NO_MEAN = 1e-6


@dataclass(frozen=True)
class Fragment:
    """A piece of a prompt without its syntax, and the weight of all its tokens."""

    text: str
    weight: float


def parse(prompt: str) -> tuple[tuple[Fragment, ...], ...]:
    """Read the syntax.

    Returns:
        What stands between the breaks, at least one section; neighbours of equal weight in it are one fragment. A
        section may be empty.
    """
    pieces: list[str | None] = []  # None is a break
    weights = np.ones(len(prompt) + 1)  # of the pieces, which are fewer; as an array, for brackets by the thousand
    opened: dict[str, list[int]] = {"(": [], "[": []}  # before which piece

    def multiply(bracket: str, factor: float) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            weights[opened[bracket].pop() : len(pieces)] *= factor

    for match in _TOKEN.finditer(prompt):
        kind, text = match.lastgroup, match.group()
        if kind == "escaped":
            pieces.append(match["escaped"])
        elif kind == "open":
            opened[text].append(len(pieces))
        elif kind == "weight" and opened["("]:
            multiply("(", float(match["weight"]))
        elif kind == "close" and opened[_OPENED_BY[text]]:
            multiply(_OPENED_BY[text], _ROUND if text == ")" else _SQUARE)
        else:
            first, *others = _BREAK.split(text)
            pieces.append(first)
            for other in others:
                pieces += [None, other]
    for bracket, factor in (("(", _ROUND), ("[", _SQUARE)):
        while opened[bracket]:
            multiply(bracket, factor)
    return _sections(pieces, weights.tolist())


def weigh(hidden: F32, weights: F64) -> F32:
    """Multiply hidden states by the weights of their tokens, and restore the mean of the whole.

    That is ``EmphasisOriginal`` of AUTOMATIC1111's web UI, its default. Hidden states without a mean (of an encoder
    with random weights, whose last norm is centred) are not scaled.

    Args:
        hidden: float32 [1, tokens, channels], of one chunk, after the text encoder's final norm.
        weights: float64 [tokens].

    Raises:
        PromptError: the weights are too large for numbers in float32, or cancel each other.
    """
    if (weights == 1).all():
        return hidden
    with np.errstate(over="ignore", invalid="ignore"):
        weighted = hidden * weights[:, np.newaxis].astype(np.float32)
        before, after = (float(values.mean(dtype=np.float64)) for values in (hidden, weighted))
        if min(abs(before) / np.abs(hidden).mean(), abs(after) / np.abs(weighted).mean()) > _NO_MEAN:
            weighted *= np.float32(before / after)
    if not np.isfinite(weighted).all():
        raise PromptError("its weights are too large")
    return weighted


def _sections(pieces: list[str | None], weights: list[float]) -> tuple[tuple[Fragment, ...], ...]:
    """Split at the breaks, and join neighbours of equal weight: a tokenizer would cut words between them."""
    sections: list[list[tuple[str, float]]] = [[]]
    for text, weight in zip(pieces, weights, strict=False):
        if text is None:
            sections.append([])
        else:
            sections[-1].append((text, weight))
    joined = [
        [Fragment("".join(text for text, _ in run), weight) for weight, run in groupby(section, key=itemgetter(1))]
        for section in sections
    ]
    return tuple(tuple(fragment for fragment in section if fragment.text) for section in joined)
