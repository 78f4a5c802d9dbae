"""Locks of a job's folder, which the system takes back from a process that ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from nano_batch.errors import BusyFolderError
from nano_runtime.errors import OutputError
from nano_runtime.system.files import open_plain

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["locked", "one_at_a_time"]

_LOCK: Final = ".lock"
_REPORT_LOCK: Final = ".report.lock"


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Have one process at a time begin a job, or read its logs and write what is made of them; the others wait.

    Raises:
        OutputError: the lock cannot be made; the folder of a job that was deleted is not made again.
    """
    with _opened_lock(folder / _REPORT_LOCK) as file:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked(folder: Path, shard: str | None = None) -> Iterator[None]:
    """Keep other processes out of a folder: all of them, or for a shard those of the same shard and without one.

    The lock is the system's: a process that ends, however it ends, has it no longer.

    Args:
        folder: of a job; it is made if it is not there.
        shard: name of the worker; None for the only one.

    Raises:
        BusyFolderError: another process is at work.
        OutputError: the folder cannot be made, or the lock in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, error) from error
    with ExitStack() as files:
        _lock(folder, files.enter_context(_opened_lock(folder / _LOCK)), shared=shard is not None)
        if shard is not None:
            _lock(folder, files.enter_context(_opened_lock(folder / f"{_LOCK}-{shard}")), shared=False)
        yield


def _opened_lock(path: Path) -> IO[bytes]:
    """Open a file to lock it."""
    try:
        return open(path, "ab", opener=open_plain)
    except OSError as error:
        raise OutputError(path if os.path.lexists(path) else path.parent, error) from error


def _lock(folder: Path, file: IO[bytes], *, shared: bool) -> None:
    """Lock a file until it is closed.

    Raises:
        BusyFolderError: another process has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyFolderError(folder) from error
    except OSError:  # a file system without locks
        pass
