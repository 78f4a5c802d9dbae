"""Turns a row as it stands in a file into one that can be drawn, or says everything that is wrong with it."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from nano_runtime.errors import MissingArgumentError, OptionError, PictureFileError, PromptError, UsageError
from nano_runtime.errors.escaping import CONTROLS, pattern_of, unseen
from nano_runtime.errors.wording import shown
from nano_runtime.options import DrawOptions, checked_option
from nano_runtime.rows.columns import ID, NO_COLUMNS, field_of, meant
from nano_runtime.rows.row import Fault, Record, Row
from nano_runtime.rows.words import read_word
from nano_runtime.values import (
    checked_guidance,
    checked_interval,
    checked_length,
    checked_nearness,
    checked_seed,
    checked_strength,
    checked_variation,
    path,
    positive,
    text,
    whole,
)

__all__ = ["Checker"]

_CONTROL: Final = pattern_of(CONTROLS - {ord(letter) for letter in "\t\n\r"})
_LONGEST_ID: Final = 200  # characters; files are named by it
_ROUNDED: Final = re.compile(r"\s*\d+[.,]\d+[eE]\+\d+\s*$")  # as spreadsheets write long numbers
_MOST_EXACT: Final = 1 << 53  # up to here each whole number has a double of its own
_OWN: Final = ("prompt", "negative_prompt", "seed", "num_images_per_prompt")
_MOST_LOOKED_UP: Final = 20
_FILES: Final = ("image", "mask_image")


@dataclass
class Checker:
    """Checks the rows of one file, one after the other.

    Attributes:
        folder: of the file, which pictures are found from.
        defaults: for what a row leaves out.
        image: file to start from, for rows that name none; None for none.
        mask_image: its mask; None for none.
    """

    folder: Path
    defaults: DrawOptions
    image: Path | None = None
    mask_image: Path | None = None
    _ids: dict[str, str] = field(default_factory=dict)
    _columns: dict[str, tuple[str | None, str | None, str]] = field(default_factory=dict)
    _alike: dict[tuple[Any, ...], DrawOptions] = field(default_factory=dict)
    _seen: int = 0
    _unread: int = 0

    def __post_init__(self) -> None:
        """Take from the defaults what every row has of its own."""
        self._plain = replace(self.defaults, prompt="", image=None, mask_image=None, latents=None)
        self._unmasked = replace(self._plain, keep_unmasked=False, mask_blur=0.0)

    def check(self, record: Record) -> Row | list[Fault]:
        """Return the row, or its faults."""
        given, extra, names, faults = self._sorted(record)
        position, self._seen = self._seen, self._seen + 1
        found: dict[str, Any] = {}
        for of, value in given.items():
            checked = self._checked(record, of, value, names)
            if isinstance(checked, Fault):
                faults.append(checked)
            else:
                found[of] = checked
        if "prompt" not in given:
            faults.append(Fault(record.place, "it has no prompt", "Give it one, or remove the row."))
        name = found.pop(ID, str(position))
        if (before := self._ids.setdefault(name, record.place)) != record.place:
            place = f"{record.place}, {names[ID]}" if ID in names else record.place
            hint = "Give each row another, or none to any."
            faults.append(Fault(place, f"{before} has the id {shown(name)}, too", hint))
        if faults:
            return faults
        image, mask = self._pictures(found)
        try:
            options = self._options(found, masked=mask is not None)
            _check_together(options, image, mask, found)
        except UsageError as error:
            return [_fault(record, None, error, names)]
        usual = self._unmasked if mask is None else self._plain
        return Row(record.number, name, ID in given, options, image, mask, extra, usual)

    def _options(self, found: Mapping[str, Any], *, masked: bool) -> DrawOptions:
        """Return defaults with checked values in their places; rows mostly differ in prompt and seed alone."""
        shared = {of: value for of, value in found.items() if of not in _OWN}
        alike = masked, *shared.items()
        if alike not in self._alike:
            base = self._plain if masked else self._unmasked
            if shared.get("keep_unmasked") is False:
                base = self._unmasked
            self._alike[alike] = replace(base, **shared)
        options = copy(self._alike[alike])
        vars(options).update({of: found[of] for of in _OWN if of in found})  # which were checked
        return options

    def _sorted(self, record: Record) -> tuple[dict[str, Any], dict[str, Any], dict[str, str], list[Fault]]:
        """Return the values of options, the others, each option's column, and the columns that cannot be."""
        given: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        names: dict[str, str] = {}
        faults: list[Fault] = []
        for column, value in record.values.items():
            of, why, hint = self._columns.get(column) or self._learn(column)
            if of in names:
                why, hint = f"it is the same as the column {shown(names[of])}", "Remove one of them."
            if why is not None:
                faults.append(Fault(f"{record.place}, {column}", why, hint))
            elif of is None:
                extra[column] = value
            else:
                names[of] = column
                if value is not None:
                    given[of] = value
        return given, extra, names, faults

    def _learn(self, column: str) -> tuple[str | None, str | None, str]:
        """Return the option that a column is, and why it cannot be a column, and what to do then."""
        near = meant(column)
        found: tuple[str | None, str | None, str] = field_of(column), None, ""
        if near is not None:
            hint = f"Did you mean {near}? A column that is to be carried along needs another name."
            found = None, f"there is no option {shown(column)}", hint
        elif column in NO_COLUMNS:
            found = None, "a list cannot hold it", "Remove the column."
        self._columns[column] = found
        return found

    def _checked(self, record: Record, of: str, value: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401
        """Return the value of one option, or its fault."""
        try:
            if record.as_text:
                value = read_word(of, value)
            if of in _FILES:
                return self._file(of, value)
            return _CHECKS[of](value) if of in _CHECKS else checked_option(of, value)
        except UsageError as error:
            return _fault(record, names[of], error, names)

    def _file(self, of: str, value: object) -> Path:
        """Return the path of a picture that is there."""
        found = self.folder / path(of, text(of, value))
        try:
            mode = found.stat().st_mode
        except OSError as error:
            number = error.errno
        else:
            if stat.S_ISREG(mode) and os.access(found, os.R_OK):
                return found
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EACCES
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise OptionError(of, value, "the name of a picture; this is no plain file")
        self._unread += 1
        if self._unread > _MOST_LOOKED_UP:  # the error looks for a name that is nearly this one
            raise OptionError(of, value, "the name of a picture that can be read")
        raise PictureFileError(found, number)

    def _pictures(self, found: dict[str, Any]) -> tuple[Path | None, Path | None]:
        """Return the files to start from, and take them from the options; a mask belongs to its picture."""
        own, mask = found.pop("image", None), found.pop("mask_image", None)
        if own is None:
            return self.image, self.mask_image if mask is None else mask
        return own, mask


def _fault(record: Record, column: str | None, error: UsageError, names: Mapping[str, str]) -> Fault:
    """Return what is wrong with a value, in the words of the file."""
    what, hint = error.worded(lambda of: names.get(of, of))
    return Fault(record.place if column is None else f"{record.place}, {column}", what, hint)


def _identifier(value: Any) -> str:  # noqa: ANN401 - it is checked here
    """Return the name of a row, which may become that of a file."""
    name = str(value) if isinstance(value, int) and not isinstance(value, bool) else text("id", value).strip()
    if not name or len(name) > _LONGEST_ID or unseen(name) or set(name) & set("/\\") or name.startswith("."):
        raise OptionError(
            "id", value, f"1 to {_LONGEST_ID} visible characters without / and \\, the first of them no dot"
        )
    return name


def _prompt(which: str, value: Any) -> str:  # noqa: ANN401 - it is checked here
    """Return a prompt that some bundle draws."""
    if not isinstance(value, str):
        raise PromptError(f"{shown(value)} is no text", which, "Put it in quotes.")
    checked_length(value, which)
    if (found := _CONTROL.search(value)) is not None:
        why = f"character {found.start() + 1} is a control character (U+{ord(found.group()):04X})"
        raise PromptError(why, which, "Remove it.")
    return value


def _seed(value: Any) -> int | None:  # noqa: ANN401 - an option's
    """Return a seed; None for -1, which asks for a random one, as in A1111."""
    if (isinstance(value, float) and abs(value) > _MOST_EXACT) or (isinstance(value, str) and _ROUNDED.match(value)):
        raise OptionError("seed", value, "all of its digits: a spreadsheet or a table of floats has rounded it")
    seed = whole("seed", value)
    return None if seed == -1 else checked_seed(seed)


def _in_range(option: str, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a check of an option's type and range."""
    return lambda value: check(checked_option(option, value))


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    ID: _identifier,
    "prompt": partial(_prompt, "prompt"),
    "negative_prompt": partial(_prompt, "negative prompt"),
    "seed": _seed,
    "variation_seed": _in_range("variation_seed", checked_seed),
    "num_inference_steps": partial(positive, "num_inference_steps"),
    "height": partial(positive, "height"),
    "width": partial(positive, "width"),
    "guidance_scale": _in_range("guidance_scale", checked_guidance),
    "image_guidance_scale": _in_range("image_guidance_scale", checked_nearness),
    "strength": _in_range("strength", checked_strength),
    "variation_strength": _in_range("variation_strength", checked_variation),
    "guidance_interval": checked_interval,
}
"""Checks that the options themselves leave to the plan, or that are stricter in a file."""


def _check_together(options: DrawOptions, image: Path | None, mask: Path | None, own: Mapping[str, Any]) -> None:
    """Refuse options of a row that mean nothing without others."""
    varied, count = bool(options.variation_strength), options.num_images_per_prompt  # 0 is the seed's own picture
    if isinstance(options.seed, int):
        checked_seed(options.seed, 1 if varied else count)
    if varied and options.variation_seed is not None:
        checked_seed(options.variation_seed, count)
    needs = (
        (mask is not None, "mask_image", image is not None, "image"),
        ("strength" in own, "strength", image is not None, "image"),
        ("keep_unmasked" in own, "keep_unmasked", mask is not None, "mask_image"),
        ("variation_seed" in own, "variation_seed", options.variation_strength is not None, "variation_strength"),
    )
    for given, name, there, needed in needs:
        if given and not there:
            raise MissingArgumentError(name, needed)
    if own.get("mask_blur") and not options.keep_unmasked:
        raise MissingArgumentError("mask_blur", "keep_unmasked")
