"""Makes text of unknown origin fit to print: one line, of bounded length, that no terminal obeys.

Text that others wrote is treated in three ways: messages show what is not seen as escapes (``escaped``), texts of a
manifest may not hold the sets of characters below (``bundle/strict_json.py``), and the text chunks of a picture have
spaces in place of controls (``pictures/parameters.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from unicodedata import category

__all__ = [
    "CONTROLS",
    "HALVES",
    "OVERRIDES",
    "escaped",
    "escaped_lines",
    "first_line",
    "last_line",
    "pattern_of",
    "shortened",
    "unseen",
]

CONTROLS: Final = frozenset((*range(0x20), *range(0x7F, 0xA0)))
"""Control characters, Unicode's category Cc: the sets C0 and C1, and delete."""

OVERRIDES: Final = frozenset((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
"""Marks that turn the direction of all text up to their end: embeddings, overrides and isolates."""

HALVES: Final = frozenset(range(0xD800, 0xE000))
"""Halves of surrogate pairs, which no encoding has."""

_CONTROL_CATEGORIES: Final = ("C", "Zl", "Zp")
"""Beginnings of Unicode's general categories that are not shown: "other", separators of lines and of paragraphs."""
# Letters, marks and symbols without a shape: of Unicode's property Default_Ignorable_Code_Point what is in none of the
# categories above, but for variation selectors; and the blank of Braille.
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_SELECTORS: Final = (("\u180b", "\u180f"), ("\ufe00", "\ufe0f"), ("\U000e0100", "\U000e01ef"))
_JOINERS: Final = "\u200c\u200d"  # zero-width non-joiner and joiner
_TEXT_OR_EMOJI: Final = "\ufe0e\ufe0f"  # the variation selectors that choose between the two forms of a symbol
_KEYCAPS: Final = frozenset("0123456789#*")
_LAST_WITHOUT_JOINERS: Final = "\u02ff"  # scripts up to here, Latin among them, have no use for joiners

_LONGEST = 1000  # characters of a message; a prompt may have a hundred thousand
_LONGEST_LINE = 300  # characters of another library's message inside one of ours
_LEAST_LEFT = 0.7  # of a text that is cut at the end of a word; longer words are cut


def escaped(text: str) -> str:
    """Return text as one line to show, with all that is not seen as escapes.

    A text that is longer than a screen is cut, and says so. Joined emoji and letters of every script stay as they are.
    """
    shown = _escaped(text[: _LONGEST + 1])
    return shown if len(shown) <= _LONGEST else f"{shortened(shown, _LONGEST)} ({len(text)} characters)"


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters as it is; a longer one is cut between words, if one ends near there.

    Args:
        text: to shorten.
        most: characters that are left of it, without the ellipsis that stands for the others.
    """
    if len(text) <= most:
        return text
    words = text[: most + 1].rpartition(" ")[0]
    return f"{(words if len(words) > most * _LEAST_LEFT else text[:most]).rstrip()}…"


def escaped_lines(text: str) -> str:
    """Return a whole text to show, with all that is not seen as escapes; tabs and ends of lines stay."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(_escaped, line.split("\t"))) for line in lines)


def unseen(text: str) -> list[int]:
    """Return the places of all characters of a text that ``escaped`` shows as escapes."""
    if text.isascii() and text.isprintable():
        return []
    return [index for index in range(len(text)) if not _is_seen(text, index)]


def _escaped(text: str) -> str:
    letters = list(text)
    for index in unseen(text):
        letters[index] = ascii(letters[index])[1:-1]  # as Python writes it
    return "".join(letters)


def _is_seen(text: str, index: int) -> bool:
    """Return whether a character is seen: alone, or by what it does to those beside it.

    What is allowed is listed, not what is forbidden: a character that Unicode has no category for yet is escaped.
    """
    letter = text[index]
    before, after = text[index - 1 : index], text[index + 1 : index + 2]
    if letter in _JOINERS:  # emoji and several scripts need them
        return _is_joined(before) and _is_joined(after)
    if letter in _TEXT_OR_EMOJI:
        return before != "" and (category(before).startswith("S") or before in _KEYCAPS)
    if letter in _BLANK or any(first <= letter <= last for first, last in _SELECTORS):
        return False
    return not category(letter).startswith(_CONTROL_CATEGORIES)


def _is_joined(letter: str) -> bool:
    """Return whether a joiner may stand beside a character."""
    if letter in _TEXT_OR_EMOJI:
        return letter != ""
    return letter > _LAST_WITHOUT_JOINERS and letter not in _BLANK and category(letter)[0] in "LMS"


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, which may have pages; its class where it has no message.

    A line that ends in a colon only announces the next one, which then stands behind it.

    Returns:
        1 to 301 characters, not yet escaped: every error of ours escapes its message.
    """
    first, *further = _lines(error)
    announced = f"{first} {further[0].strip()}" if further and first.endswith(":") else first
    return shortened(announced, _LONGEST_LINE)


def last_line(error: BaseException) -> str:
    """Return the last line of a message, for libraries that tell the cause last; otherwise as ``first_line``."""
    return shortened(_lines(error)[-1], _LONGEST_LINE)


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
