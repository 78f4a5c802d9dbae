"""The files that pictures go to: names that replace nothing unasked, checked before the work begins."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from nano_runtime.errors import (
    ConflictError,
    OutputError,
    OutputExistsError,
    OutputNameError,
    TerminalError,
)
from nano_runtime.system.files import check_folder

__all__ = ["Output"]

_BY_SEED: Final = re.compile(r"nano-\d+(-\d+)?\.png")  # as ``_names`` makes them
_BEGINNINGS: Final = (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1", b"RIFF")
_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")  # those of ``pictures.picture_files``, which imports more


@dataclass(frozen=True)
class Output:
    """Names for the pictures of one call.

    Attributes:
        folder: an existing, writable folder; None for standard output.
        names: one file name for each picture; None for names made of the seeds.
        force: whether files may be replaced.
    """

    folder: Path | None
    names: tuple[str, ...] | None
    force: bool

    @classmethod
    def plan(cls, target: Path | None, pictures: int, *, force: bool) -> Output:
        """Decide on names.

        Args:
            target: ``x.png`` for this file, or ``x-1.png``, ``x-2.png``, ... for several pictures; an existing folder
                for ``nano-SEED.png`` in it; None for the same in the current folder; ``-`` for standard output.
            pictures: their number.
            force: whether named files may be replaced.

        Raises:
            OutputNameError: the name does not end as a picture's does.
            OutputExistsError: a named file exists, is not one of several pictures, and ``force`` is False.
            OutputError: the folder is missing or not writable, or a folder has the name; or standard output is closed.
            TerminalError: standard output is a terminal.
            ConflictError: several pictures would go to standard output.
        """
        if target is not None and str(target) == "-":
            if pictures != 1:
                raise ConflictError("-o -", "num_images_per_prompt")
            if sys.stdout.isatty():
                raise TerminalError
            if getattr(sys.stdout, "name", None) == os.devnull:  # see ``usable_streams``
                raise OutputError(Path("standard output"), "it is closed")
            return cls(None, None, force)
        if target is None or _is_folder(target):
            output = cls(Path() if target is None else target, None, force)
        elif target.suffix.lower() not in _SUFFIXES:
            raise OutputNameError(target)
        elif pictures == 1:
            output = cls(target.parent, (target.name,), force)
        else:
            names = tuple(f"{target.stem}-{i}{target.suffix}" for i in range(1, pictures + 1))
            output = cls(target.parent, names, force)
        output._check(several=pictures != 1)
        return output

    def path(self, index: int, seed: int, taken: Collection[Path] = ()) -> Path:
        """Return the path of one picture; a name made of the seed gets a number if it is taken."""
        return next(path for path in self._names(index, seed, taken) if self.names is not None or not path.exists())

    def present(self, index: int, seed: int, taken: Collection[Path] = ()) -> Iterator[Path]:
        """Yield the files that are there under the names that one picture could have."""
        for path in self._names(index, seed, taken):
            if not os.path.lexists(path):
                return
            yield path

    def has(self, path: Path) -> bool:
        """Return whether a picture may have a path."""
        if self.folder is None or path.parent != self.folder:
            return False
        return path.name in self.names if self.names is not None else _BY_SEED.fullmatch(path.name) is not None

    def has_stem(self, folder: Path, stem: str) -> bool:
        """Return whether a picture in a folder may have a name of this stem."""
        if self.names is None:
            return self.has(folder / f"{stem}.png")
        return folder == self.folder and stem in {Path(name).stem for name in self.names}

    def _names(self, index: int, seed: int, taken: Collection[Path]) -> Iterator[Path]:
        """Yield the names of one picture: the one that was given, or those made of its seed, but for some."""
        folder = Path() if self.folder is None else self.folder
        if self.names is not None:
            yield folder / self.names[index]
            return
        for number in count(1):
            path = folder / (f"nano-{seed}.png" if number == 1 else f"nano-{seed}-{number}.png")
            if path not in taken:
                yield path

    def _check(self, *, several: bool) -> None:
        """Find out before drawing whether the files can be written.

        One of several pictures may be there: it may be one of ours, drawn before the same command was interrupted.
        ``saving`` reads and compares it, which needs more than this process imports.
        """
        folder = Path() if self.folder is None else self.folder
        check_folder(folder)
        for name in () if self.names is None else self.names:
            path = folder / name
            if _is_folder(path):
                raise OutputError(path, "it is a folder")
            if self.force or not os.path.lexists(path):
                continue
            if not (several and _may_be_a_picture(path)):
                raise OutputExistsError(path)


def _may_be_a_picture(path: Path) -> bool:
    """Return whether a file begins as those that a command writes."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) in _BEGINNINGS
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder.

    Raises:
        OutputError: the system cannot have such a path.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise OutputError(path, error) from error
