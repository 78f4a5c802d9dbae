"""The options that choose the cache folder: the user's own one, another one, or none."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from nano_runtime.system.disk_cache import close_to_others, may_be_changed

__all__ = ["CacheOptions", "add_cache_options", "cache_folder"]

_log = logging.getLogger(__name__)


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

    The default folder belongs to this program alone, with all folders in it: if they exist and other users may read
    them, they no longer may. If that cannot be changed, nothing is kept, with a warning. A folder that is named with
    ``--cache`` keeps its permissions.
    """
    if not options.keep:
        return None
    if options.cache is not None:
        return options.cache
    from platformdirs import user_cache_path

    folder = user_cache_path("nano-runtime", appauthor=False)
    if not folder.is_absolute():  # it would be in the current folder
        _log.warning("there is no home folder to keep a cache in: --cache DIR names one, --no-cache none")
        return None
    for one in (folder, *_inner(folder)):
        close_to_others(one)
        if may_be_changed(one):
            _log.warning("others may change %s: nothing is kept there; see who owns it, or give --cache DIR", one)
            return None
    return folder


def _inner(folder: Path) -> list[Path]:
    """Return the folders in a folder; none if it cannot be read."""
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []
