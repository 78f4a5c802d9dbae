"""``--grid steps=10,20,50``: the same picture under several values of one or two options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from nano_runtime.errors import ConflictError, OptionError

if TYPE_CHECKING:
    from nano_runtime.cli.settings import Settings

__all__ = ["Axis", "cells", "check_axes", "parse_axis"]

_KINDS: Final[Mapping[str, Callable[[str], int | float | str]]] = MappingProxyType(
    {
        "steps": int,
        "guidance": float,
        "seed": int,
        "scheduler": str,
        "strength": float,
        "variation-seed": int,
        "variation-strength": float,
    }
)
_MOST_AXES: Final = 2


@dataclass(frozen=True)
class Axis:
    """One option and its values, in order."""

    option: str
    values: tuple[int | float | str, ...]

    @property
    def field(self) -> str:
        """Return the option's name in ``Settings``."""
        return self.option.replace("-", "_")

    @property
    def labels(self) -> list[str]:
        """Return what stands beside the pictures."""
        values = (f"{value:g}" if isinstance(value, float) else str(value) for value in self.values)
        return [f"{self.option} {value}" for value in values]


def parse_axis(text: str) -> Axis:
    """Read ``OPTION=VALUE,VALUE,...``.

    Raises:
        argparse.ArgumentTypeError: it is not of that form, or a value is not one of its option.
    """
    option, equals, values = text.partition("=")
    if not equals or option not in _KINDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not OPTION=VALUE,VALUE,... with one of: {', '.join(_KINDS)}")
    try:
        return Axis(option, tuple(map(_KINDS[option], values.split(","))))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


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


def cells(settings: Settings, axes: Sequence[Axis]) -> Iterator[Settings]:
    """Yield the settings of every place: the first axis goes across, the second down.

    Seeds left to chance are the same everywhere.
    """
    from nano_runtime.drawing.request import random_seed

    seed = random_seed() if settings.seed is None else settings.seed
    varied = settings.variation_strength is not None or any(axis.option == "variation-strength" for axis in axes)
    variation = random_seed() if varied and settings.variation_seed is None else settings.variation_seed
    settings = replace(settings, seed=seed, variation_seed=variation)
    across, down = axes[0], axes[1] if len(axes) == _MOST_AXES else None
    for lower in (None,) if down is None else down.values:
        for value in across.values:
            changes: dict[str, Any] = {across.field: value}
            if down is not None:
                changes[down.field] = lower
            yield replace(settings, **changes)
