"""Decides whether the job in a folder is the one that is asked for: the same, or the same with more rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nano_batch.errors import GonePicturesError, OtherJobError
from nano_batch.job import PICTURES, Job, Settings, first_link, lines_of
from nano_batch.listing import Place
from nano_batch.locks import one_at_a_time
from nano_batch.progress import counted
from nano_runtime.errors.wording import named

__all__ = ["agreed", "check_agreement", "remove_gone"]

_MOST_NAMED = 3


def agreed(folder: Path, asked: Settings, *, seeded: bool) -> Job:
    """Return the job in a folder, or begin one there.

    Args:
        folder: for the job; it exists.
        asked: the settings that are asked for.
        seeded: whether their seed was asked for, too; otherwise that of the job is taken.

    Raises:
        OtherJobError: there is another job.
        DamagedJobError: there is one that cannot be read.
        OutputError: the folder cannot be written.
    """
    with one_at_a_time(folder):  # shards begin together
        found = Job.read(folder)
        if found is None:
            return Job.begin(folder, asked)
    _compare(found, asked, seeded=seeded)
    return found


def check_agreement(job: Job, asked: Settings, places: Sequence[Place], *, seeded: bool, prune: bool) -> int:
    """Raise what ``agreed`` and ``remove_gone`` would raise, and return how many files that would delete."""
    _compare(job, asked, seeded=seeded)
    gone = _gone(job, places)
    if not prune:
        _refuse_gone(job, asked, gone)
    return len(_files_of(job, gone, places))


def remove_gone(job: Job, asked: Settings, places: Sequence[Place], *, prune: bool) -> int:
    """Look for pictures that no row asks for any more; return the number of files that were deleted.

    Args:
        job: as it was.
        asked: its settings now.
        places: that are asked for now.
        prune: whether the files of others are deleted.

    Raises:
        OtherJobError: there are some, and they are to stay.
        OutputError: the folder cannot be written.
    """
    gone = _gone(job, places)
    if not prune:
        _refuse_gone(job, asked, gone)
    job.renew(asked)
    if not gone:
        return 0
    removed = 0
    for path in _files_of(job, gone, places):
        with suppress(OSError):
            path.unlink()
            removed += 1
    return removed


def _files_of(job: Job, gone: Sequence[Mapping[str, Any]], places: Sequence[Place]) -> list[Path]:
    """Return the files of pictures that are gone which no other picture needs, and no link leads to."""
    kept = {name for place in places for name in place.wanted.files}
    paths = [job.folder / name for name in sorted({str(record["file_name"]) for record in gone} - kept)]
    return [path for path in paths if first_link(job.folder, path.parent) is None]


def _gone(job: Job, places: Sequence[Place]) -> list[dict[str, Any]]:
    """Return what the job had of finished pictures that no place is, or none by their name."""
    asked = {(place.wanted.key, name) for place in places for name in place.wanted.files}
    keys, names = ({one[at] for one in asked} for at in (0, 1))
    before = [line["record"] for line in lines_of(job.folder / PICTURES) if isinstance(line.get("record"), dict)]
    own = [(record.get("key"), record.get("file_name"), record) for record in before]
    texts = [one for one in own if isinstance(one[0], str) and isinstance(one[1], str)]
    gone = [one for one in texts if one[0] not in keys or one[1] not in names]
    finished = job.finished(job.entries()) if gone else {}
    return [record for key, name, record in gone if key in finished and name in finished[key]["files"]]


def _refuse_gone(job: Job, asked: Settings, gone: Sequence[Mapping[str, Any]]) -> None:
    """Raise an error if pictures are gone, with the options that may be why."""
    if not gone:
        return
    ids = ", ".join(repr(record.get("id")) for record in gone[:_MOST_NAMED]) + ", ..." * (len(gone) > _MOST_NAMED)
    what = f"no row asks for {counted(len(gone))} of it any more, or a changed one does (id {ids})"
    raise GonePicturesError(job.folder, _changed(job.settings.options, asked.options), what)


def _changed(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Say which options of the command line are others; those that change no picture do not matter."""
    names = [name for name in sorted({*there, *asked}) if there.get(name) != asked.get(name)]
    return [_turned(named(name), _shown(there.get(name)), _shown(asked.get(name))) for name in names]


def _compare(job: Job, asked: Settings, *, seeded: bool) -> None:
    """Raise ``OtherJobError`` if settings differ."""
    if differences := _differences(job.settings, asked, seeded=seeded):
        raise OtherJobError(job.folder, differences)


def _differences(there: Settings, asked: Settings, *, seeded: bool) -> list[str]:
    """Say what another job does otherwise."""
    found = []
    if there.bundle != asked.bundle:
        was, now = (f"{one.model} ({one.bundle[:12]})" for one in (there, asked))
        found.append(_turned("the bundle", was, now))
    if seeded and there.seed != asked.seed:
        found.append(_turned(named("seed"), str(there.seed), str(asked.seed)))
    if there.name != asked.name:
        found.append(_turned(named("name"), _shown(there.name), _shown(asked.name)))
    return found


def _turned(option: str, was: str, now: str) -> str:
    """Say what an option was, and what it is now."""
    return f"{option} was {was}, and now is {now}"


def _shown(value: object) -> str:
    return "not given" if value is None else repr(value)
