"""Parquet: files of up to 1,000 pictures with a column ``image`` in Hugging Face's form, and a column for each value.

    00000.parquet    image {bytes, path}, text, id, key, seed, ...

``datasets``' feature ``Image`` is this struct, and the schema's key ``huggingface`` says that the column is one
(features/image.py and ``Features.from_arrow_schema`` in release 5.2). Other readers see bytes of PNG files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from blake3 import blake3

from nano_batch.formats.columns import Kind, as_kind, kinds_of
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

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_tables"]

FOLDER: Final = "parquet"

_AT_ONCE: Final = 100  # pictures in a row group: as many are in memory
_IMAGE: Final = "image"
_DIGEST: Final = b"nano_batch"  # key in the schema: of all that a file is made of


def write_tables(records: Records, folder: Path) -> Written:
    """Write a job's pictures as Parquet files in ``folder/parquet``; files that would not change are left alone.

    Args:
        records: of the pictures.
        folder: of the job.

    Raises:
        OutputError: the folder is full or not writable, or a picture cannot be read.
    """
    to = folder / FOLDER
    make_folder(to, folder)
    found = find(records, folder)
    kinds = {name: kind for name, kind in kinds_of(records).items() if name not in {"file_name", _IMAGE}}
    paths, changed = set(), []
    for first in range(0, len(found.samples), MOST_PICTURES):
        shard = found.samples[first : first + MOST_PICTURES]
        path = to / f"{first // MOST_PICTURES:05}.parquet"
        paths.add(path)
        schema = _schema(kinds, shard)
        if write(path, partial(_fill, shard=shard, schema=schema, kinds=kinds), partial(_is_same, path, shard, schema)):
            changed.append(path)
    changed += remove({*to.glob("[0-9][0-9][0-9][0-9][0-9].parquet")} - paths)
    return Written(to, len(found.samples), changed, found.left_out)


def _schema(kinds: Mapping[str, Kind], shard: list[Sample]) -> pa.Schema:
    """Return a file's columns; a digest of the records and the pictures' sizes is part of it."""
    import pyarrow as pa  # noqa: PLC0415 - this room is its only door, and most jobs do not need it

    types = {
        "truth": pa.bool_(),
        "integer": pa.int64(),
        "large": pa.uint64(),
        "number": pa.float64(),
        "text": pa.string(),
        "json": pa.string(),
    }
    image = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    columns = [pa.field(_IMAGE, image), *(pa.field(name, types[kind]) for name, kind in kinds.items())]
    of = [dict(kinds), [[sample.record, sample.size] for sample in shard]]
    about = {
        b"huggingface": json.dumps({"info": {"features": {_IMAGE: {"_type": "Image"}}}}).encode(),
        _DIGEST: blake3(json.dumps(of).encode()).hexdigest().encode(),
    }
    return pa.schema(columns, metadata=about)


def _fill(file: BinaryIO, shard: list[Sample], schema: pa.Schema, kinds: Mapping[str, Kind]) -> None:
    """Write a Parquet file. Pictures are compressed already."""
    from pyarrow import Table  # noqa: PLC0415
    from pyarrow.parquet import ParquetWriter  # noqa: PLC0415

    dictionaries = [name for name, kind in kinds.items() if kind in {"text", "json"}]
    compression = {"image.bytes": "NONE", "image.path": "SNAPPY", **dict.fromkeys(kinds, "SNAPPY")}
    with ParquetWriter(file, schema, use_dictionary=dictionaries, compression=compression) as writer:
        for first in range(0, len(shard), _AT_ONCE):
            rows = [_row(sample, kinds) for sample in shard[first : first + _AT_ONCE]]
            writer.write_table(Table.from_pylist(rows, schema), row_group_size=_AT_ONCE)


def _row(sample: Sample, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Return a picture and its record."""
    image = {"bytes": sample.path.read_bytes(), "path": sample.path.name}
    return {_IMAGE: image, **{name: as_kind(sample.record.get(name), kind) for name, kind in kinds.items()}}


def _is_same(path: Path, shard: list[Sample], schema: pa.Schema) -> bool:
    """Return whether a Parquet file has what it should have, from its footer; no picture is younger than it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged (pyarrow's ``ArrowInvalid`` is one).
    """
    from pyarrow.parquet import read_schema  # noqa: PLC0415

    if path.stat().st_mtime_ns < max(sample.changed for sample in shard):
        return False
    return bool(read_schema(path).metadata.get(_DIGEST) == schema.metadata[_DIGEST])
