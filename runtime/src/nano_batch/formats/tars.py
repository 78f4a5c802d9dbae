"""WebDataset: tar files of up to 1,000 pictures, in which a picture, its prompt and its record have one name.

    00000.tar    KEY.png, KEY.txt, KEY.json, and so on, in the order of the rows
    README.md    types of the columns, for ``datasets.load_dataset(folder)``

A reader takes adjacent members as one sample if their names are alike up to the first dot (``group_by_keys`` and
``base_plus_ext`` in webdataset/tariterators.py, release 1.0.2), so keys are unique and have no dots.

Times, owners and order are fixed, so equal pictures are equal bytes. Headers are as POSIX wrote them down in 1988
(ustar), which all readers know.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from nano_batch.formats.columns import Kind, kinds_of
from nano_batch.formats.samples import (
    MOST_PICTURES,
    Records,
    Sample,
    Written,
    find,
    remove,
    write,
)
from nano_batch.job import make_folder

__all__ = ["write_tars"]

FOLDER: Final = "webdataset"

_BLOCK: Final = 512  # bytes, of tar
_END: Final = bytes(2 * _BLOCK)
_README: Final = b"""---
configs:
- config_name: default
  data_files: "*.tar"
dataset_info:
  features:
  - name: png
    dtype: image
  - name: txt
    dtype: string
  - name: json
    dtype: json
---

Pictures in WebDataset's form: `KEY.png`, its prompt `KEY.txt`, and all that is known about it, `KEY.json`.
"""


def write_tars(records: Records, folder: Path) -> Written:
    """Write a job's pictures as tar files in ``folder/webdataset``; files that would not change are left alone.

    Args:
        records: of the pictures.
        folder: of the job.

    Raises:
        OutputError: the folder is full or not writable, or a picture cannot be read.
    """
    to = folder / FOLDER
    make_folder(to, folder)
    found, kinds = find(records, folder), kinds_of(records)
    keys = _keys(found.samples)
    paths, changed = set(), []
    for first in range(0, len(found.samples), MOST_PICTURES):
        shard = list(zip(keys, found.samples, strict=True))[first : first + MOST_PICTURES]
        path = to / f"{first // MOST_PICTURES:05}.tar"
        paths.add(path)
        if write(path, partial(_fill, shard=shard, kinds=kinds), partial(_is_same, path, shard, kinds)):
            changed.append(path)
    changed += remove({*to.glob("[0-9][0-9][0-9][0-9][0-9].tar")} - paths)
    readme = to / "README.md"
    if write(readme, lambda file: file.write(_README), lambda: readme.read_bytes() == _README):
        changed.append(readme)
    return Written(to, len(found.samples), changed, found.left_out)


def _keys(samples: Iterable[Sample]) -> list[str]:
    """Return a name for each sample: the picture's key, and its number if other rows asked for the same picture."""
    count: dict[str, int] = {}
    names = []
    for sample in samples:
        key = str(sample.record["key"])
        count[key] = count.get(key, 0) + 1
        names.append(key if count[key] == 1 else f"{key}-{count[key]}")
    return names


def _texts(key: str, sample: Sample, kinds: Mapping[str, Kind]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the members that follow a picture."""
    yield f"{key}.txt", str(sample.record["text"]).encode()
    # Readers take a column's type from its first values: numbers are all whole or all floats, and nothing is null.
    record = {
        name: float(value) if kinds[name] == "number" else value
        for name, value in sample.record.items()
        if name != "file_name" and value is not None
    }
    yield f"{key}.json", json.dumps(record, ensure_ascii=False).encode()


def _fill(file: BinaryIO, shard: list[tuple[str, Sample]], kinds: Mapping[str, Kind]) -> None:
    """Write a tar file."""
    for key, sample in shard:
        picture = sample.path.read_bytes()
        for name, content in ((f"{key}{sample.path.suffix}", picture), *_texts(key, sample, kinds)):
            file.write(_header(name, len(content)))
            file.write(content)
            file.write(bytes(-len(content) % _BLOCK))
    file.write(_END)


def _is_same(path: Path, shard: list[tuple[str, Sample]], kinds: Mapping[str, Kind]) -> bool:
    """Return whether a tar file has what it should have, without reading the pictures.

    Names, sizes, prompts and records are compared, and no picture is younger than the file.

    Raises:
        OSError: it cannot be read.
    """
    if path.stat().st_mtime_ns < max(sample.changed for _, sample in shard):
        return False
    with path.open("rb") as file:
        for key, sample in shard:
            if file.read(_BLOCK) != _header(f"{key}{sample.path.suffix}", sample.size):
                return False
            file.seek(sample.size + -sample.size % _BLOCK, 1)
            for name, content in _texts(key, sample, kinds):
                expected = _header(name, len(content)) + content + bytes(-len(content) % _BLOCK)
                if file.read(len(expected)) != expected:
                    return False
        return file.read() == _END


def _header(name: str, size: int) -> bytes:
    """Return a member's header: of nobody in particular, at no particular time."""
    about = tarfile.TarInfo(name)
    about.size = size
    return about.tobuf(tarfile.USTAR_FORMAT)
