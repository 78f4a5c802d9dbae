"""Writes a job's pictures in the forms that a command line asks for, beside the pictures themselves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from nano_batch.reports import Report
from nano_runtime.errors import ParquetMissingError

__all__ = ["FORMS", "LAYOUTS", "require", "write_datasets"]

FORMS: Final = ("images", "webdataset", "parquet")
"""What a dataset may be; the first is the folder as it is."""

LAYOUTS: Final = ("geneval",)
"""Folders of benchmarks."""

_log = logging.getLogger(__name__)


def require(forms: Sequence[str]) -> None:
    """Find out before anything is drawn whether forms can be written.

    Raises:
        ParquetMissingError: Parquet is asked for, and pyarrow is not installed.
    """
    if "parquet" in forms and find_spec("pyarrow") is None:
        raise ParquetMissingError("--format parquet")


def write_datasets(
    folder: Path, written: Report, lines: Sequence[Mapping[str, Any]], forms: Sequence[str]
) -> list[Path]:
    """Write a job's finished pictures in some forms, and return the folders of these.

    A picture whose file is gone by now is left out; the log names its row.

    Args:
        folder: of the job.
        written: what is finished.
        lines: of ``pictures.jsonl``.
        forms: of ``FORMS`` and ``LAYOUTS``.

    Raises:
        OutputError: the folder is full or not writable.
    """
    from nano_batch.formats.geneval import write_geneval  # noqa: PLC0415 - few jobs want one
    from nano_batch.formats.tables import write_tables  # noqa: PLC0415
    from nano_batch.formats.tars import write_tars  # noqa: PLC0415

    made = []
    if "webdataset" in forms:
        made.append(write_tars(written.records, folder))
    if "parquet" in forms:
        made.append(write_tables(written.records, folder))
    if "geneval" in forms:
        rows = {str(line["record"]["id"]): (int(line["place"]), line["extra"]) for line in lines}
        made.append(write_geneval(written.records, folder, rows))
    for one in made:
        if one.left_out:
            lost = ", ".join(one.left_out)
            _log.warning(
                "%s lacks pictures of these rows, whose files are gone: %s; run the command again",
                one.folder,
                lost,
            )
    return [one.folder for one in made]
