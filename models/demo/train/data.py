"""Training pictures: emoji rendered once, then composed with flat backgrounds on demand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from models.demo.knowledge import Knowledge
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "MARGIN",
    "SIDES",
    "SIZE",
    "STRIDE",
    "STRIKE",
    "Glyphs",
    "all_places",
    "compose",
    "draw_places",
    "render_glyph",
    "render_glyphs",
]

SIZE = 128
"""Width and height of a training picture in pixels."""

STRIKE = 109
"""Noto Color Emoji is a bitmap font with one strike: FreeType opens it at 109 pixels per em and at no other size."""

SIDES = (96, 112)
"""Lengths in pixels of the emoji's longer side."""

MARGIN = 8
"""Largest shift in pixels from the centre, across and down."""

STRIDE = 8
"""Pixels between allowed shifts: the size of a latent, so that every edge keeps its phase on the latents' grid."""


def render_glyph(character: str, font: ImageFont.FreeTypeFont, side: int) -> Image.Image:
    """Draw one emoji, cropped to its ink and scaled so that its longer side is `side` pixels.

    Returns:
        An RGBA image (straight alpha) of `side` x `side` pixels, the glyph centred on transparency.

    Raises:
        ValueError: the font has no such character.
    """
    canvas = Image.new("RGBA", (2 * STRIKE, 2 * STRIKE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((STRIKE // 4, STRIKE // 4), character, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        message = f"the font has no picture of {character!r}"
        raise ValueError(message)
    ink = canvas.crop(box)
    scale = side / max(ink.size)
    width, height = (max(1, round(length * scale)) for length in ink.size)
    # Premultiplied alpha ("RGBa") keeps the transparent pixels' black out of the edges when scaling.
    ink = ink.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(ink, ((side - width) // 2, (side - height) // 2))
    return square


@dataclass(frozen=True)
class Glyphs:
    """Rendered emoji on a transparent frame wide enough to be shifted.

    Attributes:
        color: float32 [concepts, scales, 3, SIZE + 2 margin, SIZE + 2 margin], 0..1, already multiplied by alpha.
        alpha: float32 [concepts, scales, 1, SIZE + 2 margin, SIZE + 2 margin], 0..1.
        margin: the largest shift in pixels, in every direction.
        stride: distance in pixels between allowed shifts.
    """

    color: torch.Tensor
    alpha: torch.Tensor
    margin: int
    stride: int

    @property
    def offsets(self) -> list[int]:
        """The allowed starts of the picture inside the wide frame."""
        return list(range(0, 2 * self.margin + 1, self.stride))


def render_glyphs(knowledge: Knowledge, font_path: Path, sides: tuple[int, ...], margin: int, stride: int) -> Glyphs:
    """Render every concept at every size in `sides` (pixels), centred, with room for shifts of `margin` pixels."""
    font = ImageFont.truetype(str(font_path), STRIKE)
    frame = SIZE + 2 * margin
    pixels = np.zeros((len(knowledge.names), len(sides), frame, frame, 4), np.float32)
    for index, character in enumerate(knowledge.characters):
        for scale, side in enumerate(sides):
            start = (frame - side) // 2
            glyph = np.asarray(render_glyph(character, font, side), np.float32) / 255
            pixels[index, scale, start : start + side, start : start + side] = glyph
    tensor = torch.from_numpy(pixels).permute(0, 1, 4, 2, 3)
    alpha = tensor[:, :, 3:].contiguous()
    return Glyphs(color=(tensor[:, :, :3] * alpha).contiguous(), alpha=alpha, margin=margin, stride=stride)


def compose(
    glyphs: Glyphs, background: torch.Tensor, concept: NDArray[np.int64], place: NDArray[np.int64]
) -> torch.Tensor:
    """Put each concept on its background.

    Args:
        glyphs: the rendered emoji.
        background: float32 [n, 3], 0..1.
        concept: int64 [n], indices into the glyphs.
        place: int64 [n, 3], scale (index into the glyphs), top and left (indices into `Glyphs.offsets`).

    Returns:
        float32 [n, 3, SIZE, SIZE] in -1..1, as the autoencoder takes it.
    """
    pictures = []
    for index, (scale, down, right), flat in zip(concept, place, background, strict=True):
        top, left = glyphs.offsets[down], glyphs.offsets[right]
        window = (index, scale, slice(None), slice(top, top + SIZE), slice(left, left + SIZE))
        pictures.append(glyphs.color[window] + (1 - glyphs.alpha[window]) * flat[:, None, None])
    return torch.stack(pictures) * 2 - 1


def draw_places(glyphs: Glyphs, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random scales and shifts for `compose`, int64 [count, 3]."""
    scales, shifts = glyphs.color.shape[1], len(glyphs.offsets)
    return rng.integers([scales, shifts, shifts], size=(count, 3))


def all_places(glyphs: Glyphs) -> NDArray[np.int64]:
    """Every scale and shift once, int64 [variants, 3]."""
    scales, shifts = glyphs.color.shape[1], len(glyphs.offsets)
    return np.stack(np.meshgrid(range(scales), range(shifts), range(shifts), indexing="ij"), -1).reshape(-1, 3)
