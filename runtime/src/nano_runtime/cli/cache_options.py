"""The options that choose the cache folder: the user's own one, another one, or none."""

from __future__ import annotations

import argparse
from pathlib import Path

from nano_runtime.system.disk_cache import close_to_others

__all__ = ["CacheOptions", "add_cache_options", "cache_folder"]


class CacheOptions(argparse.Namespace):
    """The values of ``add_cache_options``, typed."""

    cache: Path | None
    keep: bool


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache`` and ``--no-cache``."""
    parser.add_argument(
        "--cache", type=Path, metavar="DIR",
        help="cache folder for compiled graphs and encoded prompts (default: the user's cache folder)",
    )  # fmt: skip
    parser.add_argument("--no-cache", dest="keep", action="store_false", help="read and write no cache")


def cache_folder(options: CacheOptions) -> Path | None:
    """Return the folder that the command line asks for, or None for none; it is made when something is stored.

    The default folder belongs to this program alone: if it exists and other users may read it, they no longer may. A
    folder that is named with ``--cache`` keeps its permissions.
    """
    if not options.keep:
        return None
    if options.cache is not None:
        return options.cache
    from platformdirs import user_cache_path

    folder = user_cache_path("nano-runtime", appauthor=False)
    if not folder.is_absolute():  # without a home it would be in the current folder
        return None
    close_to_others(folder)
    return folder
