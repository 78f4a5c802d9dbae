"""Writes what a job has so far: ``metadata.jsonl`` of what is finished, in the rows' order, and ``errors.jsonl``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nano_batch.formats.columns import as_kind, is_mixed
from nano_batch.job import ERRORS, METADATA, Job, write_lines
from nano_batch.locks import one_at_a_time
from nano_runtime.errors import OutputError

__all__ = ["Report", "report"]

_log = logging.getLogger(__name__)

_DRAWN_BY: Final = ("backend", "engine_version", "precision", "version", "instruction_sets")


@dataclass(frozen=True)
class Report:
    """How far a job is.

    Attributes:
        asked: places that the rows ask for.
        records: lines of ``metadata.jsonl``.
        errors: lines of ``errors.jsonl``.
    """

    asked: int
    records: list[dict[str, Any]]
    errors: list[dict[str, Any]]

    @property
    def left(self) -> int:
        """Places that are neither finished nor failed."""
        return self.asked - len(self.records) - len(self.errors)


def report(job: Job, lines: Sequence[Mapping[str, Any]]) -> Report:
    """Write both files, where they are not so already, and return what they hold.

    Args:
        job: whose logs say what is finished.
        lines: of ``pictures.jsonl``.

    Raises:
        OutputError: a file cannot be written.
    """
    with one_at_a_time(job.folder):
        entries = job.entries()
        finished = job.finished(entries)
        columns, mixed = _columns(lines), _mixed(lines)
        records, errors = [], []
        for line in lines:
            record, key = line["record"], line["record"]["key"]
            if key in finished and record["file_name"] in finished[key]["files"]:
                by = finished[key]["drawn_by"]
                own = {shown: line["extra"].get(name) for name, shown in columns.items()}
                own |= {columns[name]: as_kind(line["extra"].get(name), "text") for name in mixed}
                records.append({**record, **{name: by.get(name) for name in _DRAWN_BY}, **own})
            elif (entry := entries.get(key)) is not None and entry.failed is not None:
                named = {name: record[name] for name in ("id", "i", "key")}
                what = {name: entry.failed.get(name) for name in ("error", "hint")}
                errors.append({"row": line["row"], **named, **what, "tries": entry.tries})
        write_lines(job.folder / METADATA, records)
        if errors:
            write_lines(job.folder / ERRORS, errors)
        else:
            try:
                (job.folder / ERRORS).unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(job.folder / ERRORS, error) from error
    return Report(len(lines), records, errors)


def _mixed(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rows' own columns with values of several kinds, which ``metadata.jsonl`` has as text, and say so."""
    values: dict[str, list[Any]] = {}
    for line in lines:
        for name, value in line["extra"].items():
            values.setdefault(name, []).append(value)
    mixed = [name for name, found in values.items() if is_mixed(found)]
    if mixed:
        _log.warning("columns with values of several kinds are texts in %s: %s", METADATA, ", ".join(mixed))
    return mixed


def _columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the rows' own columns, each with its name in the records, which must not be one of ours."""
    ours = {*(lines[0]["record"] if lines else ()), *_DRAWN_BY, "prompt", "image", "mask_image"}
    found: dict[str, str] = {}
    for name in dict.fromkeys(name for line in lines for name in line["extra"]):
        shown = name
        while shown in ours:
            shown = f"row_{shown}"
        ours.add(shown)
        found[name] = shown
    return found
