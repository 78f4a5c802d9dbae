"""The size policy: a bundle draws one size, and clients ask for others.

``asked`` draws at the bundle's size and resamples to what was asked, covering and cropping where the shapes differ.
``native`` returns what was drawn. ``strict`` refuses another size.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from nano_runtime import save_png
from nano_serve.errors import BadRequestError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FITS", "Fit", "Size", "covered", "encoded", "is_cropped", "size_for", "stretched"]

Fit: TypeAlias = Literal["asked", "native", "strict"]
FITS: Final[tuple[Fit, ...]] = ("asked", "native", "strict")

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

_MOST_PIXELS: Final = 4_194_304
_MOST_SIDE: Final = 16_383  # of a WebP file; JPEG has 65,535
_LEAST_LOST: Final = 0.01
_LANCZOS: Final = 1  # PIL.Image.Resampling.LANCZOS


def size_for(asked: Size | None, drawn: Size, fit: Fit) -> Size:
    """Return the size of the answer.

    Args:
        asked: by the client; None for none.
        drawn: by the bundle.
        fit: the policy.

    Raises:
        BadRequestError: it is too large or too small, or another than the bundle's and the policy is strict.
    """
    if asked is None:
        return drawn
    width, height = asked
    if not (1 <= width <= _MOST_SIDE and 1 <= height <= _MOST_SIDE and width * height <= _MOST_PIXELS):
        hint = f"Ask for 4 megapixels at most, and for {_MOST_SIDE} pixels a side."
        raise BadRequestError(f"the size {width}x{height} is out of range", hint)
    if fit == "strict" and asked != drawn:
        raise BadRequestError(
            f"this bundle draws {drawn[0]}x{drawn[1]} pixels, {width}x{height} were asked for",
            "Ask for its size, or start nano-serve without --fit strict.",
        )
    return drawn if fit == "native" else asked


def is_cropped(image: Size, size: Size) -> bool:
    """Return whether a picture loses more than a hundredth of itself when it covers a size."""
    across, down = image[0] * size[1], image[1] * size[0]
    return min(across, down) < (1 - _LEAST_LOST) * max(across, down)


def covered(image: Image, size: Size) -> Image:
    """Return a picture of a size: scaled until it covers it, and cropped around the centre."""
    from PIL import Image as Pillow  # noqa: PLC0415 - a server that has drawn nothing needs no Pillow
    from PIL import ImageOps  # noqa: PLC0415

    return image if image.size == size else ImageOps.fit(image, size, Pillow.Resampling.LANCZOS)


def stretched(image: Image, size: Size) -> Image:
    """Return a picture of a size, whatever its shape was."""
    return image if image.size == size else image.resize(size, _LANCZOS)


def encoded(image: Image, parameters: Any, form: str = "png", quality: int | None = None) -> bytes:  # noqa: ANN401
    """Return a file of a picture.

    Args:
        image: the picture.
        parameters: as ``read_parameters`` returns them; a PNG holds them.
        form: ``png``, ``jpeg`` or ``webp``.
        quality: 0 to 100, of JPEG and WebP; None means 95.
    """
    file = io.BytesIO()
    if form == "png":
        save_png(image, file, parameters)
    else:
        image.save(file, format=form.upper(), quality=95 if quality is None else quality)
    return file.getvalue()
