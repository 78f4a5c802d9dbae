"""Pictures in the format that a file's name asks for: PNG, JPEG or WebP, each of which remembers how it was drawn."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nano_runtime.pictures.parameters import Parameters
from nano_runtime.pictures.png import EXIF_IFD, MAKER_NOTE, USER_COMMENT, save_png
from nano_runtime.system.files import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "picture_bytes", "save_picture"]

SUFFIXES: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Endings of names, in small letters, and Pillow's names of the formats."""

_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}
_MOST_EXIF_BYTES: Final = 65533 - len("Exif\0\0")  # of a JPEG, whose lengths have 16 bits

_log = logging.getLogger(__name__)


def save_picture(image: Image, path: Path, parameters: Parameters | None) -> None:
    """Write a picture in the format of its name; it appears under that name only when it is complete.

    WebP is written without loss, JPEG with quality 95 and full colour.

    Args:
        image: the picture.
        path: a name with one of ``SUFFIXES``.
        parameters: written into the file; None writes none.

    Raises:
        OutputError: the folder is missing, full, or not writable.
    """
    content = picture_bytes(image, path, parameters)
    write_whole(path, lambda file: file.write(content))


def picture_bytes(image: Image, path: Path, parameters: Parameters | None) -> bytes:
    """Return a picture as the file of this name has it; see ``save_picture``, which also writes it."""
    file = BytesIO()
    name = SUFFIXES[path.suffix.lower()]
    if name == "PNG":
        save_png(image, file, parameters)
        return file.getvalue()
    exif = b"" if parameters is None else _exif(parameters)
    if name == "JPEG" and len(exif) > _MOST_EXIF_BYTES:
        _log.warning("%s cannot hold so long a prompt; it is written without its parameters", path)
        exif = b""
    image.save(file, format=name, exif=exif, **_OPTIONS[name])
    return file.getvalue()


def _exif(parameters: Parameters) -> bytes:
    """Return the parameters as EXIF: A1111's text as the comment, JSON as the maker's note.

    Both tags have the type UNDEFINED in Exif 2.3, and readers based on piexif take no other. Pillow gives it to lists
    of what is not ``bytes``.
    """
    from PIL import Image  # noqa: PLC0415 - drawing arrays needs no Pillow

    exif = Image.Exif()
    comment = b"UNICODE\0" + parameters.as_text().encode("utf-16-be")
    exif.get_ifd(EXIF_IFD).update({USER_COMMENT: [bytearray(comment)], MAKER_NOTE: [bytearray(parameters.as_json())]})
    return exif.tobytes()
