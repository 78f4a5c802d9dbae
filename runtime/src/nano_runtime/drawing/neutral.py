"""A plain picture and mask for calls that are about speed or safety, of bundles that do not draw without them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nano_runtime.bundle.manifest import Manifest
from nano_runtime.options import DrawOptions

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["with_plain_pictures"]

_GRAY, _WHITE = 128, 255


def with_plain_pictures(options: DrawOptions, manifest: Manifest) -> DrawOptions:
    """Add the pictures that a bundle needs: a gray one, and for inpainting a mask that is all white.

    A UNet made for inpainting then draws from the prompt alone. A bundle that needs no picture gets none.
    """
    if manifest.task == "text-to-image":
        return options
    mask = _plain(manifest, _WHITE) if manifest.task == "inpainting" else None
    return replace(options, image=_plain(manifest, _GRAY), mask_image=mask)


def _plain(manifest: Manifest, value: int) -> Image:
    """Return a picture of one gray in the bundle's size."""
    from PIL import Image as Pillow  # noqa: PLC0415 - callers without a picture need no Pillow

    height, width = manifest.image_size
    return Pillow.new("RGB", (width, height), (value, value, value))
