"""What one run leaves for the next: a folder of bounded size whose files are checked before use and can all be lost.

A file holds the sha256 of its key and content, then the content. What is damaged, cut short or under another key's
name is deleted and reported as missing; what cannot be written is not kept. No error leaves this file: without it a
run only takes longer.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from nano_runtime.system.files import write_whole

__all__ = ["DiskCache"]

_MOST_BYTES = 256_000_000  # a full-size bundle's graphs take about 30 MB
_DIGEST_BYTES = hashlib.sha256().digest_size


class DiskCache:
    """Content by key, in one folder; the files longest unused go first when there are too many.

    Args:
        folder: made when something is stored; files of others in it are left alone.
        most_bytes: how much all files together may take.
    """

    def __init__(self, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def get(self, key: str) -> bytes | None:
        """Return what was stored under a key, or None if it is not there whole."""
        path = self._path(key)
        try:
            stored = path.read_bytes()
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
        """Store content under a key, if there is room and permission."""
        if _DIGEST_BYTES + len(content) > self._most_bytes:
            return
        with suppress(OSError):  # also as an OutputError
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path(key), lambda file: file.write(_digest(key, content) + content))
            self._shrink()

    def drop(self, key: str) -> None:
        """Delete what is stored under a key."""
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _shrink(self) -> None:
        """Delete the files longest unused until the rest fits."""
        files = [(path, path.stat()) for path in self._folder.glob("nano-*.blob") if path.is_file()]
        total = 0
        for path, stat in sorted(files, key=lambda file: file[1].st_mtime_ns, reverse=True):
            total += stat.st_size
            if total > self._most_bytes:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"nano-{hashlib.sha256(key.encode()).hexdigest()[:24]}.blob"


def _digest(key: str, content: bytes) -> bytes:
    """Return the sha256 of a key and its content."""
    digest = hashlib.sha256(key.encode() + b"\0")
    digest.update(content)
    return digest.digest()
