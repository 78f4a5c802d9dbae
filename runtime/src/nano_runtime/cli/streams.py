"""The three standard streams of a command: open whatever the caller closed, and in words that any terminal shows.

A service, a scheduler or ``pythonw`` may start a command without standard input, output or error. The system then gives
the number of the missing stream to the next file that is opened, and whatever is printed goes into that file. So each
missing stream is opened on the null device first.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

__all__ = ["read_stdin", "silence_stdout", "usable_streams"]

_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}  # how texts may begin


@contextmanager
def usable_streams() -> Iterator[None]:
    """Have three streams while a command runs; talk that cannot be written to standard error is lost, not the work."""
    for descriptor in _STREAMS.values():
        with suppress(OSError):
            _open_if_closed(descriptor)
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as null:
        out, err = (null if _missing(stream) else stream for stream in before)
        for stream in (out, err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding lacks
        sys.stdout, sys.stderr = out, _Talk(err)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def silence_stdout() -> None:
    """Point stdout at nothing: the interpreter flushes it once more at exit, and would complain."""
    with suppress(OSError, ValueError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_stdin() -> str:
    """Return all of standard input, without the byte order mark that Windows' programs begin a text with.

    Text with a mark is UTF-8 or UTF-16, as the mark says; other text is in the terminal's encoding.

    Raises:
        OSError: there is no standard input, or it cannot be read.
        UnicodeDecodeError: it is not text.
    """
    stream = sys.stdin
    if _missing(stream):
        raise OSError("it is closed")
    buffer = getattr(stream, "buffer", None)
    if buffer is None:  # a text stream that a program put there
        return stream.read().removeprefix("\ufeff")
    content: bytes = buffer.read()
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), stream.encoding)
    return content.decode(encoding)


class _Talk(io.TextIOBase):
    """Standard error of which nobody waits for a word: a full disk or a reader that left ends no drawing."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Write texts, or lose them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Pass on what was written, or lose it."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Return whether a person is there."""
        try:
            return self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """Return the descriptor of the stream behind."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True


def _missing(stream: TextIO | None) -> bool:
    """Return whether a stream is not there, as for ``pythonw``, or closed."""
    return stream is None or stream.closed


def _open_if_closed(descriptor: int) -> None:
    """Open the null device under a descriptor that is closed, for this process and those that it starts."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)
        else:
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - it has no other name
