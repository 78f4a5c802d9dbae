"""Reads the multipart forms of edits: a picture, perhaps a mask, and fields that are text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message

from nano_runtime import open_picture
from nano_serve.errors import BadRequestError, WrongTypeError
from nano_serve.http.bodies import WITH_PICTURES, body_of
from nano_serve.http.openai_fields import understood
from nano_serve.http.openai_shapes import ImagesRequest
from nano_serve.notes import MOST_SHOWN

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EditForm", "edit_form_of"]

_MOST_FIELDS, _MOST_FILES = 100, 20
_MOST_FIELD_BYTES: Final = 100_000
_PICTURES: Final = ("image", "image[]")


@dataclass(frozen=True)
class EditForm:
    """A request to edit.

    Attributes:
        body: its text.
        notes: on fields that change nothing here.
        image: file of the picture.
        mask: file of the mask; None for none.
    """

    body: ImagesRequest
    notes: tuple[str, ...]
    image: bytes
    mask: bytes | None

    def pictures(self) -> dict[str, Any]:
        """Return the options of a call that concern the picture.

        OpenAI's masks are transparent where the picture is drawn anew; ours, and those that are opaque all over, are
        white there. Without a mask, a picture's own transparent parts are drawn anew, if it has any.

        Raises:
            ImageError: a file is no picture.
        """
        image = open_picture(self.image)
        white: Image | None
        if self.mask is not None:
            mask = open_picture(self.mask)
            white = _white_where_transparent(mask) if _is_seen_through(mask) else mask
        else:
            white = _white_where_transparent(image) if image.has_transparency_data else None
            white = None if white is None or white.getbbox() is None else white
        if white is None:
            return {"image": image}
        return {"image": image, "mask_image": white, "keep_unmasked": True}


async def edit_form_of(request: Request) -> EditForm:
    """Return the form.

    Raises:
        WrongTypeError: it is sent as something else.
        BadRequestError: it cannot be read, or has not one picture.
        TooLargeError: it is larger than a request may be.
        TooSlowError: it does not come in time.
    """
    content = await body_of(request, WITH_PICTURES)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise WrongTypeError("multipart/form-data")
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary", b"")
    if boundary and b"--" + boundary + b"--" not in content:  # what its last part has would be left out without a word
        raise BadRequestError("the form ends before its end", "Send all of it, with the boundary that ends it.")
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    again = Request(request.scope, receive)
    try:
        async with again.form(max_fields=_MOST_FIELDS, max_files=_MOST_FILES, max_part_size=_MOST_FIELD_BYTES) as form:
            return await _read(form)
    except (HTTPException, MultiPartException, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, BadRequestError):
            raise
        why = getattr(error, "detail", "") or getattr(error, "message", "") or str(error)
        raise BadRequestError(f"the form cannot be read: {why[:200]}", "See OpenAI's images API.") from None


async def _read(form: FormData) -> EditForm:
    """Take the form apart."""
    files: dict[str, list[bytes]] = {}
    texts: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault("image" if name in _PICTURES else name, []).append(await value.read())
        elif texts.setdefault(name, value) != value:
            raise BadRequestError(f"the form has two values of {name[:MOST_SHOWN]!r}", "Send one.")
    images, masks = files.pop("image", []), files.pop("mask", [])
    if len(images) != 1:
        raise BadRequestError(f"the form has {len(images)} pictures", "Send one, as the file 'image' or 'image[]'.")
    if len(masks) > 1:
        raise BadRequestError(f"the form has {len(masks)} masks", "Send one, as the file 'mask'.")
    try:
        body, notes = understood(texts)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"the form is not as it should be: {error}", "See OpenAI's images API.") from None
    others = [f"the file {name[:MOST_SHOWN]!r} changes nothing here" for name in files]
    return EditForm(body, (*notes, *others), images[0], masks[0] if masks else None)


def _is_seen_through(image: Image) -> bool:
    """Return whether any part is not opaque: programs that draw masks on a canvas send an alpha channel in any case."""
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _white_where_transparent(image: Image) -> Image:
    """Return a mask that is white where a picture is fully transparent, and black elsewhere."""
    return image.convert("RGBA").getchannel("A").point(lambda alpha: 255 if alpha == 0 else 0)
