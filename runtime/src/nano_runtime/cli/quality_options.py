"""How the commands let people trade exactness for time: a preset of the bundle, or its parts."""

from __future__ import annotations

import argparse
from typing import get_args

from nano_runtime.bundle.manifest import Quality
from nano_runtime.errors import IntervalError

__all__ = ["ShortcutOptions", "add_shortcut_options", "guidance_interval"]


class ShortcutOptions(argparse.Namespace):
    """What ``add_shortcut_options`` adds to a command line, typed."""

    quality: Quality | None
    cache_interval: int | None
    guidance_interval: str | None


def add_shortcut_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--quality``, ``--cache-interval`` and ``--guidance-interval``."""
    add = parser.add_argument
    add(
        "--quality", choices=get_args(Quality),
        help="leave out some work, as measured for the bundle; see nano-bundle info (default: exact)",
    )  # fmt: skip
    add(
        "--cache-interval", type=int, metavar="N",
        help="run the whole UNet every N calls and its outermost layers between (default: the preset's; exact is 1)",
    )  # fmt: skip
    add(
        "--guidance-interval", metavar="FROM:TO",
        help="guide only between these shares of the steps (default: the preset's; exact is 0:1)",
    )  # fmt: skip


def guidance_interval(options: ShortcutOptions) -> tuple[float, float] | None:
    """Return the two numbers of ``FROM:TO``; whether they are shares is for the pipeline to say.

    Raises:
        IntervalError: they are not two numbers.
    """
    if options.guidance_interval is None:
        return None
    try:
        low, high = map(float, options.guidance_interval.split(":"))
    except ValueError as error:
        raise IntervalError(options.guidance_interval) from error
    return low, high
