"""Reads a file of rows whole: bounded, never waiting, as text in the encoding that its first bytes say."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from nano_runtime.errors import RowsFileError

__all__ = ["STDIN", "STDIN_IN_WORDS", "opened", "text_of"]

STDIN: Final = Path("-")
"""Stands for standard input."""

STDIN_IN_WORDS: Final = Path("standard input")

_MOST_BYTES: Final = 256 << 20
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_MARKS: Final = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}  # how texts may begin
_MARK: Final = "\ufeff"
_AS_UTF8: Final = "Save it as UTF-8 text; spreadsheets call it CSV UTF-8."
_BINARY: Final = {  # how files begin that people take for text
    b"PAR1": ("it is a Parquet file", "Give it a name that ends in .parquet."),
    b"PK\x03\x04": ("it is a workbook or another zip file", "Save the sheet as CSV UTF-8."),
    b"\x1f\x8b": ("it is compressed", "Unpack it with gzip -d."),
}


def opened(path: Path) -> BinaryIO:
    """Open a file for reading, whatever it is, without waiting for it.

    Raises:
        RowsFileError: there is none, it may not be read, is no plain file, or is larger than 256 MiB.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError as error:
        raise RowsFileError(path, error.strerror or str(error), "Check its name and its permissions.") from error
    except ValueError as error:
        raise RowsFileError(path, "no file has such a name") from error
    status = os.fstat(descriptor)
    why = None
    if stat.S_ISDIR(status.st_mode):
        why = "it is a folder"
    elif not stat.S_ISREG(status.st_mode):
        why = "it is no plain file"
    elif status.st_size > _MOST_BYTES:
        why = f"it has {status.st_size / 1e6:,.0f} MB, more than {_MOST_BYTES / 1e6:.0f}"
    if why is not None:
        os.close(descriptor)
        hint = "Divide it into several." if "MB" in why else "Give a file; - reads prompts from standard input."
        raise RowsFileError(path, why, hint)
    return os.fdopen(descriptor, "rb")


def text_of(path: Path) -> str:
    """Return a whole text file, or standard input for ``STDIN``; all ends of lines are line feeds.

    UTF-8 with and without byte order mark is read, and UTF-16 with one. Files that were put together have a mark at the
    beginning of each; nobody sees it, and a prompt with one is another.

    Raises:
        RowsFileError: it cannot be read, or is not text.
    """
    raw = _stdin() if path == STDIN else _content(path)
    path = STDIN_IN_WORDS if path == STDIN else path
    for begin, (why, hint) in _BINARY.items():
        if raw.startswith(begin):
            raise RowsFileError(path, why, hint)
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        why = f"line {line} is not {encoding.removesuffix('-sig').upper()} (byte 0x{raw[error.start]:02x})"
        raise RowsFileError(path, why, _AS_UTF8) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        hint = f"{_AS_UTF8} UTF-16 needs a byte order mark."
        raise RowsFileError(path, f"line {line} has a NUL character, which no text has", hint)
    return text.replace("\r\n", "\n").replace("\r", "\n").removeprefix(_MARK).replace(f"\n{_MARK}", "\n")


def _content(path: Path) -> bytes:
    with opened(path) as file:
        try:
            content = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise RowsFileError(path, error.strerror or str(error)) from error
    if len(content) > _MOST_BYTES:
        raise RowsFileError(path, "it grew while it was read", "Begin again when it is written.")
    return content


def _stdin() -> bytes:
    """Return standard input."""
    name = STDIN_IN_WORDS
    stream = sys.stdin
    if stream is None or stream.closed:
        raise RowsFileError(name, "it is closed", "Give a file.")
    with suppress(AttributeError):  # a text stream that a program put there has no buffer
        stream = stream.buffer
    try:
        content: bytes | str = stream.read(_MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise RowsFileError(name, str(error), "Give a file.") from error
    if len(content) > _MOST_BYTES:
        raise RowsFileError(name, f"it has more than {_MOST_BYTES / 1e6:.0f} MB", "Divide it into several.")
    return content.encode() if isinstance(content, str) else content
