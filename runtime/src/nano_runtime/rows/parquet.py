"""Parquet, read by a child process: pyarrow is native code, and a list may be a stranger's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

from nano_runtime.bundle.strict_json import parsed_json
from nano_runtime.errors import ParquetMissingError, RowsFileError
from nano_runtime.rows.columns import check_columns
from nano_runtime.rows.content import opened
from nano_runtime.rows.row import Fault, Record
from nano_runtime.system.children import module_command
from nano_runtime.system.confined import described
from nano_runtime.system.confinement import Confinement, memory_for_child

__all__ = ["parquet_rows"]

_MAGIC: Final = b"PAR1"
_MOST_BYTES: Final = 1 << 30  # of all rows as JSON
_DAMAGED: Final = "Restore it from a copy, or write it anew."


def parquet_rows(path: Path) -> Iterator[Record | Fault]:
    """Yield the rows of a Parquet file.

    Raises:
        RowsFileError: it cannot be read.
        ParquetMissingError: pyarrow is not installed.
    """
    with opened(path) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise RowsFileError(path, "it is no Parquet file", "Give it a name that ends as its format says.")
    if find_spec("pyarrow") is None:
        raise ParquetMissingError(path, "; or save the rows as CSV or JSON lines.")
    whole = path.resolve()
    within = described(Confinement(reads=(whole,), memory_bytes=memory_for_child()))
    command = [*module_command("nano_runtime.system.confined"), within, "nano_runtime.rows.parquet_child", str(whole)]
    with subprocess.Popen(  # noqa: S603 - our own module; paths are arguments, not commands
        command,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            if child.stdout is not None:
                yield from _rows(path, child.stdout)
        finally:
            child.kill()


def _rows(path: Path, said: IO[bytes]) -> Iterator[Record | Fault]:
    """Yield the rows that the child tells."""
    names: list[str] = []
    room, number = _MOST_BYTES, 0
    while line := said.readline(room):
        room -= len(line)
        if not room:
            raise RowsFileError(path, f"its rows have more than {_MOST_BYTES / 1e6:.0f} MB", "Divide it into several.")
        told: Any = _parsed(line)
        match told:
            case {"columns": list(columns)}:
                names = list(map(str, columns))
                check_columns(path, names)
            case {"no_json": str(column)}:
                why = f"the column {column!r} has bytes, which cannot be carried along"
                raise RowsFileError(path, why, "Leave it out.")
            case {"damaged": str(why)}:
                raise RowsFileError(path, f"it is damaged ({why})", _DAMAGED)
            case {"done": True}:
                return
            case list(values) if len(values) == len(names):
                number += 1
                yield Record(number, f"row {number}", dict(zip(names, values, strict=True)))
            case _:
                number += 1
                yield Fault(f"row {number}", "it has a number beyond 64 bits, or is nested too deep", "Simplify it.")
    raise RowsFileError(path, "the process that read it came to a sudden end", _DAMAGED)


def _parsed(line: bytes) -> Any:  # noqa: ANN401 - any of JSON's types
    """Return what a line says; None for none."""
    try:
        return parsed_json(line.decode())
    except ValueError:
        return None
