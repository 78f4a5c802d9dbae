"""One checkpoint as it lies before the exporter: the options of its export, and diffusers' picture of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from tests.checkpoints.recipes import Drawing, Recipe, write
from tests.checkpoints.reference import Reference, draw, open_pipeline, picture_of

__all__ = ["Given", "plain"]


@dataclass(frozen=True, kw_only=True)
class Given:
    """A checkpoint that was written.

    Attributes:
        options: of ``nano_export.Options``, all but the output.
        drawing: the picture that is compared.
        reference: draws it with diffusers; None where diffusers cannot be asked.
        draw_options: further options of the runtime's drawing.
        note: what is special about it.
        spoil: changes the finished bundle, as a control.
    """

    options: Mapping[str, Any]
    drawing: Drawing
    reference: Callable[[], Reference | None]
    draw_options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    spoil: Callable[[Path], None] = lambda _: None

    @staticmethod
    def picture(side: int) -> Image.Image:
        """Return the picture that ``from_picture`` changes."""
        return picture_of(side)


def plain(recipe: Recipe, folder: Path, **options: Any) -> Given:
    """Write a recipe's checkpoint; diffusers' pipeline of its own size draws the reference.

    Args:
        recipe: of the checkpoint.
        folder: to write it into.
        **options: of the export.
    """
    write(recipe, folder)
    size = options.get("size")

    def reference() -> Reference:
        return draw(open_pipeline(folder, variant=recipe.variant), recipe.drawing, size)

    return Given(options={"model": str(folder), **options}, drawing=recipe.drawing, reference=reference)
