"""Draws the rows of the table as bars: picture, start and memory side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.peers.catalogue import OURS
from bench.peers.report import Row
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_chart"]

_SCALE = 2  # pixels per unit of the layout below, for sharp text on dense screens
_FONT, _BAR, _ROW, _MARGIN = 13, 16, 26, 20
_PANEL, _GAP = 190, 56
_PAPER, _INK, _PALE, _OURS = "#ffffff", "#1f2328", "#b8c0c8", "#d9480f"


def draw_chart(table: Sequence[Row], path: Path) -> None:
    """Write a PNG; shorter bars are better everywhere, ours are the coloured ones, with a prompt that is new."""
    ours = {peer.name for peer in OURS}
    panels = {
        "a picture, s": [row.image_s for row in table],
        "start to PNG, s": [
            row.start_s if row.name in ours else _least(row.start_s, row.start_cached_s) for row in table
        ],
        "peak memory, GB": [_least(row.peak_rss_gb, row.peak_rss_cached_gb) for row in table],
    }
    font = ImageFont.load_default(_FONT * _SCALE)
    names = max(font.getlength(row.title) for row in table) / _SCALE + _MARGIN
    width = round(2 * _MARGIN + names + len(panels) * (_PANEL + _GAP))
    height = 2 * _MARGIN + _ROW * (len(table) + 1)
    image = Image.new("RGB", (width * _SCALE, height * _SCALE), _PAPER)
    pen = ImageDraw.Draw(image)

    def write(x: float, row: int, text: str) -> None:
        pen.text((x * _SCALE, (_MARGIN + _ROW * (row + 0.5)) * _SCALE), text, _INK, font, anchor="lm")

    for index, row in enumerate(table, start=1):
        write(_MARGIN, index, row.title)
    for number, (title, values) in enumerate(panels.items()):
        left = _MARGIN + names + number * (_PANEL + _GAP)
        write(left, 0, title)
        for index, (row, value) in enumerate(zip(table, values, strict=True), start=1):
            length = _PANEL * value / max(values)
            top = _MARGIN + _ROW * index + (_ROW - _BAR) / 2
            box = (left * _SCALE, top * _SCALE, (left + length) * _SCALE, (top + _BAR) * _SCALE)
            pen.rectangle(box, fill=_OURS if row.name in ours else _PALE)
            write(left + length + 5, index, f"{value:.1f}")
    image.save(path, format="PNG", optimize=True)


def _least(plain: float, cached: float | None) -> float:
    """Return the better of two figures, of which one may be missing."""
    return plain if cached is None else min(plain, cached)
