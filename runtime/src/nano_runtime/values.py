"""Checks single values that callers pass: each becomes one of its option's type, or an error that names the option.

Notebooks and other libraries pass whole numbers as ``20.0``, numpy's and torch's scalars, and ``numpy.bool_``: these
are taken for what they are. Nothing is rounded, and no text is taken for a number.
"""

from __future__ import annotations

import math
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from nano_runtime.errors import (
    GuidanceError,
    ImageError,
    ImageGuidanceError,
    IntervalError,
    OptionError,
    PromptError,
    SeedError,
    StrengthError,
    VariationError,
)

__all__ = [
    "MAX_PROMPT_BYTES",
    "checked_guidance",
    "checked_interval",
    "checked_length",
    "checked_nearness",
    "checked_seed",
    "checked_strength",
    "checked_variation",
    "natural",
    "number",
    "one_of",
    "one_or_more",
    "path",
    "picture",
    "positive",
    "prompt",
    "prompts",
    "sha256",
    "switch",
    "text",
    "whole",
]

Choice = TypeVar("Choice", bound=str)
Item = TypeVar("Item")

MAX_PROMPT_BYTES: Final = 20_000
"""Of a prompt in UTF-8: some 60 times the text encoder's length; the slowest take a tenth of a second."""

_SEEDS: Final = 1 << 64
_MOST_GUIDANCE: Final = 1000  # with more, a drawing's numbers grow until they are not finite, and the bundle is blamed
_BOOLS = ("bool", "bool_")  # Python's and numpy's, which this file does not import


def whole(argument: str, value: Any, wanted: str = "a whole number") -> int:  # noqa: ANN401 - it is checked here
    """Return a whole number: an int, a float without a fraction, or a scalar of another library that is either.

    Raises:
        OptionError: it is something else.
    """
    found = _number(value)
    if found is None or not (isinstance(found, int) or found.is_integer()):
        raise OptionError(argument, value, wanted)
    return int(found)


def positive(argument: str, value: Any, most: int | None = None) -> int:  # noqa: ANN401 - it is checked here
    """Return a whole number of at least 1, and of at most ``most``, or raise ``OptionError``."""
    wanted = "a whole number from 1" + ("" if most is None else f" to {most}")
    found = whole(argument, value, wanted)
    if found < 1 or (most is not None and found > most):
        raise OptionError(argument, value, wanted)
    return found


def natural(argument: str, value: Any) -> int:  # noqa: ANN401 - it is checked here
    """Return a whole number of at least 0, or raise ``OptionError``."""
    wanted = "a whole number from 0"
    found = whole(argument, value, wanted)
    if found < 0:
        raise OptionError(argument, value, wanted)
    return found


def number(argument: str, value: Any) -> float:  # noqa: ANN401 - it is checked here
    """Return a number as a float, which may be infinite or NaN: whoever uses it knows its range.

    Raises:
        OptionError: it is no number.
    """
    found = _number(value)
    if found is None:
        raise OptionError(argument, value, "a number")
    try:
        return float(found)
    except OverflowError:
        return math.inf if found > 0 else -math.inf


def switch(argument: str, value: Any) -> bool:  # noqa: ANN401 - it is checked here
    """Return True or False, for 1 and 0 too.

    Raises:
        OptionError: it is something else.
    """
    if _is_bool(value) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise OptionError(argument, value, "True or False")


def text(argument: str, value: Any) -> str:  # noqa: ANN401 - it is checked here
    """Return a text, or raise ``OptionError``."""
    if not isinstance(value, str):
        raise OptionError(argument, value, "a text")
    return value


def prompts(value: Any, which: str = "prompt") -> str | tuple[str, ...]:  # noqa: ANN401 - it is checked here
    """Return a text or several, of a list or another sequence; ``which`` names it in the message.

    Raises:
        PromptError: it is neither, or there is none in the sequence.
    """
    if isinstance(value, str):
        return prompt(value, which)
    if isinstance(value, (bytes, bytearray)) or not isinstance(value, Sequence):
        why = f"it is a {type(value).__name__}, and a text or a list of texts is expected"
        raise PromptError(why, which, "Put it in quotes, or make a list of it.")
    if not value:
        raise PromptError(f"the list of {which}s is empty", which, "Give at least one text.")
    return tuple(prompt(one, which) for one in value)


def one_or_more(argument: str, value: Any, check: Callable[[str, Any], Item], most: int) -> Item | tuple[Item, ...]:  # noqa: ANN401
    """Return a checked value, or up to ``most`` of a list, a range or an array of one dimension, each checked.

    Raises:
        UsageError: that of ``check``, which gets the place in the list with the argument's name.
    """
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    if not listed and getattr(value, "ndim", 0) != 1:
        return check(argument, value)
    if len(value) > most:
        raise OptionError(argument, value, f"at most {most} values")
    return tuple(check(f"{argument}[{index}]", one) for index, one in enumerate(value))


def prompt(value: Any, which: str = "prompt") -> str:  # noqa: ANN401 - it is checked here
    """Return a prompt, or raise ``PromptError`` if it is no text; ``which`` names it in the message."""
    if not isinstance(value, str):
        raise PromptError(f"it is a {type(value).__name__}, and one text is expected", which, "Give a text.")
    return str.__str__(value)  # also of numpy's texts, and of enumerations


