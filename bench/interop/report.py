"""Writes the tables of ``bench.interop``: what opens our bundles, and whose folders become bundles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Adopted", "Opened", "markdown", "write_into"]


@dataclass(frozen=True)
class Opened:
    """A library opened a standard bundle: PSNR in dB to Nano's fp32 picture on ONNX Runtime; inf for equal pixels.

    A library that cuts colours into bytes, where others round, is compared with a picture that was cut, too.
    """

    distribution: str
    version: str
    call: str
    fp32_db: float
    int8_db: float
    ignores: str


@dataclass(frozen=True)
class Adopted:
    """A tool's folder: PSNR in dB between its own pipeline's picture and Nano's from the adopted bundle."""

    title: str
    version: str
    engine: str
    db: float


def markdown(opened: Sequence[Opened], adopted: Sequence[Adopted]) -> str:
    """Return both tables as a document."""
    return (
        "# Other libraries\n\nWritten by `make interop`; [how it is measured](../interop/__main__.py).\n\n"
        f"## They open our bundles\n\n{_readers(opened)}\n\n## We adopt their folders\n\n{_folders(adopted)}\n"
    )


def write_into(page: Path, opened: Sequence[Opened], adopted: Sequence[Adopted]) -> None:
    """Replace the tables of a page, between comments that name them."""
    text = page.read_text(encoding="utf-8")
    for name, table in (("readers", _readers(opened)), ("folders", _folders(adopted))):
        before, rest = text.split(f"<!-- {name} -->\n", 1)
        _, after = rest.split(f"<!-- /{name} -->", 1)
        text = f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{after}"
    page.write_text(text, encoding="utf-8")


def _readers(opened: Sequence[Opened]) -> str:
    lines = ["| opened by | version | fp32 | INT8 | leaves unused |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.distribution}, {row.call} | {row.version} | {_db(row.fp32_db)} | {_db(row.int8_db)} | {row.ignores} |"
        for row in opened
    ]
    return "\n".join(lines)


def _folders(adopted: Sequence[Adopted]) -> str:
    lines = ["| folder written by | version | drawn on | likeness to its own pipeline |", "|---|---|---|---|"]
    lines += [f"| {row.title} | {row.version} | {row.engine} | {_db(row.db)} |" for row in adopted]
    return "\n".join(lines)


def _db(value: float) -> str:
    return "equal pixels" if math.isinf(value) else f"{value:.1f} dB"
