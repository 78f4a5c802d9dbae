"""GenEval's layout: a folder for each row, with the row's line of ``evaluation_metadata.jsonl`` and its pictures.

    00000/metadata.jsonl
    00000/samples/0000.png, 0001.png, ...

As its README asks for, and its ``evaluation/evaluate_images.py`` reads it (github.com/djghosh13/geneval at af4902f):
the name of a folder is a number, that of a picture a number and ``.png``. The optional ``grid.png`` is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from nano_batch.formats.samples import Records, Sample, Written, find, remove, write
from nano_batch.job import first_link, make_folder

__all__ = ["write_geneval"]

FOLDER: Final = "geneval"


def write_geneval(records: Records, folder: Path, lines: Mapping[str, tuple[int, Mapping[str, Any]]]) -> Written:
    """Write a job's pictures in ``folder/geneval``; files that would not change are left alone.

    Args:
        records: of the pictures.
        folder: of the job.
        lines: for the id of each row its place in the list, from 0, and its own columns: ``tag``, ``include``, ...

    Raises:
        OutputError: the folder is full or not writable, or a picture cannot be read.
    """
    to = folder / FOLDER
    found = find(records, folder)
    wanted: dict[Path, bytes | Sample] = {}
    for sample in found.samples:
        place, own = lines[str(sample.record["id"])]
        row = to / f"{place:05}"
        line = {**own, "prompt": sample.record["text"]}
        wanted[row / "metadata.jsonl"] = json.dumps(line).encode() + b"\n"
        wanted[row / "samples" / f"{sample.record['i']:04}.png"] = sample
    for parent in {path.parent for path in wanted}:
        make_folder(parent, folder)
    changed = [path for path, what in wanted.items() if _write(path, what)]
    there = {*to.glob("[0-9]*/metadata.jsonl"), *to.glob("[0-9]*/samples/[0-9]*.png")}
    changed += remove(path for path in there - wanted.keys() if first_link(folder, path.parent) is None)
    return Written(to, len(found.samples), changed, found.left_out)


def _write(path: Path, what: bytes | Sample) -> bool:
    """Write a line or a picture; return False where it is there already."""
    if isinstance(what, bytes):
        return write(path, lambda file: file.write(what), lambda: path.read_bytes() == what)
    return write(path, lambda file: file.write(what.path.read_bytes()), partial(_is_copy, path, what))


def _is_copy(path: Path, sample: Sample) -> bool:
    """Return whether a file has the bytes of a picture; size and time are those of others now and then.

    Raises:
        OSError: there is none.
    """
    return path.stat().st_size == sample.size and path.read_bytes() == sample.path.read_bytes()