def one_of(argument: str, value: Any, known: Iterable[Choice]) -> Choice:  # noqa: ANN401 - it is checked here
    """Return a value that is one of the choices, or raise ``OptionError``."""
    choices = tuple(known)
    if not isinstance(value, str) or value not in choices:
        raise OptionError(argument, value, choices)
    return choices[choices.index(value)]


def path(argument: str, value: Any) -> Path:  # noqa: ANN401 - it is checked here
    """Return a path that the system could have, for a text or a path.

    Raises:
        OptionError: it is something else, or has a character that no path has.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise OptionError(argument, value, "a path")
    found = Path(value)
    try:
        os.fsencode(found)
    except (TypeError, UnicodeEncodeError) as error:
        raise OptionError(argument, value, "a path") from error
    if "\0" in str(found):
        raise OptionError(argument, value, "a path")
    return found


def picture(argument: str, value: Any) -> None:  # noqa: ANN401 - it is checked here
    """Require a Pillow image.

    Raises:
        ImageError: it is none; paths and arrays are not, ``open_picture`` and ``PIL.Image.fromarray`` make one of them.
    """
    pillow = sys.modules.get("PIL.Image")  # whoever has an image of Pillow's has imported it
    if pillow is None or not isinstance(value, pillow.Image):
        why = f"it is a {type(value).__name__}, and a Pillow image is expected"
        raise ImageError(
            argument, why, "open_picture reads one from a file, PIL.Image.fromarray makes one of an array."
        )


def sha256(argument: str, value: Any) -> str:  # noqa: ANN401 - it is checked here
    """Return a sha256 in lower-case hexadecimal digits, or raise ``OptionError``."""
    if not isinstance(value, str) or re.fullmatch("[0-9a-fA-F]{64}", value) is None:
        raise OptionError(argument, value, "a sha256 in 64 hexadecimal digits")
    return value.lower()


def checked_length(text: str, which: str = "prompt") -> None:
    """Refuse a prompt that no tokenizer here takes.

    Raises:
        PromptError: it is longer than ``MAX_PROMPT_BYTES``, or has half of a surrogate pair.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        broken = text[error.start]
        raise PromptError(f"character {error.start + 1} is half of a pair (U+{ord(broken):04X})", which) from error
    if size > MAX_PROMPT_BYTES:
        raise PromptError(f"it has {size} bytes, more than {MAX_PROMPT_BYTES}", which)


def checked_seed(first: int, count: int = 1) -> int:
    """Return the first of ``count`` seeds, or raise ``SeedError`` if one of them does not fit into 64 bits."""
    if not 0 <= first < _SEEDS:
        raise SeedError(first)
    if first + count > _SEEDS:
        raise SeedError(_SEEDS, _SEEDS - first + 1)
    return first


def checked_guidance(scale: float) -> float:
    """Return a guidance scale, or raise ``GuidanceError`` if it is not a number from 0 to 1000."""
    if not 0 <= scale <= _MOST_GUIDANCE:
        raise GuidanceError(scale)
    return float(scale) + 0.0  # of -0 and 0, which are equal and are not written alike


def checked_nearness(scale: float) -> float:
    """Return an image guidance scale, or raise ``ImageGuidanceError`` if it is not a number from 0 to 1000."""
    if not 0 <= scale <= _MOST_GUIDANCE:
        raise ImageGuidanceError(scale)
    return float(scale) + 0.0


def checked_strength(share: float) -> float:
    """Return the strength of an edit, or raise ``StrengthError`` if it is not in (0, 1]."""
    if not (math.isfinite(share) and 0 < share <= 1):
        raise StrengthError(share)
    return float(share)


def checked_variation(share: float) -> float:
    """Return the strength of a variation, or raise ``VariationError`` if it is not in [0, 1]."""
    if not (math.isfinite(share) and 0 <= share <= 1):
        raise VariationError(share)
    return float(share)


def checked_interval(value: Sequence[float]) -> tuple[float, float]:
    """Return two shares in ascending order, or raise ``IntervalError``."""
    try:
        low, high = (number("guidance_interval", share) for share in value)
    except (TypeError, ValueError) as error:
        raise IntervalError(value) from error
    if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high <= 1):
        raise IntervalError(value)
    return low, high


def _is_bool(value: Any) -> bool:  # noqa: ANN401 - it is checked here
    """Return whether it is a truth value, also one of numpy's or torch's."""
    if type(value).__name__ in _BOOLS:
        return True
    return str(getattr(value, "dtype", "")) in ("bool", "torch.bool") and getattr(value, "ndim", None) == 0


def _number(value: Any) -> int | float | None:  # noqa: ANN401 - it is checked here
    """Return the number that a value is, exactly where it is whole; None if it is no number."""
    if _is_bool(value) or isinstance(value, (str, bytes, bytearray)):
        return None
    try:
        return operator.index(value)
    except Exception:  # noqa: BLE001, S110 - a stranger's object may raise anything
        pass
    if not hasattr(value, "__float__") or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return float(value)
    except Exception:  # noqa: BLE001 - see above
        return None
