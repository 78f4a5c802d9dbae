"""PNG files that remember how they were drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nano_runtime.errors import NoParametersError
from nano_runtime.pictures.parameters import Parameters
from nano_runtime.system.files import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

__all__ = ["read_parameters", "save_png"]


def save_png(image: Image, target: str | Path | BinaryIO, parameters: Parameters | None = None) -> None:
    """Write a PNG; a file appears under its name only when it is complete, and replaces one of that name.

    Args:
        image: the picture.
        target: path of the file, or a binary file to write into.
        parameters: written into the file as the text chunks ``parameters`` (for people) and ``nano`` (JSON, for
            ``read_parameters``); None writes neither.

    Raises:
        OutputError: the folder of a path is missing, full, or not writable.
    """
    chunks = None if parameters is None else _chunks(parameters)

    def write(file: BinaryIO) -> None:
        image.save(file, format="PNG", pnginfo=chunks)

    if isinstance(target, (str, Path)):
        write_whole(Path(target), write)
    else:
        write(target)


def read_parameters(path: str | Path) -> Parameters:
    """Read the parameters that ``save_png`` wrote into a file.

    Raises:
        NoParametersError: the file cannot be read, is not a PNG, or carries no parameters of ours.
    """
    from PIL import Image  # noqa: PLC0415 - drawing arrays needs no Pillow

    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()  # text chunks may come after the pixels
            text = image.info.get("nano")
    except (OSError, SyntaxError, ValueError) as error:
        raise NoParametersError(Path(path), str(error)) from error
    if text is None:
        raise NoParametersError(Path(path), "there is no text chunk named 'nano'")
    try:
        return Parameters.from_json(text.encode())
    except ValueError as error:  # msgspec's errors are
        raise NoParametersError(Path(path), str(error)) from error


def _chunks(parameters: Parameters) -> PngInfo:
    """Return both text chunks, as iTXt because that is the UTF-8 one."""
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415 - see read_parameters

    chunks = PngInfo()
    chunks.add_itxt("parameters", parameters.as_text())
    chunks.add_itxt("nano", parameters.as_json().decode())
    return chunks
