"""The files that pictures go to: names that replace nothing unasked, checked before the work begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nano_runtime.errors import OutputExistsError, OutputNameError
from nano_runtime.system.files import check_folder

__all__ = ["Output"]


@dataclass(frozen=True)
class Output:
    """Names for the pictures of one call.

    Attributes:
        folder: an existing, writable folder.
        names: one file name for each picture; None for names made of the seeds.
    """

    folder: Path
    names: tuple[str, ...] | None

    @classmethod
    def plan(cls, target: Path | None, count: int, *, force: bool) -> Output:
        """Decide on names.

        Args:
            target: ``x.png`` for this file, or ``x-1.png``, ``x-2.png``, ... for several pictures; an existing folder
                for ``nano-SEED.png`` in it; None for the same in the current folder.
            count: number of pictures.
            force: whether named files may be replaced.

        Raises:
            OutputNameError: the name does not end in .png.
            OutputExistsError: a named file exists and ``force`` is False.
            OutputError: the folder is missing or not writable.
        """
        if target is None or target.is_dir():
            output = cls(Path() if target is None else target, None)
        elif target.suffix.lower() != ".png":
            raise OutputNameError(target)
        elif count == 1:
            output = cls(target.parent, (target.name,))
        else:
            output = cls(target.parent, tuple(f"{target.stem}-{i}{target.suffix}" for i in range(1, count + 1)))
        output._check(force=force)
        return output

    def path(self, index: int, seed: int) -> Path:
        """Return the path of one picture; a name made of the seed gets a number if it is taken."""
        if self.names is not None:
            return self.folder / self.names[index]
        path = self.folder / f"nano-{seed}.png"
        number = 1
        while path.exists():
            number += 1
            path = self.folder / f"nano-{seed}-{number}.png"
        return path

    def _check(self, *, force: bool) -> None:
        """Find out before drawing whether the files can be written."""
        check_folder(self.folder)
        for name in self.names if self.names is not None and not force else ():
            if (self.folder / name).exists():
                raise OutputExistsError(self.folder / name)
