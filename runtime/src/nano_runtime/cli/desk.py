"""The desk of a command: the one place that shows progress and writes files, for the work that may be in a child.

``NearDesk`` does so. ``FarDesk`` is what the work has in a child process: it passes everything on. The near one
believes nothing that it is told. It writes to the files that the command line named, and to no others.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from nano_runtime.cli.output import Output
from nano_runtime.errors import OutputError, OutputExistsError
from nano_runtime.system.files import write_whole
from nano_runtime.system.messages import Channel, ChannelError

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Desk", "FarDesk", "NearDesk", "remove_cells"]

_MOST_READ: Final = 256 << 20  # bytes of a picture that is there


class Desk(Protocol):
    """What the work asks of the process that has the terminal."""

    def begin(self, calls: int) -> None:
        """Show a bar for so many UNet calls, on a terminal."""

    def step(self) -> None:
        """Show that one is done."""

    def end(self) -> None:
        """Remove the bar."""

    def write(self, path: Path | None, content: bytes) -> None:
        """Write a whole file, or standard output.

        Raises:
            OutputError: it cannot be written.
            OutputExistsError: a file that was not there appeared meanwhile.
        """

    def read(self, path: Path) -> bytes | None:
        """Return the content of a picture that may be there from before; None if it cannot be read."""

    def remove(self, paths: list[Path]) -> None:
        """Remove the places of a sheet, and their folder if nothing else is in it."""

    def go_on(self, said: str | None) -> None:
        """Note what to say if the work were ended now."""


@dataclass
class NearDesk:
    """The desk in the process that a person started.

    Attributes:
        output: names of the pictures; None for none.
        sheet: whether they are the places of a sheet.
        preview: the file of the preview; None for none.
        said: what to say if the work were ended now.
    """

    output: Output | None
    sheet: bool = False
    preview: Path | None = None
    said: str | None = None
    _bar: tqdm[Any] | None = field(default=None, repr=False)
    _written: set[Path] = field(default_factory=set, repr=False)

    def begin(self, calls: int) -> None:
        """See ``Desk``."""
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=calls, unit="call", leave=False, file=sys.stderr)

    def step(self) -> None:
        """See ``Desk``."""
        if self._bar is not None:
            self._bar.update()

    def end(self) -> None:
        """See ``Desk``."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def write(self, path: Path | None, content: bytes) -> None:
        """See ``Desk``."""
        if path is None:
            self._require(self.output is not None and self.output.folder is None)
            _write_to_stdout(content)
            return
        if path != self.preview:
            self._require(self._is_ours(path))
            if not (self.output is None or self.output.force or path in self._written) and os.path.lexists(path):
                raise OutputExistsError(path)
        if self._is_cell(path):
            with suppress(FileExistsError):
                path.parent.mkdir()
        write_whole(path, lambda file: file.write(content))
        self._written.add(path)

    def read(self, path: Path) -> bytes | None:
        """See ``Desk``."""
        self._require(self._is_ours(path))
        try:
            if not path.is_file() or path.stat().st_size > _MOST_READ:
                return None
            return path.read_bytes()
        except OSError:
            return None

    def remove(self, paths: list[Path]) -> None:
        """See ``Desk``."""
        self._require(all(map(self._is_cell, paths)))
        remove_cells(paths)

    def go_on(self, said: str | None) -> None:
        """See ``Desk``."""
        self.said = said

    def answer(self, channel: Channel, what: dict[str, Any], content: bytearray) -> None:
        """Do what a far desk asks for.

        Raises:
            ChannelError: it asks for what this one does not do.
            OutputError: a file cannot be written.
        """
        match what:
            case {"step": True}:
                self.step()
            case {"begin": int(calls)}:
                self.begin(calls)
            case {"end": True}:
                self.end()
            case {"go_on": str() | None as said}:
                self.go_on(said)
            case {"write": str() | None as name}:
                self.write(None if name is None else Path(name), bytes(content))
                channel.send({})
            case {"read": str(name)}:
                found = self.read(Path(name))
                channel.send({"found": found is not None}, found or b"")
            case {"remove": list(names)}:
                self.remove([Path(str(name)) for name in names])
                channel.send({})
            case _:
                raise ChannelError

    def _is_ours(self, path: Path) -> bool:
        """Return whether the command line says that a picture may be there."""
        return self.output is not None and (self._is_cell(path) or self.output.has(path))

    def _is_cell(self, path: Path) -> bool:
        """Return whether a file is a place of the sheet."""
        if self.output is None or not self.sheet or not path.stem.isdecimal() or path.suffix != ".png":
            return False
        stem = path.parent.name.removesuffix("-cells")
        return stem != path.parent.name and self.output.has_stem(path.parent.parent, stem)

    def _require(self, allowed: bool) -> None:  # noqa: FBT001 - it reads as a sentence
        """Refuse what the command line does not allow: only a child that native code took over asks for it."""
        if not allowed:
            raise ChannelError


class FarDesk:
    """The desk as the work in a child process sees it; see ``Desk``.

    Args:
        channel: to the process that has the near one.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def begin(self, calls: int) -> None:
        """See ``Desk``."""
        self._channel.send({"begin": calls})

    def step(self) -> None:
        """See ``Desk``."""
        self._channel.send({"step": True})

    def end(self) -> None:
        """See ``Desk``."""
        self._channel.send({"end": True})

    def write(self, path: Path | None, content: bytes) -> None:
        """See ``Desk``; should it fail, the near desk ends this process, and says so."""
        self._channel.ask({"write": None if path is None else str(path)}, content)

    def read(self, path: Path) -> bytes | None:
        """See ``Desk``."""
        answer, content = self._channel.ask({"read": str(path)})
        return bytes(content) if answer.get("found") is True else None

    def remove(self, paths: list[Path]) -> None:
        """See ``Desk``."""
        self._channel.ask({"remove": list(map(str, paths))})

    def go_on(self, said: str | None) -> None:
        """See ``Desk``."""
        self._channel.send({"go_on": said})


def _write_to_stdout(content: bytes) -> None:
    """Write a picture to standard output.

    Raises:
        OutputError: it cannot be written; a reader that went away is a ``BrokenPipeError``.
    """
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(Path("standard output"), error) from error


def remove_cells(paths: list[Path]) -> None:
    """Remove files of one folder, and the folder if nothing else is in it."""
    with suppress(OSError):
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in paths}:
            folder.rmdir()
