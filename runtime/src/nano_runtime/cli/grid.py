"""``--grid steps=10,20,50``: the same picture under several values of one or two options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from nano_runtime.cli.parser import number
from nano_runtime.cli.picture_flags import FLAGS
from nano_runtime.errors import ConflictError, OptionError, UsageError
from nano_runtime.options import DrawOptions

__all__ = ["GRID_OPTIONS", "Axis", "cells", "check_axes", "parse_axis"]

_FLAGS: Final = {flag.option: flag for flag in FLAGS if flag.on_sheets}
GRID_OPTIONS: Final = tuple(_FLAGS)
_MOST_AXES: Final = 2


@dataclass(frozen=True)
class Axis:
    """One option and its values, in order."""

    option: str
    values: tuple[int | float | str, ...]

    @property
    def field(self) -> str:
        """The option's field in ``DrawOptions``."""
        return _FLAGS[self.option].field

    @property
    def labels(self) -> list[str]:
        """The texts beside the pictures."""
        values = (f"{value:g}" if isinstance(value, float) else str(value) for value in self.values)
        return [f"{self.option} {value}" for value in values]


def parse_axis(text: str) -> Axis:
    """Read ``OPTION=VALUE,VALUE,...``.

    Raises:
        argparse.ArgumentTypeError: it is not of that form, or a value is not one of its option.
    """
    option, equals, values = text.partition("=")
    if not equals or option not in _FLAGS:
        raise argparse.ArgumentTypeError(f"{text!r} is not OPTION=VALUE,VALUE,... with one of: {', '.join(_FLAGS)}")
    values_read = tuple(map(_FLAGS[option].read, values.split(",")))
    if _FLAGS[option].read is number:
        for value in values_read:
            known: dict[str, Any] = {_FLAGS[option].field: value}
            try:
                DrawOptions(**known)
            except UsageError as error:
                raise argparse.ArgumentTypeError(f"{text!r}: {error.worded(lambda _: option)[0]}") from error
    return Axis(option, values_read)


def check_axes(axes: Sequence[Axis], count: int) -> None:
    """Refuse grids that no sheet can show.

    Raises:
        OptionError: there are more than two axes, or both are the same.
        ConflictError: several pictures are asked for in each place.
    """
    options = [axis.option for axis in axes]
    if len(options) > _MOST_AXES or len(set(options)) != len(options):
        raise OptionError("grid", " ".join(options), ["one option across", "two different ones across and down"])
    if axes and count != 1:
        raise ConflictError("--grid", "--count")


def cells(options: DrawOptions, axes: Sequence[Axis]) -> Iterator[DrawOptions]:
    """Yield the options of every place: the first axis goes across, the second down.

    Random seeds are the same everywhere.
    """
    from nano_runtime.drawing.arguments import random_seed

    seed = random_seed() if options.seed is None else options.seed
    varied = options.variation_strength is not None or any(axis.field == "variation_strength" for axis in axes)
    variation = random_seed() if varied and options.variation_seed is None else options.variation_seed
    options = replace(options, seed=seed, variation_seed=variation)
    across, down = axes[0], axes[1] if len(axes) == _MOST_AXES else None
    for lower in (None,) if down is None else down.values:
        for value in across.values:
            changes: dict[str, Any] = {across.field: value}
            if down is not None:
                changes[down.field] = lower
            yield replace(options, **changes)
