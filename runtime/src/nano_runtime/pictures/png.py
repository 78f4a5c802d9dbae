"""PNG files that remember how they were drawn."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from nano_runtime.errors import NoParametersError, OptionError
from nano_runtime.errors.escaping import first_line
from nano_runtime.pictures.parameters import Parameters
from nano_runtime.system.files import write_whole
from nano_runtime.values import path as path_of
from nano_runtime.values import picture as require_picture

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

__all__ = ["EXIF_IFD", "MAKER_NOTE", "read_parameters", "save_png"]

EXIF_IFD: Final = 0x8769
"""The EXIF tag of the part with the next one, in pictures that are no PNG."""

MAKER_NOTE: Final = 0x927C
"""The EXIF tag that holds the JSON in them; viewers leave a maker's notes alone."""

_DAMAGE: Final = (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, OverflowError, struct.error)


def save_png(image: Image, target: str | Path | BinaryIO, parameters: Parameters | None = None) -> None:
    """Write a PNG; a file appears under its name only when it is complete, and replaces one of that name.

    Args:
        image: the picture.
        target: path of the file, or a binary file to write into.
        parameters: written into the file as the text chunks ``parameters`` (for people) and ``nano`` (JSON, for
            ``read_parameters``); None writes neither.

    Raises:
        OutputError: the folder of a path is missing, full, or not writable.
        ImageError: the picture is none.
        OptionError: another argument is not what it should be.
    """
    require_picture("image", image)
    if not (parameters is None or isinstance(parameters, Parameters)):
        raise OptionError("parameters", parameters, "one of Result.parameters, or None")
    chunks = None if parameters is None else _chunks(parameters)

    def write(file: BinaryIO) -> None:
        image.save(file, format="PNG", pnginfo=chunks)

    if hasattr(target, "write"):
        write(cast("BinaryIO", target))
    else:
        write_whole(path_of("target", target), write)


def read_parameters(path: str | Path) -> Parameters:
    """Read the parameters that ``save_png`` or the command wrote into a PNG, JPEG or WebP.

    Raises:
        NoParametersError: the file cannot be read, is no such picture, or carries no parameters of ours.
        OptionError: the path is none.
    """
    from PIL import Image  # noqa: PLC0415 - drawing arrays needs no Pillow

    path = path_of("path", path)
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            image.load()  # text chunks may come after the pixels
            text = image.info.get("nano")
            note = None if image.format == "PNG" else image.getexif().get_ifd(EXIF_IFD).get(MAKER_NOTE)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise NoParametersError(path, first_line(error)) from error
    content = note if text is None else text.encode()
    if not isinstance(content, bytes):
        raise NoParametersError(path, "there is no text chunk named 'nano'")
    try:
        return Parameters.from_json(content)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise NoParametersError(path, first_line(error)) from error


def _chunks(parameters: Parameters) -> PngInfo:
    """Return both text chunks, as iTXt because that is the UTF-8 one."""
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415 - see read_parameters

    chunks = PngInfo()
    chunks.add_itxt("parameters", parameters.as_text())
    chunks.add_itxt("nano", parameters.as_json().decode())
    return chunks
