"""A picture to start from: opened with care, brought to the bundle's size, and its mask to that of the latents."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F32, U8
from nano_runtime.bundle.wiring import Task
from nano_runtime.errors import (
    ImageError,
    MaskSizeError,
    MissingArgumentError,
    NoPictureError,
    OtherTaskError,
)
from nano_runtime.pictures.decoding import as_ours, opened, upright
from nano_runtime.values import checked_strength
from nano_runtime.values import path as path_of
from nano_runtime.values import picture as require_picture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Edit", "edit_of", "opaque", "open_picture", "strength_of"]

_STRENGTH, _STRENGTH_WITH_MASK = 0.8, 1.0  # diffusers' defaults
_WHITE = 255
_HALF = 128  # of 255: from here on a mask is white, as diffusers rounds it

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Edit:
    """A picture to start from, and how far to change it.

    Attributes:
        pixels: uint8 [height, width, 3], of the bundle's size.
        task: of the bundle.
        mask: float32 [1, 1, h, w] for latents of that size, 1 where they are drawn anew and 0 where they stay; None
            draws all of them anew.
        shown: float32 [height, width, 1], 1 where the drawn picture is shown and 0 where these pixels are; None shows
            the drawn one everywhere.
        hidden: bool [height, width], True where a UNet made for inpainting must not see the picture; None for others.
        strength: the share of the steps that is run, in (0, 1]; the larger, the less is left of the picture. None for
            UNets that see the picture and start from noise.
    """

    pixels: U8
    task: Task
    mask: F32 | None
    shown: F32 | None
    hidden: NDArray[np.bool_] | None
    strength: float | None

    @property
    def sample(self) -> F32:
        """Return the VAE encoder's input, float32 [1, 3, height, width] in [-1, 1], as ``VaeImageProcessor`` has it."""
        unit = self.pixels.astype(np.float32) / np.float32(255)
        return np.ascontiguousarray(unit.transpose(2, 0, 1)[np.newaxis] * np.float32(2) - np.float32(1))

    @property
    def seen(self) -> F32 | None:
        """Return the picture that the UNet sees, gray where it is hidden, like ``sample``; None if it sees none."""
        if self.hidden is not None:
            return np.where(self.hidden, np.float32(0), self.sample)
        return self.sample if self.task == "instruct-pix2pix" else None

    def pasted(self, drawn: F32) -> F32:
        """Return drawn pictures with the pixels that stay, both float32 [n, height, width, 3] in [0, 1]."""
        if self.shown is None:
            return drawn
        own = self.pixels.astype(np.float32) / np.float32(255)
        joined: F32 = drawn * self.shown + own * (1 - self.shown)
        return joined

    @property
    def is_start(self) -> bool:
        """Whether drawing needs the picture's own latents: not for a UNet that sees it and starts from noise."""
        return self.task == "text-to-image" or (self.strength is not None and self.strength < 1)

    @property
    def from_noise(self) -> bool:
        """Whether drawing starts at pure noise: if nothing else is asked for, with a mask or an instruction."""
        return self.strength is None or (self.mask is not None and self.strength == 1)

    @property
    def digest(self) -> str:
        """Return the lower-case hex sha256 of pixels and mask, which names the edited picture."""
        mask = b"" if self.mask is None else self.mask.tobytes()
        hidden = b"" if self.hidden is None else np.packbits(self.hidden).tobytes()
        return hashlib.sha256(self.pixels.tobytes() + mask + hidden).hexdigest()


def open_picture(source: str | Path | bytes | BinaryIO) -> Image:
    """Read a PNG, JPEG or WebP picture and turn it upright, as its EXIF orientation says.

    Args:
        source: path of a file, a file's content, or an open binary file.

    Raises:
        ImageError: it cannot be read, is of another format, is damaged, or is larger than 64 MiB or 67 megapixels.
        OptionError: the source is neither.
    """
    name = str(source) if isinstance(source, (str, Path)) else "the picture"

    def fail(why: str) -> ImageError:
        return ImageError(name, why)

    if isinstance(source, bytes):
        return _decoded(BytesIO(source), fail)
    if hasattr(source, "read") and hasattr(source, "seekable"):
        return _decoded(cast("BinaryIO", source), fail)
    path = path_of("source", source)
    with as_ours(fail), path.open("rb") as file:
        return _decoded(file, fail)


