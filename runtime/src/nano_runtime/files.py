"""Writing a file completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from nano_runtime.errors import OutputError

__all__ = ["write_whole"]

_LONGEST_STEM = 40  # of the temporary name: with its suffixes it stays below any file system's limit


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that appears under its name only when it is complete, replacing one of that name.

    The data is on the disk (fsync) before the name is: after a crash there is the old file, the new one, or none.

    Raises:
        OutputError: the folder is missing, full, or not writable.
    """
    unfinished = path.with_name(f".{path.name[:_LONGEST_STEM]}.{uuid4().hex[:8]}.part")
    try:
        try:
            with unfinished.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(path, str(error) if error.strerror is None else error.strerror) from error
