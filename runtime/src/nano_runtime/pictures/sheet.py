"""Sheets of pictures with labels above the columns and beside the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

__all__ = ["contact_sheet", "labelled_sheet"]

_SIZES = (14, 12, 10, 8)  # of letters in pixels, the first in which the labels fit
_MARGIN = 4


def contact_sheet(images: Sequence[Image], columns: int) -> Image:
    """Put pictures of one size side by side, in rows of ``columns``; the rest of the last row stays black."""
    from PIL import Image  # noqa: PLC0415 - callers that draw no sheet need no Pillow

    width, height = images[0].size
    sheet = Image.new("RGB", (min(columns, len(images)) * width, -(-len(images) // columns) * height))
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet


def labelled_sheet(images: Sequence[Image], across: Sequence[str], down: Sequence[str]) -> Image:
    """Put pictures of one size in rows, black on white.

    Args:
        images: row by row.
        across: a label for each column.
        down: a label for each row; empty for a single row without one.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - callers that draw no sheet need no Pillow

    pictures = contact_sheet(images, len(across))
    width, height = images[0].size
    font = _font([*across, *down], width - 2 * _MARGIN)
    top = int(font.getbbox("Ag")[3]) + 2 * _MARGIN
    left = int(max((font.getlength(label) for label in down), default=-2 * _MARGIN)) + 2 * _MARGIN
    sheet = Image.new("RGB", (left + pictures.width, top + pictures.height), "white")
    sheet.paste(pictures, (left, top))
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(across):
        draw.text((left + (column + 0.5) * width, top / 2), label, "black", font, anchor="mm")
    for row, label in enumerate(down):
        draw.text((left - _MARGIN, top + (row + 0.5) * height), label, "black", font, anchor="rm")
    return sheet


def _font(labels: Sequence[str], width: int) -> FreeTypeFont | ImageFont:
    """Return Pillow's own font in the largest size in which every label is at most so wide, or in the smallest."""
    from PIL import ImageFont  # noqa: PLC0415 - see labelled_sheet

    fonts = [ImageFont.load_default(size) for size in _SIZES]
    return next((font for font in fonts if max(map(font.getlength, labels)) <= width), fonts[-1])