def edit_of(
    image: Image | None,
    mask_image: Image | None,
    strength: float | None,
    image_size: tuple[int, int],
    latent_shape: tuple[int, int, int],
    *,
    keep_unmasked: float | None = None,
    task: Task = "text-to-image",
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
        keep_unmasked: radius in pixels of the blur with which kept pixels meet drawn ones; None keeps no pixels.
        task: of the bundle.

    Returns:
        None if there is no picture.

    Raises:
        NoPictureError: the bundle's UNet sees a picture, or a mask, and there is none.
        OtherTaskError: the bundle has no use for a mask or a strength.
        MissingArgumentError: a mask or a strength without a picture.
        MaskSizeError: picture and mask differ in size.
        StrengthError: the strength is not in (0, 1].
        ImageError: an argument is not a Pillow image.
    """
    _check_task(task, image, mask_image, strength)
    if image is None:
        for name, value in (("mask_image", mask_image), ("strength", strength), ("keep_unmasked", keep_unmasked)):
            if value is not None:
                raise MissingArgumentError(name, "image")
        return None
    share = None if task == "instruct-pix2pix" else strength_of(strength, masked=mask_image is not None)
    require_picture("image", image)
    pixels = np.asarray(_fitted(opaque("image", image, "white"), image_size))
    if mask_image is None:
        if keep_unmasked is not None:
            raise MissingArgumentError("keep_unmasked", "mask_image")
        return Edit(pixels, task, None, None, None, share)
    require_picture("mask_image", mask_image)
    if mask_image.size != image.size:
        raise MaskSizeError(mask_image.size, image.size)
    white = _white(opaque("mask_image", mask_image, "black"), image_size)
    shown = None if keep_unmasked is None else _shown(white, keep_unmasked)
    hidden = white if task == "inpainting" else None
    return Edit(pixels, task, _latent_mask(white, latent_shape), shown, hidden, share)


def strength_of(strength: float | None, *, masked: bool) -> float:
    """Return the strength, for None diffusers' default: 0.8 for a picture and 1 for one with a mask.

    Raises:
        StrengthError: it is not in (0, 1].
    """
    return checked_strength((_STRENGTH_WITH_MASK if masked else _STRENGTH) if strength is None else strength)


def _check_task(task: Task, image: Image | None, mask_image: Image | None, strength: float | None) -> None:
    """Refuse a call that lacks a picture that the UNet sees, or has an option of another kind of bundle."""
    if task == "inpainting" and (image is None or mask_image is None):
        raise NoPictureError(
            task, [name for name, given in (("image", image), ("mask_image", mask_image)) if given is None]
        )
    if task == "instruct-pix2pix":
        if image is None:
            raise NoPictureError(task, ["image"])
        for name, value in (("mask_image", mask_image), ("strength", strength)):
            if value is not None:
                raise OtherTaskError(name, task)


def _decoded(file: BinaryIO, fail: Callable[[str], ImageError]) -> Image:
    with opened(file, fail) as image:
        return upright(image)


def opaque(argument: str, image: Image, background: str) -> Image:
    """Return the picture in RGB, on a background where it is transparent; 16 bits a channel become 8.

    Raises:
        ImageError: it has no pixels, or cannot be converted: its file is closed, its palette damaged.
    """
    if 0 in image.size:
        raise ImageError(argument, "it has no pixels")
    with as_ours(lambda why: ImageError(argument, why)):
        return _in_rgb(image, background)


def _in_rgb(image: Image, background: str) -> Image:
    from PIL import Image as Pillow  # noqa: PLC0415 - drawing without a picture needs no Pillow

    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        of_16_bits = image.mode != "I" or values.max() > _WHITE  # Pillow's own 32 bits have both
        return Pillow.fromarray((values >> 8 if of_16_bits else values).clip(0, _WHITE).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        _check_floats(np.asarray(image))
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Pillow.alpha_composite(Pillow.new("RGBA", image.size, background), layer).convert("RGB")


def _check_floats(values: NDArray[np.float32]) -> None:
    """Warn of a picture of floats that is nearly black, where 255 is white.

    Raises:
        ValueError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    if 0 < values.max() <= 1:
        _log.warning("the picture has no value above 1, which is nearly black: 255 is white")


def _fitted(image: Image, image_size: tuple[int, int]) -> Image:
    """Cover the size (height, width) and crop around the centre; a picture of that size stays as it is."""
    from PIL import Image as Pillow  # noqa: PLC0415 - see _in_rgb
    from PIL import ImageOps  # noqa: PLC0415

    return ImageOps.fit(image, image_size[::-1], Pillow.Resampling.LANCZOS)


def _white(mask: Image, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Round a mask to black and white: bool [height, width], True where it is white."""
    white: NDArray[np.bool_] = np.asarray(_fitted(mask.convert("L"), image_size)) >= _HALF
    return white


def _shown(white: NDArray[np.bool_], blur: float) -> F32:
    """Return how much of the drawn picture each pixel shows, softly where black meets white: [height, width, 1]."""
    from PIL import Image as Pillow  # noqa: PLC0415 - see _in_rgb
    from PIL import ImageFilter  # noqa: PLC0415

    mask = Pillow.fromarray(white.astype(np.uint8) * np.uint8(255)).filter(ImageFilter.GaussianBlur(blur))
    shown: F32 = np.asarray(mask, np.float32)[..., np.newaxis] / np.float32(255)
    return shown


def _latent_mask(white: NDArray[np.bool_], latent_shape: tuple[int, int, int]) -> F32:
    """Take the pixel at each latent's upper left corner, as diffusers does: float32 [1, 1, h, w]."""
    stride = white.shape[0] // latent_shape[1]
    latent = white[::stride, ::stride].astype(np.float32)
    if not latent.any():
        _log.warning("the mask has no white, or not as much as the latents can show: nothing is painted anew")
    return latent[np.newaxis, np.newaxis]
