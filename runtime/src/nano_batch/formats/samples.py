"""The pictures of a job that become a dataset: each record of ``metadata.jsonl`` with the picture that it describes."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from nano_runtime.errors import OutputError
from nano_runtime.system.files import write_whole

__all__ = ["MOST_PICTURES", "Found", "Records", "Sample", "Written", "find", "remove", "write"]

MOST_PICTURES: Final = 1000
"""In one file of a dataset: 30 MB of the demo's pictures, 400 MB of 512 x 512 pixels."""

Records = Iterable[Mapping[str, Any]]
"""Records of ``metadata.jsonl`` in their order: ``file_name`` against the job's folder, ``text``, ``id``, ``key``, and
all others. They are gone through more than once."""


@dataclass(frozen=True)
class Sample:
    """A finished picture.

    Attributes:
        record: that describes it.
        path: of the picture.
        size: of its file, in bytes.
        changed: when the file was last changed, in nanoseconds since 1970.
    """

    record: Mapping[str, Any] = field(repr=False)
    path: Path
    size: int
    changed: int


@dataclass(frozen=True)
class Found:
    """What there is to make a dataset of.

    Attributes:
        samples: in the order of the records.
        left_out: ids of the records whose picture is not there.
    """

    samples: list[Sample]
    left_out: list[str]


@dataclass(frozen=True)
class Written:
    """What became of a dataset.

    Attributes:
        folder: of its files.
        pictures: number of pictures in it.
        changed: the files that were written or removed; a second run has none.
        left_out: ids of the records whose picture is not there.
    """

    folder: Path
    pictures: int
    changed: list[Path]
    left_out: list[str]


def find(records: Records, folder: Path) -> Found:
    """Find the pictures of a job.

    Args:
        records: of the pictures.
        folder: of the job.
    """
    samples, left_out = [], []
    for record in records:
        path = folder / record["file_name"]
        with suppress(OSError):
            about = path.stat()
            if stat.S_ISREG(about.st_mode):
                samples.append(Sample(record, path, about.st_size, about.st_mtime_ns))
                continue
        left_out.append(str(record["id"]))
    return Found(samples, left_out)


def write(path: Path, content: Callable[[BinaryIO], object], is_same: Callable[[], bool]) -> bool:
    """Write a file of a dataset, whole; return False where it is already what it would become, and is left alone.

    Args:
        path: of the file.
        content: fills it.
        is_same: whether it is. May raise ``OSError`` and ``ValueError``: then it is not.

    Raises:
        OutputError: it cannot be written, or a picture cannot be read.
    """
    with suppress(OSError, ValueError):
        if path.is_file() and is_same():  # opening a pipe would wait for ever
            return False
    write_whole(path, content)
    return True


def remove(paths: Iterable[Path]) -> list[Path]:
    """Remove files of an earlier, larger dataset, and folders that become empty; return the files.

    Raises:
        OutputError: one cannot be removed.
    """
    gone = sorted(paths)
    for path in gone:
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(path, error) from error
        for parent in list(path.parents)[:2]:
            with suppress(OSError):  # it is not empty
                parent.rmdir()
    return gone
