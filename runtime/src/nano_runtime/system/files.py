"""Writes all files: each appears under its name whole or not at all, and stays after a power cut. Opens plain ones.

An unfinished file lies beside its place under a unique name, is put on the disk (fsync), and is then renamed. The
unique names and the renames make this correct. Locks only tell the leftovers of a dead process from the work of a
living one.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from nano_runtime.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "MACHINE_ERRNOS",
    "check_file",
    "check_folder",
    "open_plain",
    "paths_below",
    "plain_content",
    "sync_folder",
    "sync_tree",
    "write_whole",
]

MACHINE_ERRNOS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),  # full
        *(errno.EACCES, errno.EPERM, errno.EROFS),  # forbidden
        *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO),  # broken, or gone
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),  # too much at once
        *(errno.ENAMETOOLONG, errno.ELOOP),
    }
)
"""Error numbers of the machine's own limits, which are no bugs of this program."""

_ORDINARY, _PRIVATE = 0o666, 0o600  # before the umask
_MOST_BYTES = 4 << 30  # a hole in a file stands for as many bytes as it likes
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_PLAIN_FLAGS = _NOFOLLOW | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_PREFIX, _SUFFIX = ".nano-", ".part"
_FRESH_S = 60.0  # nothing younger is removed: on some network file systems everyone gets every lock

_tidy: dict[tuple[int, int], float] = {}  # device and number of folders: when nothing unfinished was in them


def check_folder(folder: Path) -> None:
    """Raise the errors of ``write_whole`` that can be foreseen before there is anything to write.

    Raises:
        OutputError: the folder is missing or not writable.
    """
    try:
        there = folder.is_dir()
    except OSError as error:
        raise OutputError(folder, error) from error
    if not there:
        raise OutputError(folder, "there is no such folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(folder, "no permission")


def check_file(path: Path) -> None:
    """Raise the errors of ``write_whole`` for one file that can be foreseen before there is anything to write.

    Raises:
        OutputError: the folder is missing or not writable, or the name is that of a folder, or none.
    """
    check_folder(path.parent)
    if not path.name or path.is_dir():
        raise OutputError(path, "it is a folder")


def open_plain(path: str | Path, flags: int = os.O_RDONLY, *, links: bool = False) -> int:
    """Open a plain file and return its descriptor, without waiting for a FIFO or a device.

    Args:
        path: of the file.
        flags: how to open it; a file that they make is everybody's, as the umask has it.
        links: whether symbolic links are followed.

    Raises:
        OSError: it is missing, may not be opened, is a symbolic link, or is not a plain file.
    """
    descriptor = os.open(path, flags | (_PLAIN_FLAGS & ~_NOFOLLOW if links else _PLAIN_FLAGS), _ORDINARY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return descriptor


def plain_content(path: Path) -> bytes:
    """Return the content of a plain file that somebody else may have put there; a link to one is followed.

    Raises:
        OSError: it is missing, may not be read, is no plain file, or has more than 4 GiB.
    """
    with os.fdopen(open_plain(path, links=True), "rb") as file:
        if os.fstat(file.fileno()).st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, "it has more than 4 GiB", str(path))
        return file.read()


def write_whole(path: Path, write: Callable[[BinaryIO], object], *, private: bool = False) -> None:
    """Let ``write`` fill a file that appears under its name only when it is complete, replacing one of that name.

    The data is on the disk before the name is: after a crash there is the old file, the new one, or none. Unfinished
    files that killed processes left in the folder are removed.

    Args:
        path: the name of the file; its folder must exist.
        write: gets the open file.
        private: True lets only this user read the file (mode 600); False leaves that to the umask.

    Raises:
        OutputError: the folder is missing, full, or not writable.
    """
    if not path.name:
        raise OutputError(path, "it is no name of a file")
    unfinished = path.with_name(f"{_PREFIX}{uuid4().hex}{_SUFFIX}")
    try:
        _remove_abandoned(path.parent)
        try:
            # Path.open takes no opener, and rights that are taken away after opening come too late.
            with open(unfinished, "xb", opener=partial(os.open, mode=_PRIVATE if private else _ORDINARY)) as file:
                if private and hasattr(os, "fchmod"):
                    os.fchmod(file.fileno(), _PRIVATE)  # an umask may take the user's own rights, too
                _claim(file)
                write(file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        _tidy.clear()  # it may be the unfinished file that could not be removed
        raise OutputError(path, error) from error


def sync_tree(folder: Path) -> None:
    """Put every file below a folder, and the folders themselves, on the disk."""
    for path in paths_below(folder):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def paths_below(folder: Path, levels: int | None = None) -> Iterator[Path]:
    """Yield all files and folders below a folder; ``Path.rglob`` leaves out unreadable ones silently.

    It does not follow links, and does not recurse, as ``os.walk`` does: folders may be nested deeper than that stands.

    Args:
        folder: that is looked through.
        levels: how many; what lies below them is left out. None for all.

    Raises:
        OSError: a folder cannot be read.
    """
    waiting = [(folder, 1)]
    while waiting:
        parent, level = waiting.pop()
        with os.scandir(parent) as entries:
            for entry in entries:
                yield Path(entry)
                if level != levels and entry.is_dir(follow_symlinks=False):
                    waiting.append((Path(entry), level + 1))


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, on systems where a folder can be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems have no such thing as a folder's fsync
            raise
    finally:
        os.close(descriptor)


def _claim(file: BinaryIO) -> None:
    """Lock an unfinished file until it is closed; the system closes it when this process ends, however it ends."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files of processes that are gone; none on systems that cannot tell.

    Where none was, there is none that is old enough for as long as that takes: until then nobody looks again. At every
    picture that would take 5 ms in a folder of 7,000.
    """
    if fcntl is None:
        return
    status, now = folder.stat(), time.monotonic()
    name = (status.st_dev, status.st_ino)
    if now - _tidy.get(name, -math.inf) < _FRESH_S:
        return
    with os.scandir(folder) as entries:
        parts = [Path(entry) for entry in entries if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)]
    if not parts:
        _tidy[name] = now
    for part in parts:
        with suppress(OSError):  # it is claimed, gone by now, or not ours to remove
            if time.time() - part.lstat().st_mtime > _FRESH_S:
                with os.fdopen(open_plain(part), "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()
