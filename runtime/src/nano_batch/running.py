"""A job from top to bottom: rows -> pictures -> what is not there yet, drawn and logged -> metadata.jsonl."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from nano_batch.agreement import agreed, check_agreement, remove_gone
from nano_batch.datasets import require, write_datasets
from nano_batch.draw import Draw
from nano_batch.errors import ShardError
from nano_batch.job import PICTURES, Job, Log, Settings, write_lines
from nano_batch.listing import Place, list_pictures, wanted_of
from nano_batch.locks import locked
from nano_batch.naming import Naming
from nano_batch.progress import Progress, counted
from nano_batch.reports import report
from nano_batch.shards import Shard
from nano_batch.wanted import Wanted, readable
from nano_runtime import DrawOptions, NanoError, Row, RowsError, __version__, read_rows
from nano_runtime.cli.listed import unused_columns

__all__ = ["Asked", "Engine", "Outcome", "Voice", "check", "run"]

Engine: TypeAlias = Callable[[Draw, Sequence[Wanted], Log, Callable[[list[dict[str, Any]]], None]], None]
"""Draws pictures, logs what became of each, and then tells of it; see ``local.draw_here``."""

_SEED_BYTES: Final = 4
_MAKE: Final = ("backend", "engine_version", "precision", "instruction_sets")


@dataclass(frozen=True)
class Asked:
    """What a command line asks for.

    Attributes:
        rows: the rows' file; ``-`` for standard input.
        folder: of the job.
        defaults: options of rows that leave them out.
        pictures: to start from, and mask, of rows that name none: arguments of ``read_rows``.
        given: those of all these that the command line has, as ``job.json`` keeps them.
        seed: of the job; None for one of its own.
        naming: of the pictures.
        shard: the part to draw.
        prune: whether pictures are deleted that no row asks for any more.
        forms: that the finished job is written in beside its pictures; see ``datasets``.
    """

    rows: str
    folder: Path
    defaults: DrawOptions
    pictures: Mapping[str, Path | None]
    given: Mapping[str, Any]
    seed: int | None
    naming: Naming
    shard: Shard
    prune: bool
    forms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Voice:
    """How a job speaks.

    Attributes:
        show: gets the path of a picture that is finished.
        say: gets a line about the work.
    """

    show: Callable[[Path], None]
    say: Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a job, or of one shard of it.

    Attributes:
        folder: of the job.
        shard: that was drawn.
        asked: pictures that the rows ask for, of this shard.
        finished: of them.
        failed: of them.
        drawn: finished by this run.
        seconds: that drawing took.
        drawn_by: engine and machine; None where nothing was left to draw.
        errors: lines of ``errors.jsonl`` of this shard.
        datasets: folders of the forms that were written.
    """

    folder: Path
    shard: Shard
    asked: int
    finished: int
    drawn: int = 0
    seconds: float = 0.0
    drawn_by: Mapping[str, Any] | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    datasets: Sequence[Path] = ()

    @property
    def failed(self) -> int:
        """Number of pictures that could not be drawn."""
        return len(self.errors)

    @property
    def missing(self) -> int:
        """Number of pictures that are neither finished nor failed."""
        return self.asked - self.finished - self.failed


def check(asked: Asked, draw: Draw, say: Callable[[str], None]) -> Outcome:
    """Check rows and folder; nothing is written.

    Args:
        asked: what to draw, and where.
        draw: of the same folder.
        say: gets a line about the rows.

    Raises:
        NanoError: those of ``run`` that can be foreseen.
    """
    require(asked.forms)
    rows = read_rows(asked.rows, asked.defaults, **asked.pictures)
    job = Job.read(asked.folder)
    settings, places = _settled(asked, draw, rows, job)
    mine = [place for place in places if asked.shard.has(place.wanted.key)]
    if (unused := unused_columns(rows)) is not None:
        say(unused)
    if job is None:
        return Outcome(asked.folder, asked.shard, len(mine), 0)
    gone = check_agreement(job, settings, places, seeded=asked.seed is not None, prune=asked.prune)
    if gone > 0:
        say(f"--prune would delete {counted(gone)} that no row asks for any more")
    return Outcome(asked.folder, asked.shard, len(mine), len(_Work.of(job, places, asked.shard).there))


