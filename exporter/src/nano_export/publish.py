"""Writes a folder completely or not at all: staged beside its final place, renamed when it is whole.

A run that is killed leaves the old folder or the new one, and at most a staging folder, which the next run removes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from nano_runtime.errors import OutputError, OutputExistsError

__all__ = ["check_target", "staged"]


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that could not be published, before any work is done.

    Raises:
        OutputExistsError: something is there and ``force`` is False, or it is not a bundle that may be replaced.
        OutputError: the parent folder does not exist or cannot be written.
    """
    parent = target.absolute().parent
    if not parent.is_dir():
        raise OutputError(target, f"the folder {parent} does not exist")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(target, f"no permission to write in {parent}")
    if target.is_symlink() or target.exists():
        replaceable = target.is_dir() and not target.is_symlink()
        empty = replaceable and not any(target.iterdir())
        ours = replaceable and (target / "manifest.json").is_file()
        if not (empty or (force and ours)):
            raise OutputExistsError(target)


@contextmanager
def staged(target: Path, *, force: bool) -> Iterator[Path]:
    """Give a fresh folder to fill; when the block ends without an error, it becomes ``target``.

    Correctness rests on unique names and renames. The lock only keeps a second export into the same place from doing
    its work in vain, and the clean-up from removing the staging folder of a run that is alive.

    Raises:
        OutputExistsError: see ``check_target``.
        OutputError: another export into the same place is running, or the disk refuses.
    """
    target = target.absolute()
    check_target(target, force=force)
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(target, "another export into this folder is running") from error
    try:
        _recover(target)
        staging = target.with_name(f".{target.name}.staging-{uuid4().hex[:8]}")
        staging.mkdir()
        try:
            yield staging
            _sync(staging)
            _swap(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _recover(target: Path) -> None:
    """Clean up after a run that was killed: restore a bundle caught between two renames, remove staging folders."""
    for old in target.parent.glob(f".{target.name}.old-*"):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    for stale in target.parent.glob(f".{target.name}.staging-*"):
        shutil.rmtree(stale, ignore_errors=True)


def _swap(staging: Path, target: Path) -> None:
    """Put the new folder in place of the old one."""
    old = target.with_name(f".{target.name}.old-{uuid4().hex[:8]}")
    if target.exists():
        target.rename(old)
    staging.rename(target)
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Put every file of a folder, and the folder itself, on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
