"""Reads what requests send: JSON within limits of size, depth and time, and pictures in base64."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from nano_runtime import open_picture
from nano_serve.errors import BadRequestError, TooLargeError, TooSlowError, WrongTypeError
from nano_serve.notes import MOST_SHOWN

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SECONDS", "SMALL", "WITH_PICTURES", "body_of", "json_of", "misshapen", "picture_bytes", "picture_of"]

SMALL: Final = 1_000_000
"""Bytes of a body without pictures."""

WITH_PICTURES: Final = 32_000_000
"""Bytes of a body with pictures."""

SECONDS = 30.0
"""For a whole body."""
_MOST_DEPTH: Final = 32
_MOST_VALUES: Final = 100_000
_QUICK: Final = 100_000  # bytes that are read without a thread of their own
_STRINGS: Final = re.compile(rb'"[^"]*"')
_BRACKETS: Final = re.compile(rb"[\[\]{}]")
_URL: Final = re.compile(r"data:image/[a-z+.-]{1,20};base64,", re.IGNORECASE)
_LINKS: Final = ("http:", "https:", "file:", "ftp:", "blob:")

Shape = TypeVar("Shape")


async def body_of(request: Request, most: int) -> bytes:
    """Return the body.

    Args:
        request: to read.
        most: bytes.

    Raises:
        TooLargeError: it is larger.
        TooSlowError: it does not come in time.
    """
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length[:20]) > most:
        raise TooLargeError(most)
    parts: list[bytes] = []
    size = 0

    async def read() -> None:
        nonlocal size
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise TooLargeError(most)
            parts.append(part)

    try:
        await asyncio.wait_for(read(), SECONDS)
    except asyncio.TimeoutError:
        raise TooSlowError(SECONDS) from None
    except ClientDisconnect:
        raise TooSlowError(SECONDS) from None
    return b"".join(parts)


async def json_of(request: Request, shape: type[Shape], most: int = SMALL, *, lenient: bool = False) -> Shape:
    """Return a JSON body in its shape.

    Args:
        request: to read.
        shape: a msgspec type.
        most: bytes.
        lenient: takes "512" and 512.0 for 512, as programs of the compatible APIs send them; an empty body is ``{}``.

    Raises:
        WrongTypeError: it is not sent as JSON.
        BadRequestError: it is none, or not in this shape.
        TooLargeError: it is larger.
        TooSlowError: it does not come in time.
    """
    content = await body_of(request, most)
    if not content and lenient:
        content = b"{}"
    elif request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise WrongTypeError("application/json")
    if len(content) > _QUICK:
        return await asyncio.to_thread(_decoded, content, shape, lenient=lenient)
    return _decoded(content, shape, lenient=lenient)


def _decoded(content: bytes, shape: type[Shape], *, lenient: bool) -> Shape:
    """Return JSON in its shape; see ``json_of``."""
    _check_size(content)
    try:
        found = msgspec.json.decode(content, type=shape, strict=not lenient)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise misshapen(error) from None
    try:
        json.loads(content.decode(), strict=False, object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise misshapen(error) from None
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a dictionary of keys that all differ: of two values of one key, msgspec takes the last without a word.

    Raises:
        BadRequestError: a key stands there twice.
    """
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise BadRequestError(f"the key {key[:MOST_SHOWN]!r} stands in the body twice", "Send it once.")
        found[key] = value
    return found


def misshapen(error: Exception) -> BadRequestError:
    """Return the error of a body that is no JSON, or not in its shape."""
    why = str(error) or type(error).__name__
    return BadRequestError(f"the body is not as it should be: {why[:300]}", "See /openapi.json.")


def picture_bytes(text: str, name: str) -> bytes:
    """Return the file that base64 or a data URL holds.

    Raises:
        BadRequestError: it is neither.
    """
    if text[:10].lower().startswith(_LINKS):
        raise BadRequestError(f"{name} is a link", "Send the picture itself in base64: this server fetches nothing.")
    found = _URL.match(text)
    try:
        return base64.b64decode("".join((text if found is None else text[found.end() :]).split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequestError(f"{name} is not base64", "Send a PNG, JPEG or WebP file in base64.") from None


def picture_of(text: str, name: str) -> Image:
    """Return the picture that base64 or a data URL holds.

    Raises:
        UsageError: it is none, is damaged, or too large.
    """
    return open_picture(picture_bytes(text, name))


def _check_size(content: bytes) -> None:
    """Refuse JSON that is nested deeper than any of ours, or has more values, in time that grows with its length alone.

    Raises:
        BadRequestError: it is.
    """
    depth = 0
    plain = content.replace(b"\\\\", b"").replace(b'\\"', b"")  # without escapes, so that one pass finds the strings
    plain = _STRINGS.sub(b"", plain)
    if plain.count(b",") > _MOST_VALUES:
        raise BadRequestError("the body has too many values", "See /openapi.json.")
    for bracket in _BRACKETS.findall(plain):
        depth += 1 if bracket in b"[{" else -1
        if depth > _MOST_DEPTH:
            raise BadRequestError("the body is nested too deeply", "See /openapi.json.")
