"""Text of unknown origin, made fit to be shown: no terminal obeys it, and no reader is led astray by its direction."""

from __future__ import annotations

__all__ = ["escaped"]

_LONGEST = 1000  # characters; a prompt may have a hundred thousand
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)  # C0, C1 and what else begins a line
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # Unicode's Bidi_Control
_HALVES = range(0xD800, 0xE000)  # of surrogate pairs, which no encoding has
# Marks that are not seen, with which two names that differ look alike; what joins letters and emoji is not among them.
_UNSEEN = (
    *(0x00AD, 0x180E, 0x200B, 0xFEFF, 0xE0001),  # soft hyphen, separators, byte order mark, language tag
    *(*range(0x2060, 0x2065), *range(0x206A, 0x2070), *range(0xFFF9, 0xFFFC)),
)
_ESCAPES = {  # as Python would write them
    code: ascii(chr(code))[1:-1] for code in (*_CONTROLS, *_DIRECTIONS, *_HALVES, *_UNSEEN)
}


def escaped(text: str) -> str:
    """Return one line to show: control characters, unseen marks and marks of writing direction as escapes.

    What is longer than a screen is cut, and says so. Joined emoji and letters of any script stay as they are; halves of
    surrogate pairs become escapes.
    """
    shown = text.translate(_ESCAPES)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}… ({len(text)} characters)"
