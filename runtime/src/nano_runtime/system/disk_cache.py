"""The cache on disk: private, of bounded size, checked before use; all of it may be deleted at any time.

A file counts if it is a plain one, this user's own and closed to others, and not larger than the whole cache: whoever
may write into a shared folder can put anything there. It holds the sha256 of its key and content, then the content. A
file that is damaged, cut short or stored under another key's name is deleted and reported as missing. Content that
cannot be written is not stored, with a warning. No error leaves this file: a run without a cache only takes longer.

Folders that the cache makes are for this user alone (mode 700), those above it included, and so are its files (mode
600), wherever they lie. A folder that is there already keeps its mode, because others may be meant to use it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

from nano_runtime.errors.escaping import first_line
from nano_runtime.system.files import open_plain, write_whole

__all__ = ["DiskCache", "close_to_others", "make_private", "may_be_changed"]

_log = logging.getLogger(__name__)
_MOST_BYTES = 256_000_000  # a full-size bundle's graphs take about 30 MB
_DIGEST_BYTES = hashlib.sha256().digest_size
_PRIVATE = stat.S_IRWXU
_TOLD: set[tuple[Path, str]] = set()  # folders that cannot be used, and why


class DiskCache:
    """Content by key, in one folder; the files that were unused for longest go first when there are too many.

    Args:
        folder: made when something is stored; other files in it are left alone.
        most_bytes: limit on the size of all files together.
    """

    def __init__(self, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def get(self, key: str) -> bytes | None:
        """Return the content of a key, or None if it is not there whole."""
        path = self._path(key)
        try:
            stored = self._read(path)
        except OSError:
            return None
        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if digest != _digest(key, content):
            self.drop(key)
            return None
        with suppress(OSError):
            os.utime(path)  # used now
        return content

    def put(self, key: str, content: bytes) -> None:
        """Store content under a key, if there is room and permission; otherwise a warning says why not, once."""
        if _DIGEST_BYTES + len(content) > self._most_bytes:
            return
        try:
            make_private(self._folder)
            write_whole(self._path(key), lambda file: file.write(_digest(key, content) + content), private=True)
            self._shrink()
        except OSError as error:  # also as an OutputError
            _tell(self._folder, error)

    def drop(self, key: str) -> None:
        """Delete the content of a key."""
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _read(self, path: Path) -> bytes:
        """Return the content of a file; raise ``OSError`` for one that the cache did not make."""
        with os.fdopen(open_plain(path), "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > self._most_bytes or _is_open_to_others(status):
                raise PermissionError(f"{path} is none of the cache's own")
            return file.read(self._most_bytes)

    def _shrink(self) -> None:
        """Delete the files that were unused for longest until the rest fits."""
        files = [(path, path.stat()) for path in self._folder.glob("nano-*.blob") if path.is_file()]
        total = 0
        for path, status in sorted(files, key=lambda file: file[1].st_mtime_ns, reverse=True):
            total += status.st_size
            if total > self._most_bytes:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"nano-{hashlib.sha256(key.encode()).hexdigest()[:24]}.blob"


def _tell(folder: Path, error: OSError) -> None:
    """Say once in a process, for a folder and those in it, that nothing can be kept."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error  # of an OutputError
    why = cause.strerror or first_line(cause)
    if not {(folder, why), (folder.parent, why)} & _TOLD:
        _log.warning(
            "nothing is kept in the cache folder %s: %s (--cache DIR names another, --no-cache none)", folder, why
        )
    _TOLD.add((folder, why))


def may_be_changed(folder: Path) -> bool:
    """Return whether others may change what is in a folder, because it is theirs or they may write to it."""
    try:
        status = folder.stat()
    except OSError:
        return False
    foreign = hasattr(os, "geteuid") and status.st_uid != os.geteuid()
    return foreign or (os.name != "nt" and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)))


def close_to_others(folder: Path) -> None:
    """Make a folder private that is this program's own by its name, however it came to be readable by others.

    Earlier releases made it with the mode that the umask gives. A folder of another user, or behind a link, stays as it
    is, and so does everything on systems without users.
    """
    if not hasattr(os, "geteuid"):  # Windows
        return
    with suppress(OSError):
        status = folder.lstat()
        others = status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and others:
            folder.chmod(_PRIVATE)


def make_private(folder: Path) -> None:
    """Make a folder and all missing ones above it; ``Path.mkdir`` gives its mode to the last one only."""
    if not folder.is_dir():
        make_private(folder.parent)
        with suppress(FileExistsError):  # another process has just made it
            folder.mkdir(mode=_PRIVATE)
            folder.chmod(_PRIVATE)  # an umask may take the user's own rights, too


def _is_open_to_others(status: os.stat_result) -> bool:
    """Return whether a file is another user's, or may be read or written by others; never on systems without users."""
    if not hasattr(os, "geteuid"):  # Windows
        return False
    return status.st_uid != os.geteuid() or bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _digest(key: str, content: bytes) -> bytes:
    """Return the sha256 of a key and its content."""
    digest = hashlib.sha256(key.encode() + b"\0")
    digest.update(content)
    return digest.digest()
