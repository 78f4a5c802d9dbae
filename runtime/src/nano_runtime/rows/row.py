"""One row of a list: what to draw, under which name, and what else stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_runtime.options import DrawOptions

__all__ = ["Fault", "Record", "Row"]


@dataclass(frozen=True)
class Row:
    """A row that was checked.

    Attributes:
        number: where it stands in the file, from 1: the line, in CSV and TSV the first line of the record, in Parquet
            the row.
        id: names it, and no other row of the file; the place among the rows, from 0, if the file gives none.
        has_id: whether the file gives it.
        options: one prompt, at most one negative prompt and seed, and the number of pictures
            (``num_images_per_prompt``); no pictures.
        image: file to start from; it is there, but was not opened. None for none.
        mask_image: file of the mask; as ``image``.
        extra: the other columns under their own names, as JSON has them.
        usual: the options that it would have if it named none: a fault that these have, too, is not the row's own.
    """

    number: int
    id: str
    has_id: bool
    options: DrawOptions
    image: Path | None
    mask_image: Path | None
    extra: Mapping[str, Any]
    usual: DrawOptions


@dataclass(frozen=True)
class Record:
    """A row as it stands in the file.

    Attributes:
        number: see ``Row``.
        place: what the number counts, and it: "line 3".
        values: by the column's name in the file; None where it is left out.
        as_text: whether every value is a text, which the option's own type reads.
    """

    number: int
    place: str
    values: Mapping[str, Any]
    as_text: bool = False


@dataclass(frozen=True)
class Fault:
    """Something in a file that cannot be used.

    Attributes:
        place: line or row, and column.
        what: happened, and to which value.
        hint: what to do.
    """

    place: str
    what: str
    hint: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.place}: {self.what}. {self.hint}"
