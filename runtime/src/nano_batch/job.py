"""The folder of a job: its settings, and its log of finished and failed pictures.

OUT/job.json          settings, seed, digest of the bundle
OUT/pictures.jsonl    a line for each picture that the rows ask for, in their order
OUT/images/           the pictures
OUT/log/WORKER.jsonl  a line for each that is finished or failed, on the disk before anybody is told; and before those
                      that are drawn together a line that they are begun, which tells what a process did not survive
OUT/metadata.jsonl    what is finished, in the order of the rows
OUT/errors.jsonl      what failed
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from nano_batch.errors import DamagedJobError, StrangeFolderError
from nano_batch.wanted import digest_of_file
from nano_runtime.errors import OutputError
from nano_runtime.system.files import open_plain, paths_below, plain_content, sync_folder, write_whole

__all__ = [
    "DATASETS",
    "ENDED",
    "ERRORS",
    "IMAGES",
    "LOGS",
    "METADATA",
    "PICTURES",
    "Entry",
    "Job",
    "Log",
    "Settings",
    "first_link",
    "lines_of",
    "make_folder",
    "write_lines",
]

JOB, PICTURES, METADATA, ERRORS = "job.json", "pictures.jsonl", "metadata.jsonl", "errors.jsonl"
IMAGES, LOGS = "images", "log"
DATASETS: Final = ("webdataset", "parquet", "geneval")
"""Folders of a finished job in other forms; see ``datasets``."""

ENDED: Final = "ended"
"""In the record of a failure: true if the process that drew came to a sudden end."""

_BEGUN: Final = "begun"
_FORM: Final = 1
_OUTSIDE: Final = re.compile(r"(?!images/)|.*(?:/\.|//|[\\\0])", re.DOTALL)  # names that no picture of a job has
_UNFINISHED: Final = re.compile(r"\.nano-[0-9a-f]{32}\.part")  # as ``write_whole`` names them


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What makes a job this one, as ``job.json`` has it.

    Attributes:
        form: of the folder.
        bundle: digest of the bundle.
        model: name of the bundle.
        seed: that the seeds of rows without one are made of.
        name: pattern of the pictures' names; None for their keys.
        options: given on the command line for rows that leave them out, by their names.
        rows: name of the rows' file.
        version: of the program that began the job.
    """

    form: int = _FORM
    bundle: str
    model: str
    seed: int
    name: str | None = None
    options: dict[str, Any] = {}
    rows: str
    version: str


@dataclass
class Log:
    """The log of one worker: a line for each picture that it finished or failed.

    Attributes:
        file: that it appends to.
        ends: for keys of pictures, how many processes came to a sudden end while they drew them; none where it is 0.
    """

    file: IO[bytes] = field(repr=False)
    ends: Mapping[str, int] = field(default_factory=dict)
    _before: int = field(default=0, init=False)

    @classmethod
    def open(cls, folder: Path, worker: str, ends: Mapping[str, int]) -> Log:
        """Open the log of a worker to append to it; a torn last line is ended.

        Args:
            folder: of the job.
            worker: names the log.
            ends: see ``Log.ends``.

        Raises:
            OutputError: it cannot be written.
        """
        path = folder / LOGS / f"{worker}.jsonl"
        make_folder(path.parent, folder)
        try:
            file = open(path, "ab+", buffering=0, opener=open_plain)  # noqa: SIM115 - pathlib has no opener
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            sync_folder(path.parent)
        except OSError as error:
            raise OutputError(path, error) from error
        return cls(file, ends)

    def begin(self, keys: Sequence[str]) -> None:
        """Note that pictures are being drawn, for a later run if this process does not survive it.

        Raises:
            OutputError: the disk is full, or broken, or the folder was taken away.
        """
        self._require_place()
        self._before = self.file.seek(0, os.SEEK_END)
        self._append([{_BEGUN: keys}])

    def leave(self) -> None:
        """Take the note back, and all that was added since: this process is alive, and will draw them no more.

        That takes no room on a full disk. Where it cannot be done, they are drawn apart next time, which is slower.
        """
        with suppress(OSError):
            self.file.truncate(self._before)

    def add(self, records: list[dict[str, Any]]) -> None:
        """Append records; when this returns they are on the disk.

        Raises:
            OutputError: the disk is full, or broken, or the folder was taken away.
        """
        self._require_place()
        self._append(records)
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            raise OutputError(Path(self.file.name), error) from error

    def _append(self, records: Sequence[Mapping[str, Any]]) -> None:
        content = _as_lines(records)
        try:
            while content:
                content = content[self.file.write(content) :]
        except OSError as error:
            raise OutputError(Path(self.file.name), error) from error

    def _require_place(self) -> None:
        """Raise ``OutputError`` if no file has the log's name: a system lets go on whoever writes one that is gone."""
        path = Path(self.file.name)
        if not path.exists():
            raise OutputError(path, "it was moved or deleted meanwhile")

    def close(self) -> None:
        """Close it."""
        self.file.close()