def run(asked: Asked, draw: Draw, engine: Engine, voice: Voice) -> Outcome:
    """Draw what is not there yet of a job, or of one shard.

    Args:
        asked: what to draw, and where.
        draw: of the same folder.
        engine: has it draw.
        voice: tells of it.

    Raises:
        NanoError: rows or options are wrong, which is found before anything is written; the folder holds another job,
            or another process works there; the machine cannot go on. Pictures that are finished stay.
    """
    require(asked.forms)
    rows = read_rows(asked.rows, asked.defaults, **asked.pictures)
    settings, places = _settled(asked, draw, rows, Job.read(asked.folder))
    shard = asked.shard
    with locked(asked.folder, None if shard.whole else shard.worker):
        job = agreed(asked.folder, settings, seeded=asked.seed is not None)
        if job.settings.seed != settings.seed:  # another process has begun it meanwhile
            settings, places = _settled(asked, draw, rows, job)
        if (removed := remove_gone(job, settings, places, prune=asked.prune)) > 0:
            voice.say(f"deleted {counted(removed)} that no row asks for any more")
        lines = [place.line() for place in places]
        write_lines(job.folder / PICTURES, lines)
        work = _Work.of(job, places, shard)
        for name in dict.fromkeys(place.wanted.files[0] for place in work.there):
            voice.show(job.folder / name)
        if shard.whole:
            job.remove_unfinished()
        if not work.pending:
            return work.outcome(lines, asked.forms)
        if (said := work.mixed(draw.drawn_by)) is not None:
            voice.say(said)
        if (unused := unused_columns(rows)) is not None:
            voice.say(unused)
        voice.say(work.announced(draw))
        drawn, seconds = work.draw(draw, engine, voice, lines)
        outcome = work.outcome(lines, asked.forms)
        return replace(outcome, drawn=drawn, seconds=seconds, drawn_by=draw.drawn_by)


