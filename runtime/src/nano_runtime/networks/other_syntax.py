"""Finds what other programs would read in a prompt as an instruction, and this one reads as words."""

from __future__ import annotations

import re

__all__ = ["read_as_words"]

_EDITED = "prompt editing is not implemented; draw both prompts, or start from a picture with --image"
_CHOSEN = "nothing is chosen here; draw one prompt for each choice"
_INSTRUCTIONS = (
    (re.compile(r"<(?:lora|lyco):[^<>]*>"), "nano-export --lora FILE puts a LoRA into a bundle"),
    (re.compile(r"<hypernet:[^<>]*>"), "hypernetworks are not implemented"),
    (re.compile(r"\bembedding:\S+"), "nano-export --embedding FILE adds a word to a bundle, to be written alone"),
    (re.compile(r"(?<=\S)\s+AND(?:\s+(?=\S)|$)"), "prompts are not mixed; --variation-strength mixes pictures"),
    (re.compile(r"\[[^\[\]|]*:\s*\d*\.?\d+\s*\]"), _EDITED),
    (re.compile(r"\[[^\[\]]*\|[^\[\]]*\]"), _EDITED),
    (re.compile(r"\{[^{}]*\|[^{}]*\}"), _CHOSEN),
    (re.compile(r"\b__[\w/-]+__\b"), _CHOSEN),
)
_WEIGHT = re.compile(r"(?<!\\)\([^()]*:\s*[+-]?\d*\.?\d+\s*\)")
_WEIGHTS = "--weights, in Python prompt_weighting=True, reads it as a weight"


def read_as_words(prompt: str, *, weighted: bool) -> list[tuple[str, str]]:
    """Return instructions of other programs in a prompt, each with what to do instead.

    Args:
        prompt: as it was given.
        weighted: whether ``(word:1.3)`` is read as a weight.
    """
    known = _INSTRUCTIONS if weighted else (*_INSTRUCTIONS, (_WEIGHT, _WEIGHTS))
    found = [(pattern.search(prompt), what) for pattern, what in known]
    return [(match.group().strip(), what) for match, what in found if match is not None]
