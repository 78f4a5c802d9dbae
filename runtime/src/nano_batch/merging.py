"""Makes one folder of the parts of a job that were drawn in several, or by several processes in one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from blake3 import blake3
from msgspec import Meta

from nano_batch.datasets import require, write_datasets
from nano_batch.errors import DamagedJobError, MergeError, NoJobError, OtherJobError
from nano_batch.job import LOGS, PICTURES, Job, lines_of, make_folder, write_lines
from nano_batch.locks import locked
from nano_batch.progress import counted
from nano_batch.reports import report
from nano_batch.running import Outcome
from nano_batch.shards import Shard
from nano_runtime.errors import OutputError
from nano_runtime.system.files import plain_content, write_whole

__all__ = ["merge"]

_MERGED: Final = "merged-"
_REWRITES: Final = "Run nano-batch with its rows in that folder once more, which writes the file anew."


class _Picture(msgspec.Struct, forbid_unknown_fields=False):
    """What a line of ``pictures.jsonl`` has to say of a picture, at least. Archives have names made of the key."""

    file_name: Annotated[str, Meta(pattern=r"^images/.+\.png\Z")]
    text: str
    id: str
    i: int
    key: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class _Line(msgspec.Struct):
    row: int
    place: int
    record: dict[str, Any]
    extra: dict[str, Any]

    def __post_init__(self) -> None:
        """Check the record."""
        msgspec.convert(self.record, _Picture)


def merge(folders: Sequence[Path], target: Path | None, forms: Sequence[str] = ()) -> Outcome:
    """Put pictures and logs of folders together, and write the lists of them all.

    Args:
        folders: of one job; they stay as they are.
        target: folder for all, which may be one of them; None for the only one.
        forms: to write it in beside its pictures; see ``datasets``.

    Returns:
        What the job has by now, of all its shards.

    Raises:
        NoJobError: a folder has none.
        OtherJobError: they are of different jobs.
        MergeError: there are several, and no target.
        OutputError: the target cannot be written.
    """
    require(forms)
    jobs = [_read(folder) for folder in dict.fromkeys(folders)]
    if target is None and len(jobs) > 1:
        raise MergeError
    into = jobs[0].folder if target is None else target
    there = Job.read(into)
    lines = _compared(jobs, there)
    with locked(into):
        job = Job.begin(into, jobs[0].settings) if there is None else there
        job.remove_unfinished()
        write_lines(job.folder / PICTURES, lines)
        for one in jobs:
            if one.folder.resolve() != into.resolve():
                _take(one, job)
        written = report(job, lines)
        made = write_datasets(into, written, lines, forms)
    return Outcome(into, Shard(0, 1), written.asked, len(written.records), errors=written.errors, datasets=made)


def _read(folder: Path) -> Job:
    found = Job.read(folder)
    if found is None:
        raise NoJobError(folder)
    return found


def _differences(job: Job, first: Job) -> list[str]:
    """Say in what the folders of two jobs differ that one job's have in common."""
    own, other = job.settings, first.settings
    pairs = {
        "bundle": (own.bundle[:12], other.bundle[:12]),
        "--seed": (own.seed, other.seed),
        "--name": (own.name or "not given", other.name or "not given"),
    }
    return [f"its {what} is {ours}, that of {first.folder} {its}" for what, (ours, its) in pairs.items() if ours != its]


def _compared(jobs: Sequence[Job], there: Job | None) -> list[dict[str, Any]]:
    """Return the list of pictures that all folders have: the longest, of which the others are the beginning or a part.

    Args:
        jobs: to merge.
        there: the job in the target; a merge that was ended may have left it without a list.

    Raises:
        OtherJobError: settings differ, or one asks for pictures that the longest list does not have.
        DamagedJobError: a list is not there, or cannot be read.
    """
    lists = [(job, _pictures_of(job.folder)) for job in jobs]
    if there is not None:
        lists.append((there, _pictures_of(there.folder) if (there.folder / PICTURES).exists() else []))
    longest = max((lines for _, lines in lists), key=len)
    named = {_named(line) for line in longest}
    for job, lines in lists:
        if differences := _differences(job, jobs[0]):
            hint = "Merge folders of one job, drawn with the same bundle, --seed and --name."
            raise OtherJobError(job.folder, differences, hint)
        if others := [line for line in lines if _named(line) not in named]:
            what = f"no other folder's list has {counted(len(others))} of it"
            raise OtherJobError(job.folder, [what], "Merge folders of one job, drawn from the same rows.")
    return longest


def _named(line: Mapping[str, Any]) -> tuple[str, str]:
    """Return key and file of a picture."""
    return line["record"]["key"], line["record"]["file_name"]


def _pictures_of(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of ``pictures.jsonl``, which is always written whole.

    Raises:
        DamagedJobError: it is not there, or a line is none of ours.
    """
    path = folder / PICTURES
    try:
        lines = plain_content(path).split(b"\n")
        return [msgspec.to_builtins(msgspec.json.decode(line, type=_Line)) for line in lines if line]
    except OSError as error:
        raise DamagedJobError(path, error.strerror or str(error), _REWRITES) from error
    except (ValueError, RecursionError) as error:
        raise DamagedJobError(path, str(error), _REWRITES) from error


def _take(job: Job, into: Job) -> None:
    """Copy the finished pictures of a folder into another one, and its logs under names of their own."""
    for record in job.finished(job.entries()).values():
        for name in record["files"]:
            make_folder((into.folder / name).parent, into.folder)
            _copy(job.folder / name, into.folder / name)
    make_folder(into.folder / LOGS, into.folder)
    origin = blake3(str(job.folder.resolve()).encode()).hexdigest()[:8]
    for log in sorted((job.folder / LOGS).glob("*.jsonl")):
        name = log.name if log.name.startswith(_MERGED) else f"{_MERGED}{origin}-{log.name}"
        _add_lines(into.folder / LOGS / name, list(lines_of(log)))


def _add_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write a log that was copied; the lines of a folder that stood in the same place before stay in front.

    Raises:
        OutputError: it cannot be written.
    """
    there = list(lines_of(path))
    if there[len(there) - len(lines) :] != lines:
        write_lines(path, lines if lines[: len(there)] == there else there + lines)


def _copy(source: Path, target: Path) -> None:
    """Copy a file whole, with its time, unless one like it is there.

    Raises:
        OutputError: it cannot be read, or not be written.
    """
    try:
        found, content = source.stat(), plain_content(source)
        there = target.exists() and _looks(target.stat()) == _looks(found)
    except OSError as error:
        raise OutputError(target, error) from error
    if not there:
        write_whole(target, lambda file: file.write(content))
        with suppress(OSError):  # then its content is compared
            os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _looks(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns
