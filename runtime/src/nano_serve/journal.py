"""Requests that wait or are drawn, on the disk: after a crash or a stop the next start knows what was lost."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["Journal"]

_NAME: Final = re.compile("[0-9a-f]{32}")


class Journal:
    """A folder with a file for each request.

    Args:
        folder: of the files; it is made, for its owner only, if it is not there.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        for unfinished in folder.glob("*.part"):
            unfinished.unlink(missing_ok=True)

    def keep(self, name: str, request: bytes) -> None:
        """Write a request down; when this returns it is on the disk, whole.

        Args:
            name: id of the job.
            request: its body.

        Raises:
            OSError: the folder is full or not writable.
        """
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
                    found[path.stem] = path.stat().st_mtime, path.read_bytes()
        return dict(sorted(found.items(), key=lambda item: item[1][0]))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
