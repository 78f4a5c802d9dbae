"""Enlarges a picture as A1111's ``extra-single-image`` does, by Lanczos or by repeating pixels.

Defaults and sizes are those of Forge's ``modules/api/models.py`` and ``scripts/postprocessing_upscale.py`` (dfdcbab).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Final

import msgspec

from nano_serve.errors import BadRequestError
from nano_serve.fit import Size, encoded
from nano_serve.http.a1111_shapes import UpscaleRequest
from nano_serve.http.bodies import picture_of
from nano_serve.notes import MOST_SHOWN

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["enlarged"]

_METHODS: Final = {"lanczos": 1, "nearest": 0}  # PIL.Image.Resampling
_KNOWN: Final = frozenset(UpscaleRequest.__struct_fields__)
_NO_MATTER: Final = frozenset({"show_extras_results", "upscale_first", "codeformer_weight"})  # without the other two
_FACTOR, _SIDE = 2.0, 512.0
_MOST_PIXELS: Final = 16_777_216


def enlarged(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return a picture enlarged, in base64; without a method it stays as it is. ``html_info`` says what was not done.

    Args:
        fields: of the body.

    Raises:
        msgspec.ValidationError: a value is not of its field's kind.
        UsageError: by another method, or to a size that is none.
    """
    body = msgspec.convert(fields, UpscaleRequest, strict=False)
    notes = [
        f"{name[:MOST_SHOWN]}={str(value)[:MOST_SHOWN]} is not done here"
        for name, value in fields.items()
        if name not in _KNOWN and value and name not in _NO_MATTER
    ]
    first, second = _method(body.upscaler_1), _method(body.upscaler_2)
    image = picture_of(body.image, "image")
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")  # palettes, 16 bits and CMYK, too
    share = body.extras_upscaler_2_visibility or 0.0
    if not 0 <= share <= 1:
        raise BadRequestError(f"extras_upscaler_2_visibility={share}", "Give a number from 0 to 1.")
    if first is not None:
        larger = _larger(body, image, first)
        if second is not None and share > 0:
            from PIL import Image as Pillow  # noqa: PLC0415 - see fit

            larger = Pillow.blend(larger, _larger(body, image, second), share)
        image = larger
    return {"image": base64.b64encode(encoded(image, None)).decode(), "html_info": escape("; ".join(notes))}


def _method(name: str | None) -> int | None:
    """Return Pillow's number of a method; None for none.

    Raises:
        BadRequestError: there is no such method here.
    """
    if name is None or name.lower() in {"", "none"}:
        return None
    if name.lower() not in _METHODS:
        raise BadRequestError(f"there is no upscaler {name[:40]!r}", "There are Lanczos and Nearest.")
    return _METHODS[name.lower()]


def _larger(body: UpscaleRequest, image: Image, method: int) -> Image:
    """Return a picture by a factor, or covering a size; what juts out is cropped unless the request says otherwise."""
    if body.resize_mode not in {None, 0, 1}:
        raise BadRequestError(f"resize_mode={body.resize_mode}", "Give 0 for a factor, or 1 for a size.")
    if body.resize_mode != 1:
        factor = _FACTOR if body.upscaling_resize is None else float(body.upscaling_resize)
        return image.resize(_size(image, factor), method)
    target = (body.upscaling_resize_w, body.upscaling_resize_h)
    width, height = (_SIDE if side is None else float(side) for side in target)
    if not (1 <= width <= _MOST_PIXELS and 1 <= height <= _MOST_PIXELS):
        raise BadRequestError(f"the size {width:g}x{height:g} is out of range", "Give pixels, 1 at least.")
    larger = image.resize(_size(image, max(width / image.width, height / image.height)), method)
    if body.upscaling_crop is False:
        return larger
    left, top = (larger.width - int(width)) // 2, (larger.height - int(height)) // 2
    return larger.crop((left, top, left + int(width), top + int(height)))


def _size(image: Image, factor: float) -> Size:
    """Return the size of a picture times a factor.

    Raises:
        BadRequestError: it is none, or larger than is made here.
    """
    if not 0 < factor <= _MOST_PIXELS:
        raise BadRequestError(f"upscaling_resize={factor}", "Give a number above 0.")
    width, height = round(image.width * factor), round(image.height * factor)
    if not (width >= 1 and height >= 1 and width * height <= _MOST_PIXELS):
        raise BadRequestError(f"the size {width}x{height} is out of range", "Ask for 16 megapixels at most.")
    return width, height
