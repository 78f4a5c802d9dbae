"""The folder of finished pictures: each is a PNG file with its parameters in it, and nothing else is kept."""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import threading
import time
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from nano_runtime import MachineError, NanoError, read_parameters, save_png
from nano_runtime.system.files import plain_content
from nano_serve.errors import FolderError, NotFoundError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Gallery", "Picture"]

_NAME: Final = re.compile("[0-9a-f]{32}")
_MOST_KNOWN: Final = 1000  # pictures whose parameters stay in memory, 3 kB each
_MOST_BYTES: Final = 64 << 20  # of a file that ``open_picture`` reads; a larger one is none of ours
_YOUNG_SECONDS: Final = 60.0  # of a picture that is not deleted for its age: somebody may be reading it


@dataclass(frozen=True)
class Picture:
    """A picture on the disk.

    Attributes:
        id: 32 hexadecimal digits, and the name of its file.
        created: seconds since 1970.
        job: id of the job that drew it; None if that was in an earlier start of the server.
        place: among the job's pictures; None as ``job``.
        parameters: what it takes to draw it again, as ``read_parameters`` returns it.
    """

    id: str
    created: float
    job: str | None
    place: int | None
    parameters: Any


class Gallery:
    """Pictures by id, the newest first. All threads may use it.

    Args:
        folder: of the files; it is made, for its owner only, if it is not there. Files in it that are not named like
            ours are left alone.
        most_bytes: of all files together; None sets no limit.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, most_bytes: int | None = None) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._lock = threading.Lock()
        every = {path.stem: _about(path) for path in folder.glob("*.png") if _NAME.fullmatch(path.stem)}
        found = {name: about for name, about in every.items() if about is not None}
        self._times = {name: found[name].st_mtime for name in sorted(found, key=lambda one: found[one].st_mtime)}
        self._sizes = {name: found[name].st_size for name in found}
        self._most_bytes = most_bytes
        self._known: dict[str, Picture] = {}

    def add(self, image: Image, parameters: Any, job: str, place: int) -> Picture:  # noqa: ANN401
        """Write a picture; when this returns it is on the disk, whole.

        Args:
            image: to write.
            parameters: one of ``Result.parameters``.
            job: id of the job that drew it.
            place: among the job's pictures.

        Raises:
            MachineError: the folder is missing, full, or not writable.
        """
        name, created = uuid4().hex, time.time()
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, exist_ok=True)  # somebody may have deleted it
        try:
            save_png(image, self._path(name), parameters)
        except MachineError as error:
            if isinstance(error.__cause__, OSError):
                raise FolderError(self.folder, error.__cause__) from error
            raise
        options = replace(parameters.options, image=None, mask_image=None)  # as the file has them: a thousand are known
        picture = Picture(name, created, job, place, replace(parameters, options=options))
        size = self._path(name).stat().st_size
        with self._lock:
            self._times[name] = created
            self._sizes[name] = size
            self._remember(picture)
        return picture

    def __contains__(self, name: object) -> bool:
        """Return whether there is a picture of this id."""
        with self._lock:
            return name in self._times

    def page(self, before: str | None, limit: int) -> tuple[list[Picture], str | None]:
        """Return pictures, the newest first.

        Args:
            before: id of the picture before which to begin; None begins with the newest.
            limit: number of pictures.

        Returns:
            The pictures, and the ``before`` of the next page; None if this is the last.

        Raises:
            NotFoundError: there is no picture ``before``.
        """
        with self._lock:
            names = list(reversed(self._times))
        if before is not None:
            if before not in names:
                raise NotFoundError(f"there is no picture {before[:40]!r}", "Begin without 'before'.")
            names = names[names.index(before) + 1 :]
        chosen = names[:limit]
        found = [picture for name in chosen if (picture := self._described(name)) is not None]
        return found, chosen[-1] if len(names) > limit else None

    def content(self, name: str) -> bytes:
        """Return a picture's file.

        Raises:
            NotFoundError: there is no such picture.
        """
        if name in self:
            with contextlib.suppress(OSError):
                return plain_content(self._path(name))
        raise NotFoundError(f"there is no picture {name[:40]!r}", "GET /api/v1/pictures lists them.")

    def delete(self, name: str) -> None:
        """Delete a picture and its file.

        Raises:
            NotFoundError: there is no such picture.
            OSError: the file cannot be deleted.
        """
        with self._lock:
            if name not in self._times:
                raise NotFoundError(f"there is no picture {name[:40]!r}", "GET /api/v1/pictures lists them.")
            self._unlink(name)

    def trim(self, kept: Container[str]) -> list[str]:
        """Delete the oldest pictures until all together are no larger than they may be.

        Args:
            kept: ids of pictures that stay. So do those of the last minute.

        Returns:
            The ids of those that are gone.
        """
        gone: list[str] = []
        with self._lock:
            spare = math.inf if self._most_bytes is None else self._most_bytes - sum(self._sizes.values())
            for name, created in list(self._times.items()):
                if spare >= 0:
                    break
                is_young = 0 <= time.time() - created < _YOUNG_SECONDS  # a clock that was put back is no reason
                if not is_young and name not in kept:
                    spare += self._sizes[name]
                    with contextlib.suppress(OSError):
                        self._unlink(name)
                        gone.append(name)
        return gone

    def _unlink(self, name: str) -> None:
        """Delete a picture; the lock is held."""
        self._path(name).unlink(missing_ok=True)
        del self._times[name], self._sizes[name]
        self._known.pop(name, None)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def _described(self, name: str) -> Picture | None:
        """Return a picture; None if its file says nothing, or is gone."""
        with self._lock:
            known, created = self._known.get(name), self._times.get(name)
        if created is None or (known is not None and self._path(name).exists()):  # another server may have deleted it
            return known
        try:
            parameters = read_parameters(self._path(name))
        except NanoError:
            return None
        picture = Picture(name, created, None, None, parameters)
        with self._lock:
            if name in self._times:
                self._remember(picture)
        return picture

    def _remember(self, picture: Picture) -> None:
        """Keep what a file says, for some pictures: the others are read again."""
        self._known[picture.id] = picture
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]


def _about(path: Path) -> os.stat_result | None:
    """Return what the system knows of a plain file that may be a picture; None for all else, and what is gone."""
    with contextlib.suppress(OSError):
        about = path.lstat()
        if stat.S_ISREG(about.st_mode) and about.st_size <= _MOST_BYTES:
            return about
    return None
