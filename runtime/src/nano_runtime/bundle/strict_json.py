"""Refuses JSON that two readers can take differently, or that harms a terminal.

Refused are keys that stand there twice, NaN, numbers beyond 64 bits, deep nesting and control characters. ``msgspec``
checks types and unknown keys, but takes the last of two equal keys, where another parser may take the first.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from nano_runtime.errors.escaping import CONTROLS, HALVES, OVERRIDES, pattern_of

__all__ = ["REFUSED", "check_json", "parsed_json"]

_MAX_DEPTH: Final = 32
_TOO_DEEP: Final = f"more than {_MAX_DEPTH} levels"
_MAX_DIGITS: Final = 20  # of a 64-bit number
_MAX_NUMBER_CHARACTERS: Final = 40
_SHOWN: Final = 60  # characters of a text in a message
# Fewer than messages escape: bundles of all formats stay readable.
REFUSED: Final = pattern_of(CONTROLS | OVERRIDES | HALVES)


def check_json(raw: bytes) -> None:
    """Refuse a document that is not strict JSON.

    Args:
        raw: the whole document; its size is the caller's to limit.

    Raises:
        ValueError: it is not UTF-8 or not JSON, or has a key twice, NaN, Infinity, a number beyond 64 bits, a
            control character, or more than 32 levels.
    """
    _check_tree(parsed_json(raw.decode("utf-8")))  # whose error is a ValueError


def parsed_json(text: str) -> Any:  # noqa: ANN401 - any of JSON's types
    """Return a document that every reader takes alike; ``check_json`` also refuses characters.

    Raises:
        ValueError: it is not JSON, or has a key twice, NaN, Infinity, a number beyond 64 bits, or more than 32 levels.
    """
    try:
        document = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > _MAX_DEPTH:
        _levels(document)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of keys that all differ."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:_SHOWN]!r} stands there twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _whole(digits: str) -> int:
    """Read a whole number of at most 64 bits."""
    if len(digits) > _MAX_DIGITS or not -(1 << 63) <= int(digits) < 1 << 64:
        raise ValueError(f"the number {digits[:_MAX_DIGITS]}… does not fit 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    """Read a number that is not too large for a double."""
    if len(digits) > _MAX_NUMBER_CHARACTERS or not math.isfinite(float(digits)):
        raise ValueError(f"the number {digits[:_MAX_NUMBER_CHARACTERS]}… does not fit a double")
    return float(digits)


def _check_tree(document: object) -> None:
    """Check the depth and all text."""
    for level in _levels(document):
        for value in level:
            if isinstance(value, str) and (found := REFUSED.search(value)) is not None:
                raise ValueError(f"the text {value[:_SHOWN]!r} has the character U+{ord(found.group()):04X}")


def _levels(document: object) -> list[list[object]]:
    """Return the values and keys of a document, level by level, or raise ``ValueError`` if it is too deep."""
    levels: list[list[object]] = []
    level: list[object] = [document]
    while level:
        if len(levels) > _MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        levels.append(level)
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += [*value, *value.values()]
            elif isinstance(value, list):
                inner += value
        level = inner
    return levels


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite
)