@dataclass(frozen=True)
class _Work:
    """The part of a job that this process does."""

    job: Job
    shard: Shard
    mine: Sequence[Place]
    there: Sequence[Place]
    pending: Sequence[Wanted]
    finished: Mapping[str, Mapping[str, Any]]
    ends: Mapping[str, int]

    @classmethod
    def of(cls, job: Job, places: Sequence[Place], shard: Shard) -> _Work:
        """Find out what is left to draw."""
        entries = job.entries()
        finished = job.finished(entries)
        mine = [place for place in places if shard.has(place.wanted.key)]
        wanted = wanted_of(mine)
        done = {key for key, one in wanted.items() if key in finished and {*one.files} <= {*finished[key]["files"]}}
        there = [place for place in mine if place.wanted.key in done]
        pending = [one for key, one in wanted.items() if key not in done]
        ends = {one.key: entries[one.key].ends for one in pending if one.key in entries and entries[one.key].ends > 0}
        return cls(job, shard, mine, there, pending, finished, ends)

    def mixed(self, drawn_by: Mapping[str, Any]) -> str | None:
        """Say that pictures which are there were drawn in another way; None if they were not."""
        now = _way(drawn_by)
        ways = {_way(self.finished[place.wanted.key]["drawn_by"]) for place in self.there}
        others = [way for way in ways if any(one not in (other, None) for one, other in zip(way, now, strict=True))]
        if not others:
            return None
        before = " or ".join(sorted(" ".join(map(str, way[:3])) for way in others))
        return (
            f"warning: pictures in this folder were drawn by {before} or on another kind of processor, the rest will "
            f"be by {' '.join(map(str, now[:3]))}: alike to the eye, though not in every bit; metadata.jsonl says which"
        )

    def announced(self, draw: Draw) -> str:
        """Return a line about the work to come."""
        pipe = draw.pipeline
        part = "" if self.shard.whole else f" of shard {self.shard.index}/{self.shard.count}"
        there = f", {len(self.there)} there already" if self.there else ""
        name = f"{pipe.bundle.manifest.name} on {pipe.backend}"
        return f"{name}: {counted(len(self.mine))}{part}{there}; seed of the job {self.job.settings.seed}"

    def draw(self, draw: Draw, engine: Engine, voice: Voice, lines: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
        """Draw what is left, and return how many pictures were drawn, in how many seconds.

        Progress counts places, as the lists do: a picture that several rows ask for is drawn once.
        """
        names = {one.key: one.files for one in self.pending}
        places = Counter(place.wanted.key for place in self.mine)
        progress = Progress(len(self.mine), len(self.there), voice.say)
        drawn = 0

        def told(records: list[dict[str, Any]]) -> None:
            nonlocal drawn
            keys = [record["key"] for record in records if record["done"]]
            drawn += len(keys)
            progress.clear()
            try:
                for name in (name for key in keys for name in names[key]):
                    voice.show(self.job.folder / name)
            finally:  # whoever reads may be gone: what is finished is finished
                done = sum(places[key] for key in keys)
                progress.add(done, sum(places[record["key"]] for record in records) - done)

        log = Log.open(self.job.folder, self.shard.worker, self.ends)
        try:
            engine(draw, self.pending, log, told)
        except BaseException:
            progress.end()
            log.close()
            with suppress(NanoError):
                report(self.job, lines)
            if self.job.folder.is_dir():
                said = f"{len(self.there) + progress.drawn} of {counted(len(self.mine))} finished"
                voice.say(f"{said}; the same command draws the rest")
            raise
        progress.end()
        log.close()
        return drawn, progress.seconds

    def outcome(self, lines: Sequence[Mapping[str, Any]], forms: Sequence[str]) -> Outcome:
        """Write the lists, and the forms that are asked for if the job is over, and say what became of it."""
        written = report(self.job, lines)
        mine = {place.wanted.key for place in self.mine}
        return Outcome(
            self.job.folder,
            self.shard,
            len(self.mine),
            sum(record["key"] in mine for record in written.records),
            errors=[error for error in written.errors if error["key"] in mine],
            datasets=write_datasets(self.job.folder, written, lines, forms) if written.left == 0 else (),
        )


def _way(drawn_by: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return what the bits of a picture depend on beside its key; None for what is not known."""
    return tuple(None if (value := drawn_by.get(name)) is None else str(value) for name in _MAKE)


def _settled(asked: Asked, draw: Draw, rows: Sequence[Row], job: Job | None) -> tuple[Settings, list[Place]]:
    """Return the settings of a job, and its pictures.

    Raises:
        RowsError: a row cannot be drawn.
        ShardError: every shard would have a seed of its own.
    """
    seed = asked.seed
    if seed is None and job is not None:
        seed = job.settings.seed
    if seed is None:
        seedless = any(row.options.seed is None for row in rows)
        if seedless and not asked.shard.whole:
            raise ShardError("rows have no seed, and every shard would make up one of its own", "Give --seed N.")
        seed = int.from_bytes(os.urandom(_SEED_BYTES), "little") if seedless else 0
    pipe = draw.pipeline
    unit = "row" if asked.rows.lower().endswith(".parquet") else "line"
    places, faults = list_pictures(rows, pipe, seed, asked.naming, unit)
    if faults:
        raise RowsError(Path(asked.rows), faults)
    settings = Settings(
        bundle=pipe.bundle.digest,
        model=pipe.bundle.manifest.name,
        seed=seed,
        name=asked.naming.pattern,
        options=dict(asked.given),
        rows=readable(Path(asked.rows).name),
        version=__version__,
    )
    return settings, places
