"""Where the commands keep what makes the next run begin sooner: the user's cache folder, another one, or nowhere."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["CacheOptions", "add_cache_options", "cache_folder"]


class CacheOptions(argparse.Namespace):
    """What ``add_cache_options`` adds to a command line, typed."""

    cache: Path | None
    keep: bool


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache`` and ``--no-cache``."""
    parser.add_argument(
        "--cache", type=Path, metavar="DIR",
        help="for the next run: compiled graphs, prompts as the UNet sees them (default: the user's cache folder)",
    )  # fmt: skip
    parser.add_argument("--no-cache", dest="keep", action="store_false", help="keep nothing for the next run")


def cache_folder(options: CacheOptions) -> Path | None:
    """Return the folder that the command line asks for, or None for none; nothing is made yet."""
    if not options.keep:
        return None
    if options.cache is not None:
        return options.cache
    from platformdirs import user_cache_path

    folder = user_cache_path("nano-runtime", appauthor=False)
    return folder if folder.is_absolute() else None  # without a home it would be in the current folder
