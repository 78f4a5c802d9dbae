"""Tells why a file of a checkpoint cannot be read, before a library stumbles over it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from nano_export.errors import CheckpointError

__all__ = ["is_passed_on", "lies_in", "require_folder", "require_readable", "require_text"]

_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024  # bytes; by Git LFS's specification
_SNAPSHOTS = "snapshots"  # of a model in the Hub's cache, whose files are links to those beside it
_LARGEST_TEXT = 64 << 20  # bytes; CLIP's tokenizer.json has 4 million

_log = logging.getLogger(__name__)


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


def require_text(path: Path) -> None:
    """Check a config, a vocabulary or a card in the same way; a hole in a file stands for as many bytes as it likes.

    Raises:
        CheckpointError: it is not readable, or large.
    """
    require_readable(path)
    if (size := path.stat().st_size) > _LARGEST_TEXT:
        raise CheckpointError(path, f"it has {size / 1e6:,.0f} MB, and no such file has so many")


def lies_in(path: Path, folder: Path) -> bool:
    """Return whether a file of a checkpoint is no link, or one into the Hub's cache that the checkpoint lies in.

    Args:
        path: of the file.
        folder: of the checkpoint.
    """
    root = folder.resolve()
    return path.resolve().is_relative_to(root.parent.parent if root.parent.name == _SNAPSHOTS else root)


def is_passed_on(path: Path, folder: Path) -> bool:
    """Return whether a text of a checkpoint is there, and is to be copied into the bundle.

    A link of a stranger may lead to any file of the user, who would publish it with the bundle: see ``lies_in``.

    Args:
        path: of the text.
        folder: of the checkpoint.

    Raises:
        CheckpointError: it cannot be read, or is large.
    """
    if not path.is_file():
        return False
    if not lies_in(path, folder):
        _log.warning("%s is a link to a file outside of the checkpoint: the bundle goes without it", path)
        return False
    require_text(path)
    return True


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
