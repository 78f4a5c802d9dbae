"""Writes a folder completely or not at all: fills it beside its final place, and renames it when it is complete.

A run that is killed leaves the old folder or the new one. Between two renames there is a moment with neither: the next
run puts the old one back, and removes all unfinished folders.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from nano_export.bundle.replaceable import reason_to_keep
from nano_export.errors import NotReplacedError
from nano_runtime.errors import OutputError, OutputExistsError
from nano_runtime.system.files import MACHINE_ERRNOS, sync_folder, sync_tree

__all__ = ["check_target", "discard_unfinished", "staged"]

_LONGEST_NAME_BYTES = 200  # with our suffixes it stays below the limit of every file system
_IN_THE_WAY = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}

_publishing = threading.Lock()  # held while there may be neither the old folder nor the new one
_unfinished: dict[Path, Path] = {}  # of this process: staging folder -> file of the lock


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that cannot be published to, before any work is done.

    Raises:
        OutputExistsError: something is there and ``force`` is False.
        NotReplacedError: it is not a bundle, or has files that are not the bundle's.
        OutputError: the parent folder does not exist or cannot be written.
    """
    parent = target.absolute().parent
    if not parent.is_dir():
        raise OutputError(target, f"the folder {parent} does not exist")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(target, f"no permission to write in {parent}")
    try:
        _require_replaceable(target, force=force)
    except OSError as error:
        raise OutputError(target, error) from error


@contextmanager
def staged(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield a new folder to fill; when the block ends without an error, it becomes ``target``.

    Correctness rests on unique names and renames. The lock only saves a second export into the same place its wasted
    work, and protects the staging folder of a live run from the clean-up.

    Raises:
        OutputExistsError: see ``check_target``.
        NotReplacedError: likewise.
        OutputError: another export into the same place is running, or the disk refuses.
    """
    target = target.absolute()
    check_target(target, force=force)
    staging = _fresh(target, "staging")
    try:
        with _only_export(target):
            try:
                _unfinished[staging] = _beside(target, "lock")
                staging.mkdir()
                if _locks_work(staging):
                    _recover(target, staging)
                yield staging
                sync_tree(staging)
                with _publishing:
                    _swap(staging, target, force=force)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
                _unfinished.pop(staging, None)
    except OSError as error:
        where = target if error.filename is None else Path(str(error.filename))
        if error.errno not in MACHINE_ERRNOS or not where.is_relative_to(target.parent):
            raise
        raise OutputError(target, error) from error


def discard_unfinished() -> None:
    """Remove what this process has not finished, from any thread; the process must end then, for it publishes no more.

    What is just being published is finished first.
    """
    _publishing.acquire()
    for staging, lock in list(_unfinished.items()):
        shutil.rmtree(staging, ignore_errors=True)
        lock.unlink(missing_ok=True)


@contextmanager
def _only_export(target: Path) -> Iterator[None]:
    """Refuse to run beside another export into the same place."""
    path = _beside(target, "lock")
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputError(target, "another export into this folder is running") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while the lock is held: who waits for this file notices that it is no lock any more
        lock.release()


def _locks_work(folder: Path) -> bool:
    """Return whether locks keep others out: on some network file systems everyone gets every lock.

    There, of two exports into one place one bundle stays, and nothing is removed that may be the staging folder of a
    live run. The test uses a file that nobody else knows.
    """
    path = folder / "lock"
    with FileLock(path):
        second = FileLock(path)
        try:
            second.acquire(blocking=False)
        except Timeout:
            return True
        else:
            second.release()
            return False
        finally:
            path.unlink(missing_ok=True)


def _recover(target: Path, staging: Path) -> None:
    """Clean up after killed runs: restore a bundle that was caught between two renames, remove unfinished folders."""
    moved_away = sorted(_left(target, "old"), key=lambda path: path.stat().st_ctime_ns)
    if moved_away and _obstacle(target, force=False) is None:
        moved_away.pop().rename(target)
    for old in moved_away:
        _discard(old, target)
    for unfinished in _left(target, "staging"):
        if unfinished != staging:
            shutil.rmtree(unfinished, ignore_errors=True)


def _swap(staging: Path, target: Path, *, force: bool) -> None:
    """Put the new folder in place of the old one, even if other runs do the same."""
    while not _put(staging, target):
        _require_replaceable(target, force=force)
        old = _fresh(target, "old")
        try:
            target.rename(old)
        except FileNotFoundError:
            continue  # another run has just moved it
        try:
            _require_replaceable(old, force=force, name=target)  # nobody finds it under this name to write into it
            placed = _put(staging, target)
        except BaseException:
            with suppress(OSError):
                old.rename(target)
            raise
        _discard(old, target)
        if placed:
            break
    sync_folder(target.parent)


def _put(staging: Path, target: Path) -> bool:
    """Rename; return False if something is in the way."""
    try:
        staging.rename(target)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        return False
    return True


def _discard(old: Path, target: Path) -> None:
    """Remove a bundle, under a name from which a half of it is never restored; what is none stays."""
    try:
        if _obstacle(old, force=True) is not None:
            return
    except OSError:
        return
    garbage = _fresh(target, "staging")
    with suppress(OSError):
        old.rename(garbage)
    shutil.rmtree(garbage, ignore_errors=True)


def _require_replaceable(folder: Path, *, force: bool, name: Path | None = None) -> None:
    """Refuse a place that may not be replaced; ``name`` is what the caller knows it by."""
    if (why := _obstacle(folder, force=force)) is None:
        return
    if not force:
        raise OutputExistsError(folder if name is None else name)
    raise NotReplacedError(folder if name is None else name, why)


def _obstacle(target: Path, *, force: bool) -> str | None:
    """Return why a place may not be replaced: None if there is nothing, an empty folder, or with ``force`` a bundle.

    What is there must stay the same meanwhile.
    """
    while (before := _identity(target)) is not None:
        why: str | None = "it is no folder"
        with suppress(FileNotFoundError):  # another run has just moved it
            if target.is_dir() and not target.is_symlink():
                why = "it is there already" if any(target.iterdir()) else None
                if why is not None and force:
                    why = reason_to_keep(target)
            if why is None or _identity(target) == before:
                return why
    return None


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return numbers that no other file or folder has, not even the next of this name; None if there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _left(target: Path, kind: str) -> list[Path]:
    """Return the folders of one kind beside a target: those whose names ``_fresh`` could have made."""
    ours = re.compile(re.escape(_beside(target, f"{kind}-").name) + r"[0-9a-f]{8,12}")
    return [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]


def _fresh(target: Path, kind: str) -> Path:
    """Return a name beside the target that nobody else has."""
    return _beside(target, f"{kind}-{uuid4().hex[:12]}")


def _beside(target: Path, suffix: str) -> Path:
    """Return a hidden path beside the target, named after it, or after its hash if the name is long."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return target.with_name(f".{name}.{suffix}")
