"""Tells why a file of a checkpoint cannot be read, before a library stumbles over it."""

from __future__ import annotations

import os
from pathlib import Path

from nano_export.errors import CheckpointError

__all__ = ["require_folder", "require_readable"]

_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024  # bytes; by Git LFS's specification


def require_readable(path: Path) -> None:
    """Check that a file is there, is a file, may be read, and is not a stand-in for another one.

    Raises:
        CheckpointError: it is not.
    """
    _require_target(path)
    if not path.exists():
        raise CheckpointError(path, "it is missing")
    if path.is_dir():
        raise CheckpointError(path, "it is a folder where a file is expected")
    if not path.is_file():  # opening a pipe would wait for ever
        raise CheckpointError(path, "it is not a file")
    try:
        with path.open("rb") as file:
            start = file.read(_LARGEST_POINTER)
    except OSError as error:
        raise CheckpointError(path, f"it cannot be read ({error.strerror})") from error
    if start.startswith(_POINTER):
        raise CheckpointError(
            path, "it is a Git LFS pointer, which stands for the file; “git lfs pull” in its folder fetches the file"
        )


def require_folder(path: Path) -> None:
    """Check that a folder is there and may be listed.

    Raises:
        CheckpointError: it is not.
    """
    _require_target(path)
    if not path.exists():
        raise CheckpointError(path.parent, f"the folder {path.name}/ is missing")
    if not path.is_dir():
        raise CheckpointError(path, "it is a file where a folder is expected")
    try:
        with os.scandir(path):
            pass
    except OSError as error:
        raise CheckpointError(path, f"the folder cannot be read ({error.strerror})") from error


def _require_target(path: Path) -> None:
    """Refuse a link that leads nowhere: folders of the Hub's cache are full of links, which copies cut."""
    try:
        broken = path.is_symlink() and not path.exists()
    except OSError as error:  # links in a circle, a folder that may not be entered
        raise CheckpointError(path, f"it cannot be read ({error.strerror})") from error
    if broken:
        raise CheckpointError(
            path,
            f"it is a link to {path.readlink()}, which is not there; a copy has to follow links, as “cp -rL” does",
        )