@dataclass
class Entry:
    """What the logs say of one picture.

    Attributes:
        done: the records of its file, the last ones last: each log has its own, and the file is of one of them.
        failed: the last record of a failure after that; None for none.
        tries: number of those failures, and of the processes that came to a sudden end.
        begun: how often it was begun since then, and came to no end.
    """

    done: list[Mapping[str, Any]] = field(default_factory=list)
    failed: Mapping[str, Any] | None = None
    tries: int = 0
    begun: int = 0

    def add(self, record: Mapping[str, Any], *, done: bool) -> None:
        """Take in a later record."""
        if done:
            self.done.append(record)
            self.failed, self.tries = None, 0
        else:
            self.failed = record
            self.tries += max(1, self.begun)
        self.begun = 0

    @property
    def ends(self) -> int:
        """How many processes came to a sudden end while they drew it; of those before its last failure, one counts."""
        return self.begun + (self.failed is not None and self.failed.get(ENDED) is True)


@dataclass(frozen=True)
class Job:
    """A folder with a job in it.

    Attributes:
        folder: it.
        settings: of the job.
    """

    folder: Path
    settings: Settings

    @classmethod
    def read(cls, folder: Path) -> Job | None:
        """Return the job in a folder; None where there is none yet.

        Raises:
            DamagedJobError: its ``job.json`` cannot be read.
            StrangeFolderError: there is no ``job.json``, but a file under a name that a job needs.
        """
        path = folder / JOB
        try:
            content = plain_content(path)
        except FileNotFoundError:
            for name in (IMAGES, LOGS, PICTURES, METADATA, ERRORS, *DATASETS):
                if (folder / name).exists():
                    raise StrangeFolderError(folder, name) from None
            return None
        except NotADirectoryError as error:
            raise OutputError(folder, "it is no folder") from error
        except OSError as error:
            raise OutputError(folder, f"{path.name} in it cannot be read: {error.strerror or error}") from error
        try:
            settings = msgspec.json.decode(content, type=Settings)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise DamagedJobError(path, str(error)) from error
        if settings.form != _FORM:
            raise DamagedJobError(path, f"it is of form {settings.form}, and this release reads form {_FORM}")
        return cls(folder, settings)

    @classmethod
    def begin(cls, folder: Path, settings: Settings) -> Job:
        """Begin a job in a folder, which is made if it is not there.

        Raises:
            OutputError: it cannot be made or written.
        """
        job = cls(folder, settings)
        make_folder(folder)
        job.write()  # first: a folder with anything else in it, and no job, is somebody else's
        for name in (IMAGES, LOGS):
            make_folder(folder / name, folder)
        return job

    def write(self) -> None:
        """Write ``job.json``.

        Raises:
            OutputError: it cannot be written.
        """
        content = msgspec.json.format(msgspec.json.encode(self.settings)) + b"\n"
        write_whole(self.folder / JOB, lambda file: file.write(content))

    def renew(self, asked: Settings) -> None:
        """Note the options and the file that the job was last asked for with, which change none of its pictures.

        Raises:
            OutputError: ``job.json`` cannot be written.
        """
        now = msgspec.structs.replace(self.settings, options=asked.options, rows=asked.rows)
        if now != self.settings:
            Job(self.folder, now).write()

    def entries(self) -> dict[str, Entry]:
        """Return what the logs of all workers say of each picture, by its key."""
        found: dict[str, Entry] = {}
        for path in sorted((self.folder / LOGS).glob("*.jsonl")):
            for record in lines_of(path):
                key, done = record.get("key"), record.get("done")
                if isinstance(key, str) and isinstance(done, bool):
                    found.setdefault(key, Entry()).add(record, done=done)
                begun = record.get(_BEGUN)
                for one in begun if isinstance(begun, list) else ():
                    if isinstance(one, str):
                        found.setdefault(one, Entry()).begun += 1
        return found

    def finished(self, entries: Mapping[str, Entry]) -> dict[str, Mapping[str, Any]]:
        """Return the records of pictures whose files are there and whole, by their keys.

        A file of the logged size and time is believed; if only its time differs, its content is compared.
        """
        found = {key: next(filter(self._is_whole, reversed(entry.done)), None) for key, entry in entries.items()}
        return {key: record for key, record in found.items() if record is not None}

    def remove_unfinished(self) -> None:
        """Delete what killed processes had not finished writing; nobody else may be at work."""
        with suppress(OSError):
            for path in [path for path in paths_below(self.folder) if _UNFINISHED.fullmatch(path.name)]:
                path.unlink()

    def _is_whole(self, record: Mapping[str, Any]) -> bool:
        try:
            files, drawn_by = record["files"], record["drawn_by"]
            return isinstance(drawn_by, dict) and all(
                self._is_file(name, changed, record) for name, changed in files.items()
            )
        except (OSError, KeyError, TypeError, AttributeError, ValueError):
            return False

    def _is_file(self, name: str, changed: int, record: Mapping[str, Any]) -> bool:
        if _OUTSIDE.match(name):
            return False
        path = f"{self.folder}/{name}"  # a hundred thousand times, for which pathlib is slow
        found = os.stat(path)  # noqa: PTH116
        if found.st_size != record["size"] or not stat.S_ISREG(found.st_mode):
            return False
        return found.st_mtime_ns == changed or digest_of_file(Path(path)) == record["blake3"]


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects in a file of JSON lines; lines that are none, torn ones, are passed over.

    A file that cannot be read has none: pictures that are then not known to be finished are looked at themselves.
    """
    try:
        content = plain_content(path)
    except OSError:
        return
    for line in content.splitlines():
        with suppress(ValueError, RecursionError):
            found = msgspec.json.decode(line)
            if isinstance(found, dict):
                yield found


def first_link(folder: Path, below: Path) -> Path | None:
    """Return the first link on the way from a job's folder to one below it; None for none.

    Links of a stranger's job may lead to files of the user, of which none is written or deleted.
    """
    steps = below.relative_to(folder).parts
    ways = (folder.joinpath(*steps[:count]) for count in range(1, len(steps) + 1))
    return next((way for way in ways if way.is_symlink()), None)


def make_folder(folder: Path, within: Path | None = None) -> None:
    """Make a folder, and those that it is in, if it is not there.

    Args:
        folder: to make.
        within: folder of the job that it is to lie in, which is there; None for the job's own.

    Raises:
        OutputError: it cannot be made, a link leads out of the job's folder, or that is gone.
    """
    if within is not None and (link := first_link(within, folder)) is not None:
        raise OutputError(link, "it is a link, which may lead to files that are not the job's")
    if within is not None and not within.is_dir():
        raise OutputError(within, "it was moved or deleted meanwhile")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, error) from error


def write_lines(path: Path, lines: list[dict[str, Any]]) -> bool:
    """Write a file of JSON lines, whole; return False where it was the same already, and is left alone.

    Raises:
        OutputError: it cannot be written.
    """
    content = _as_lines(lines)
    with suppress(OSError):
        if plain_content(path) == content:
            return False
    write_whole(path, lambda file: file.write(content))
    return True


def _as_lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)
