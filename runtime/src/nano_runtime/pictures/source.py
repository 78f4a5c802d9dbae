"""A picture to start from: opened with care, brought to the bundle's size, and its mask to that of the latents."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import struct
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from nano_runtime.arrays import F32, U8
from nano_runtime.errors import ImageError, MaskSizeError, MissingArgumentError, StrengthError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FORMATS", "Edit", "edit_of", "open_picture", "strength_of"]

FORMATS: Final = ("PNG", "JPEG", "WEBP")
_MOST_BYTES: Final = 64 << 20
_MOST_PIXELS: Final = 64 << 20  # 200 MB once decoded
_STRENGTH, _STRENGTH_WITH_MASK = 0.8, 1.0  # diffusers' defaults
_HALF = 128  # of 255: from here on a mask is white, as diffusers rounds it

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Edit:
    """A picture to start from, and how far to change it.

    Attributes:
        pixels: uint8 [height, width, 3], of the bundle's size.
        mask: float32 [1, 1, h, w] for latents of that size, 1 where they are drawn anew and 0 where they stay; None
            draws all of them anew.
        strength: the share of the steps that is run, in (0, 1]; the larger, the less is left of the picture.
    """

    pixels: U8
    mask: F32 | None
    strength: float

    @property
    def sample(self) -> F32:
        """Return the VAE encoder's input, float32 [1, 3, height, width] in [-1, 1], as ``VaeImageProcessor`` has it."""
        unit = self.pixels.astype(np.float32) / np.float32(255)
        return np.ascontiguousarray(unit.transpose(2, 0, 1)[np.newaxis] * np.float32(2) - np.float32(1))

    @property
    def digest(self) -> str:
        """Return the lower-case hex sha256 of pixels and mask, which names the edited picture."""
        mask = b"" if self.mask is None else self.mask.tobytes()
        return hashlib.sha256(self.pixels.tobytes() + mask).hexdigest()


def open_picture(source: str | Path | bytes | BinaryIO) -> Image:
    """Read a PNG, JPEG or WebP picture and turn it upright, as its EXIF orientation says.

    Args:
        source: path of a file, a file's content, or a binary file that can seek.

    Raises:
        ImageError: it cannot be read, is of another format, is damaged, or is larger than 64 MiB or 67 megapixels.
    """
    from PIL.Image import DecompressionBombError  # noqa: PLC0415 - callers without a picture need no Pillow

    name = str(source) if isinstance(source, (str, Path)) else "the picture"
    try:
        if isinstance(source, (str, Path)):
            with Path(source).open("rb") as file:
                return _decoded(file, name)
        return _decoded(BytesIO(source) if isinstance(source, bytes) else source, name)
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, DecompressionBombError) as error:
        raise ImageError(name, _in_short(error)) from error


def edit_of(
    image: Image | None,
    mask_image: Image | None,
    strength: float | None,
    image_size: tuple[int, int],
    latent_shape: tuple[int, int, int],
) -> Edit | None:
    """Check the arguments of a call that concern a picture, and fill in those that were left out.

    Picture and mask are scaled until they cover the bundle's size, and cropped evenly on both sides. Transparent parts
    become white in the picture and black in the mask.

    Args:
        image: a Pillow image of any size and mode; None if there is no picture.
        mask_image: a Pillow image of the same size, white where the picture is to be drawn anew.
        strength: see ``strength_of``.
        image_size: of the bundle, (height, width).
        latent_shape: of the bundle, (channels, height, width).

    Returns:
        None if there is no picture.

    Raises:
        MissingArgumentError: a mask or a strength without a picture.
        MaskSizeError: picture and mask differ in size.
        StrengthError: the strength is not in (0, 1].
        ImageError: an argument is not a Pillow image.
    """
    if image is None:
        for name, value in (("mask_image", mask_image), ("strength", strength)):
            if value is not None:
                raise MissingArgumentError(name, "image")
        return None
    share = strength_of(strength, masked=mask_image is not None)
    _require_image("image", image)
    pixels = np.asarray(_fitted(_opaque(image, "white"), image_size))
    if mask_image is None:
        return Edit(pixels, None, share)
    _require_image("mask_image", mask_image)
    if mask_image.size != image.size:
        raise MaskSizeError(mask_image.size, image.size)
    return Edit(pixels, _latent_mask(_opaque(mask_image, "black"), image_size, latent_shape), share)


def strength_of(strength: float | None, *, masked: bool) -> float:
    """Return the strength, for None diffusers' default: 0.8 for a picture and 1 for one with a mask.

    Raises:
        StrengthError: it is not in (0, 1].
    """
    share = (_STRENGTH_WITH_MASK if masked else _STRENGTH) if strength is None else float(strength)
    if not (math.isfinite(share) and 0 < share <= 1):
        raise StrengthError(share)
    return share


def _decoded(file: BinaryIO, name: str) -> Image:
    """Read a picture, unless its size in bytes or the one in its header is too large."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - see open_picture

    if (size := file.seek(0, os.SEEK_END)) > _MOST_BYTES:
        raise ImageError(name, f"{size / 1e6:.0f} MB are more than the {_MOST_BYTES / 1e6:.0f} allowed")
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow's limit; ours is lower
        image = Image.open(file, formats=FORMATS)
    with image:
        if (pixels := image.width * image.height) > _MOST_PIXELS:
            most = f"{_MOST_PIXELS / 1e6:.0f}"
            raise ImageError(name, f"{pixels / 1e6:.0f} megapixels are more than the {most} allowed")
        image.load()
        return ImageOps.exif_transpose(image)


def _require_image(argument: str, value: object) -> None:
    from PIL.Image import Image  # noqa: PLC0415 - see open_picture

    if not isinstance(value, Image):
        raise ImageError(argument, f"it is a {type(value).__name__}, and a Pillow image is expected")


def _opaque(image: Image, background: str) -> Image:
    """Return the picture in RGB, on a background where it is transparent; 16 bits a channel become 8."""
    from PIL import Image as Pillow  # noqa: PLC0415 - see open_picture

    if image.mode.startswith("I"):
        return Pillow.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Pillow.alpha_composite(Pillow.new("RGBA", image.size, background), layer).convert("RGB")


def _fitted(image: Image, image_size: tuple[int, int]) -> Image:
    """Cover the size (height, width) and crop around the centre; a picture of that size stays as it is."""
    from PIL import Image as Pillow  # noqa: PLC0415 - see open_picture
    from PIL import ImageOps  # noqa: PLC0415

    return ImageOps.fit(image, image_size[::-1], Pillow.Resampling.LANCZOS)


def _latent_mask(mask: Image, image_size: tuple[int, int], latent_shape: tuple[int, int, int]) -> F32:
    """Round a mask to black and white, and take the pixel at each latent's upper left corner, as diffusers does."""
    white = np.asarray(_fitted(mask.convert("L"), image_size)) >= _HALF
    stride = image_size[0] // latent_shape[1]
    latent = white[::stride, ::stride].astype(np.float32)
    if not latent.any():
        _log.warning("the mask has no white, or not as much as the latents can show: nothing is painted anew")
    return latent[np.newaxis, np.newaxis]


def _in_short(error: Exception) -> str:
    """Return a decoder's complaint without the path, which the message names already."""
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    return "it is none of " + ", ".join(FORMATS) if "cannot identify" in str(error) else str(error)
