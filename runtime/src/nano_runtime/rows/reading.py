"""Reads a list of pictures to draw: all rows are checked, and all faults told, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nano_runtime.errors import MissingArgumentError, OptionError, RowsError, RowsFileError
from nano_runtime.options import DrawOptions
from nano_runtime.rows.checking import Checker
from nano_runtime.rows.content import STDIN, STDIN_IN_WORDS, text_of
from nano_runtime.rows.formats import TEXT_FORMATS, Found, lines_of_text
from nano_runtime.rows.parquet import parquet_rows
from nano_runtime.rows.row import Fault, Row
from nano_runtime.values import path as path_of

__all__ = ["place_of", "read_rows"]

_PARQUET: Final = ".parquet"
_MOST_FAULTS: Final = 20  # that are kept; the others are counted
_DEFAULTS: Final = DrawOptions()


def read_rows(
    path: str | Path,
    defaults: DrawOptions = _DEFAULTS,
    *,
    image: Path | None = None,
    mask_image: Path | None = None,
) -> list[Row]:
    """Read a file with a row for each prompt.

    The name's end says the format: ``.txt`` has a prompt a line; ``.jsonl`` and ``.ndjson`` an object a line; ``.csv``
    and ``.tsv`` a header and records; ``.parquet`` needs pyarrow; ``-`` is standard input, a prompt a line.

    Columns are the fields of ``DrawOptions``, or what commands and A1111 call them, ``n`` for the number of pictures,
    and ``id``; the others are carried along. An empty cell and null are left out, and so is the seed -1.

    Args:
        path: of the file.
        defaults: for what a row leaves out; ``keep_unmasked`` and ``mask_blur`` count for rows with a mask alone.
        image: picture to start from, for rows that name none.
        mask_image: its mask.

    Raises:
        OptionError: the defaults are no ``DrawOptions``.
        MissingArgumentError: there is a mask, and no picture that it is of.
        RowsFileError: the file cannot be read, or has no rows.
        RowsError: rows cannot be drawn; it lists them.
        ParquetMissingError: pyarrow is not installed, which reads Parquet.
    """
    file = path_of("path", path)
    if not isinstance(defaults, DrawOptions):
        raise OptionError("defaults", defaults, "a DrawOptions")
    if mask_image is not None and image is None:
        raise MissingArgumentError("mask_image", "image")
    checker = Checker(file.parent, defaults, image, mask_image)
    rows: list[Row] = []
    faults: list[Fault] = []
    count = 0
    for found in _found(file):
        checked = [found] if isinstance(found, Fault) else checker.check(found)
        if isinstance(checked, Row):
            rows.append(checked)
        else:
            faults += checked[: _MOST_FAULTS - len(faults)]
            count += len(checked)
    if faults:
        raise RowsError(_shown(file), [str(fault) for fault in faults], count)
    if not rows:
        raise RowsFileError(_shown(file), "it has no rows", "Give it a row for each prompt.")
    return rows


def place_of(path: Path, row: Row) -> str:
    """Return where a row stands, in words."""
    return f"{'row' if path.suffix.lower() == _PARQUET else 'line'} {row.number}"


def _found(file: Path) -> Found:
    """Yield the rows of a file as they stand there."""
    if file == STDIN:
        return lines_of_text(text_of(file))
    suffix = file.suffix.lower()
    if suffix == _PARQUET:
        return parquet_rows(file)
    if suffix not in TEXT_FORMATS:
        known = ", ".join((*TEXT_FORMATS, _PARQUET))
        why = f"its name ends in {suffix}" if suffix else "its name has no ending"
        raise RowsFileError(file, why, f"Give a file that ends in one of: {known}.")
    return TEXT_FORMATS[suffix](text_of(file), file)


def _shown(file: Path) -> Path:
    return STDIN_IN_WORDS if file == STDIN else file
