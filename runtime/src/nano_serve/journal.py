"""Requests that wait or are drawn, on the disk: after a crash or a stop the next start knows what was lost."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from nano_runtime.system.files import open_plain, plain_content

try:
    import fcntl
except ImportError:  # Windows, where two servers on one folder list each other's requests as unfinished
    fcntl = None  # type: ignore[assignment]

__all__ = ["Journal"]

_NAME: Final = re.compile("[0-9a-f]{32}")
_LOCK: Final = "lock"
_MOST: Final = 100  # servers with one folder of pictures


class Journal:
    """A folder with a file for each request.

    Several servers may share a folder of pictures, each with a journal of its own: ``waiting``, ``waiting-2`` and so
    on. Requests in journals of servers that are gone become this one's.

    Args:
        folder: of the files; it is made, for its owner only, if it is not there.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        every = [folder, *(folder.with_name(f"{folder.name}-{number}") for number in range(2, _MOST + 1))]
        self._folder, self._lock = next(found for one in every if (found := _claimed(one)) is not None)
        for unfinished in self._folder.glob("*.part"):
            unfinished.unlink(missing_ok=True)
        for other in every:
            if other != self._folder and other.is_dir() and (found := _claimed(other)) is not None:
                _move(other, self._folder)
                found[1].close()

    def close(self) -> None:
        """Leave the requests to the next server that starts."""
        self._lock.close()

    def keep(self, name: str, request: bytes) -> None:
        """Write a request down; when this returns it is on the disk, whole.

        Args:
            name: id of the job.
            request: its body.

        Raises:
            OSError: the folder is full or not writable.
        """
        self._folder.parent.mkdir(mode=0o700, exist_ok=True)  # somebody may have deleted it
        self._folder.mkdir(mode=0o700, exist_ok=True)
        part = self._folder / f"{name}.part"
        with part.open("wb") as file:
            file.write(request)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path(name))

    def forget(self, name: str) -> None:
        """Delete a request: its job has ended."""
        with suppress(OSError):
            self._path(name).unlink()

    def left(self) -> dict[str, tuple[float, bytes]]:
        """Return the requests of an earlier start, the oldest first: when each was made, and its body."""
        found: dict[str, tuple[float, bytes]] = {}
        for path in self._folder.glob("*.json"):
            if _NAME.fullmatch(path.stem):
                with suppress(OSError):
                    found[path.stem] = path.stat().st_mtime, plain_content(path)
        return dict(sorted(found.items(), key=lambda item: item[1][0]))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _claimed(folder: Path) -> tuple[Path, BinaryIO] | None:
    """Make a folder this server's own until it ends, however it ends; None if another server has it.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = open(folder / _LOCK, "ab", opener=open_plain)  # noqa: SIM115 - it is the caller's
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        except OSError:  # a file system without locks
            pass
    return folder, lock


def _move(source: Path, target: Path) -> None:
    """Move the requests of a server that is gone, and its folder away."""
    with suppress(OSError):
        for path in source.glob("*.json"):
            path.replace(target / path.name)
        for path in (*source.glob("*.part"), source / _LOCK):
            path.unlink(missing_ok=True)
        source.rmdir()
