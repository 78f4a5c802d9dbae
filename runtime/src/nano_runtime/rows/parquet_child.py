"""The child process that reads Parquet: it prints the names of the columns, and then each row, as JSON a line."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from nano_runtime.errors.escaping import first_line

__all__ = ["main"]

_AT_ONCE: Final = 1000  # rows


def main(path: str) -> None:
    """Print all of a file, and at last that it is done, or what is wrong."""
    try:
        for said in _told(path):
            _say(said)
        _say({"done": True})
    except BrokenPipeError:
        return
    except _NoJsonError as error:
        _say({"no_json": str(error)})
    except Exception as error:  # noqa: BLE001 - pyarrow raises errors of many kinds
        _say({"damaged": first_line(error)})


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")


class _NoJsonError(Exception):
    """A value that JSON has no form for, in the column that is named."""


def _told(path: str) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - its errors are told, too

    file = ParquetFile(path, pre_buffer=False)
    names = file.schema_arrow.names
    yield {"columns": names}
    for batch in file.iter_batches(batch_size=_AT_ONCE, use_threads=False):
        columns = [column.to_pylist() for column in batch.columns]
        for values in zip(*columns, strict=True):
            yield [_as_json(value, name) for value, name in zip(values, names, strict=True)]


def _as_json(value: Any, column: str) -> Any:  # noqa: ANN401, PLR0911 - any of Arrow's types
    """Return a value as JSON has it; None for what is no number."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): _as_json(one, column) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(one, column) for one in value]
    raise _NoJsonError(column)


if __name__ == "__main__":
    main(*sys.argv[1:])
