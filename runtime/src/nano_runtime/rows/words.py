"""Reads the cells of CSV and TSV, which are all texts, as values of the options that they are for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["read_word"]

_WHOLE: Final = re.compile(r"([+-]?\d{1,30})(?:\.0*)?")
_THOUSANDS: Final = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")  # or a decimal comma: nobody can tell
_MILLE: Final = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.000)+")  # a thousand where the decimal mark is a comma, or one
_NUMBER: Final = re.compile(r"[+-]?(?:\d{1,30}(?:[.,]\d{0,300})?|[.,]\d{1,300})(?:[eE][+-]?\d{1,3})?")
_SWITCHES: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_word(option: str, word: str) -> Any:  # noqa: ANN401 - of the option's type
    """Return the value that a cell stands for; a text that is none of the option's stays one, and is refused by it.

    Args:
        option: field of ``DrawOptions``, or ``id``.
        word: the cell.
    """
    return _READERS.get(option, _as_it_is)(word)


def _as_it_is(word: str) -> str:
    return word


def _stripped(word: str) -> str:
    return word.strip()


def _whole(word: str) -> int | str:
    """Read a whole number; not 1.2e+18, of which a spreadsheet has rounded the digits away, and not 1.000."""
    bare = word.strip()
    found = _WHOLE.fullmatch(bare)
    return word if found is None or _MILLE.fullmatch(bare) else int(found[1])


def _number(word: str) -> float | str:
    """Read a number, with a point or, as spreadsheets of many countries write it, a comma."""
    bare = word.strip()
    if not _NUMBER.fullmatch(bare) or _THOUSANDS.fullmatch(bare):
        return word
    return float(bare.replace(",", "."))


def _switch(word: str) -> bool | str:
    return _SWITCHES.get(word.strip().lower(), word)


def _interval(word: str) -> tuple[float | str, ...]:
    """Read FROM:TO, as on the command line."""
    return tuple(map(_number, word.split(":")))


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    **dict.fromkeys(("num_inference_steps", "seed", "num_images_per_prompt", "height", "width"), _whole),
    **dict.fromkeys(("variation_seed", "cache_interval"), _whole),
    **dict.fromkeys(("guidance_scale", "mask_blur", "strength", "image_guidance_scale", "variation_strength"), _number),
    **dict.fromkeys(("prompt_weighting", "long_prompts", "keep_unmasked"), _switch),
    **dict.fromkeys(("scheduler", "quality", "image", "mask_image"), _stripped),
    "guidance_interval": _interval,
}
