"""Errors in lists of pictures to draw: files with a row for each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nano_runtime.errors.branches import MachineError, UsageError
from nano_runtime.errors.wording import how_to_install

__all__ = ["ParquetMissingError", "RowsError", "RowsFileError"]

_MOST_SHOWN: Final = 20


class RowsError(UsageError):
    """Rows that cannot be drawn.

    Args:
        path: of the file.
        faults: a line for each; 20 are shown.
        count: their number; None for as many as there are lines.
    """

    def __init__(self, path: Path, faults: Sequence[str], count: int | None = None) -> None:
        found = len(faults) if count is None else count
        shown = tuple(faults[:_MOST_SHOWN])
        more = (f"and {found - len(shown)} more",) if found > len(shown) else ()
        faulty = "1 fault" if found == 1 else f"{found} faults"
        super().__init__(f"{path} has {faulty}", "Nothing was drawn: correct the file, and begin again.", shown + more)


class RowsFileError(UsageError):
    """A file that holds no rows.

    Args:
        path: of the file.
        why: in a few words.
        hint: what to do.
    """

    def __init__(self, path: Path, why: str, hint: str = "Give a file with a row for each prompt.") -> None:
        super().__init__(f"{path} cannot be read as a list of prompts: {why}", hint)


class ParquetMissingError(MachineError, ImportError):
    """The package that reads and writes Parquet is not installed.

    Args:
        what: needs it.
        instead: what to do without it, in words.
    """

    def __init__(self, what: str | Path, instead: str = "") -> None:
        super().__init__(
            f"{what} needs the package pyarrow, which is not installed",
            how_to_install("parquet", "pyarrow>=18") + instead,
        )
