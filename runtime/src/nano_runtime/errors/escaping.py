"""Makes text of unknown origin fit to print: one line, of bounded length, that no terminal obeys.

The sets of characters below are the only definition of "unprintable" in both packages. Text that others wrote is
treated in three ways: messages show these characters as escapes (``escaped``), names of files and texts of a manifest
may not hold them (``bundle/safe_paths.py``, ``bundle/strict_json.py``), and the text chunks of a picture have spaces in
place of controls (``pictures/png.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = [
    "CONTROLS",
    "HALVES",
    "JOINERS",
    "OVERRIDES",
    "UNPRINTABLE",
    "escaped",
    "escaped_lines",
    "first_line",
    "last_line",
    "pattern_of",
]

CONTROLS: Final = frozenset((*range(0x20), *range(0x7F, 0xA0)))
"""Control characters, Unicode's category Cc: the sets C0 and C1, and delete."""

OVERRIDES: Final = frozenset((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
"""Marks that turn the direction of all text up to their end: embeddings, overrides and isolates."""

HALVES: Final = frozenset(range(0xD800, 0xE000))
"""Halves of surrogate pairs, which no encoding has."""

JOINERS: Final = frozenset((0x200C, 0x200D))
"""Zero-width joiner and non-joiner. Emoji and several scripts need them, so they are not unprintable."""

_SEPARATORS: Final = frozenset((0x2028, 0x2029))  # of lines and paragraphs: they end a line as controls do
_DIRECTION_MARKS: Final = frozenset((0x061C, 0x200E, 0x200F))  # with OVERRIDES, Unicode's property Bidi_Control
# Characters without a shape, with which two names that differ look alike.
_UNSEEN: Final = frozenset(
    (
        *(0x00AD, 0x180E, 0x200B, 0xFEFF, 0xE0001),  # soft hyphen, two separators, byte order mark, language tag
        *(*range(0x2060, 0x2066), *range(0x206A, 0x2070), *range(0xFFF9, 0xFFFC)),
    )
)

UNPRINTABLE: Final = CONTROLS | OVERRIDES | HALVES | _SEPARATORS | _DIRECTION_MARKS | _UNSEEN
"""Code points of all characters that ``escaped`` shows as escapes."""

_LONGEST = 1000  # characters of a message; a prompt may have a hundred thousand
_LONGEST_LINE = 300  # characters of another library's message inside one of ours
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in UNPRINTABLE}  # as Python writes them
_ESCAPES_IN_LINES = {code: escape for code, escape in _ESCAPES.items() if chr(code) not in "\t\n"}


def escaped(text: str) -> str:
    """Return text as one line to show, with unprintable characters as escapes.

    A text that is longer than a screen is cut, and says so. Joined emoji and letters of every script stay as they are.
    """
    shown = text.translate(_ESCAPES)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}… ({len(text)} characters)"


def escaped_lines(text: str) -> str:
    """Return a whole text to show, with unprintable characters as escapes; tabs and ends of lines stay."""
    return text.replace("\r\n", "\n").translate(_ESCAPES_IN_LINES)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, which may have pages; its class where it has no message.

    A line that ends in a colon only announces the next one, which then stands behind it.

    Returns:
        1 to 300 characters, not yet escaped: every error of ours escapes its message.
    """
    first, *further = _lines(error)
    announced = f"{first} {further[0].strip()}" if further and first.endswith(":") else first
    return announced[:_LONGEST_LINE]


def last_line(error: BaseException) -> str:
    """Return the last line of a message, for libraries that tell the cause last; otherwise as ``first_line``."""
    return _lines(error)[-1][:_LONGEST_LINE]


def pattern_of(codes: Iterable[int]) -> re.Pattern[str]:
    """Return a pattern that finds any one of these characters."""
    ranges: list[tuple[int, int]] = []  # a few dozen compile in a tenth of the time of thousands of characters
    for code in sorted(codes):
        first = ranges.pop()[0] if ranges and ranges[-1][1] == code - 1 else code
        ranges.append((first, code))
    return re.compile("".join(["[", *(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges), "]"]))


def _lines(error: BaseException) -> list[str]:
    """Return the lines of a message that are not blank, or else the name of the error's class; never nothing."""
    return [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
