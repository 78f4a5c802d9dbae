"""PNG files that remember how they were drawn."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from nano_runtime.errors import ImageError, NoParametersError, OptionError
from nano_runtime.errors.escaping import first_line
from nano_runtime.pictures.decoding import as_ours, opened
from nano_runtime.pictures.foreign import Foreign, foreign_of
from nano_runtime.pictures.parameters import Parameters
from nano_runtime.system.files import write_whole
from nano_runtime.values import path as path_of
from nano_runtime.values import picture as require_picture

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

__all__ = ["EXIF_IFD", "MAKER_NOTE", "USER_COMMENT", "parameters_in", "read_foreign", "read_parameters", "save_png"]

EXIF_IFD: Final = 0x8769
"""The EXIF tag of the part with the next one, in pictures that are no PNG."""

MAKER_NOTE: Final = 0x927C
"""The EXIF tag that holds the JSON in them; viewers leave a maker's notes alone."""

USER_COMMENT: Final = 0x9286
"""The EXIF tag for A1111's text, of Exif 2.3; A1111 writes it there, too."""

OURS: Final = "nano"
"""The name of the text chunk that holds the JSON."""


def save_png(image: Image, target: str | Path | BinaryIO, parameters: Parameters | None = None) -> None:
    """Write a PNG; a file appears under its name only when it is complete, and replaces one of that name.

    Args:
        image: the picture.
        target: path of the file, or a binary file to write into.
        parameters: written into the file as the text chunks ``parameters`` (for people) and ``nano`` (JSON, for
            ``read_parameters``); None writes neither.

    Raises:
        OutputError: the folder of a path is missing, full, or not writable.
        ImageError: the picture is none, or a PNG cannot hold it.
        OptionError: another argument is not what it should be.
    """
    require_picture("image", image)
    if not (parameters is None or isinstance(parameters, Parameters)):
        raise OptionError("parameters", parameters, "one of Result.parameters, or None")
    chunks, content = None if parameters is None else _chunks(parameters), BytesIO()
    with as_ours(lambda why: ImageError("image", why, "Convert it first: image.convert('RGB').")):
        image.save(content, format="PNG", pnginfo=chunks)
    if not hasattr(target, "write"):
        write_whole(path_of("target", target), lambda file: file.write(content.getbuffer()))
        return
    try:
        cast("BinaryIO", target).write(content.getbuffer())
    except (TypeError, ValueError) as error:  # of texts, and of files that are closed or open for reading
        raise OptionError("target", target, "a path, or a binary file that is open for writing") from error


def read_parameters(path: str | Path) -> Parameters:
    """Read the parameters that ``save_png`` or the command wrote into a PNG, JPEG or WebP.

    Raises:
        NoParametersError: the file cannot be read, is no such picture, or carries no parameters of ours.
        OptionError: the path is none.
    """
    return _parameters(path_of("path", path), None)


def parameters_in(content: bytes, path: Path) -> Parameters:
    """Read the parameters in the content of a file; see ``read_parameters``."""
    return _parameters(path, content)


def read_foreign(path: str | Path) -> Foreign:
    """Read how another program drew a PNG, JPEG or WebP.

    Raises:
        NoParametersError: the file cannot be read, is no such picture, or does not say in a form that is known here.
        OptionError: the path is none.
    """
    texts = _texts(path_of("path", path))
    try:
        found = foreign_of(texts)
    except Exception as error:  # an option that is none, and whatever a damaged text causes
        raise NoParametersError(Path(path), first_line(error)) from error
    if found is None:
        raise NoParametersError(Path(path), "no program that is known here says in it how it was drawn")
    return found


def _parameters(path: Path, content: bytes | None) -> Parameters:
    """Read the parameters of a file, whose content may be known."""
    text = _texts(path, content).get(OURS)
    if text is None:
        raise NoParametersError(path, f"there is no text chunk named '{OURS}'")
    try:
        return Parameters.from_json(text.encode())
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise NoParametersError(path, first_line(error)) from error


def _texts(path: Path, content: bytes | None = None) -> dict[str, str]:
    """Return the texts of a picture by their names; those in EXIF have the names that they have in a PNG.

    Args:
        path: of the picture.
        content: of the file; None reads it.

    Raises:
        NoParametersError: the file cannot be read, or is no such picture.
    """

    def fail(why: str) -> NoParametersError:
        return NoParametersError(path, why)

    def source() -> BinaryIO:
        return path.open("rb") if content is None else BytesIO(content)

    with as_ours(fail), source() as file, opened(file, fail) as image:
        texts = {str(name): text for name, text in image.info.items() if isinstance(text, str)}
        exif = {} if image.format == "PNG" else image.getexif().get_ifd(EXIF_IFD)
    for tag, name in ((MAKER_NOTE, OURS), (USER_COMMENT, "parameters")):
        if isinstance(note := exif.get(tag), bytes):
            encoded = note.removeprefix(b"UNICODE\0")
            texts[name] = encoded.decode("utf-8" if encoded == note else "utf-16-be", "replace")
    return texts


def _chunks(parameters: Parameters) -> PngInfo:
    """Return both text chunks, as iTXt because that is the UTF-8 one."""
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415 - drawing arrays needs no Pillow

    chunks = PngInfo()
    chunks.add_itxt("parameters", parameters.as_text())
    chunks.add_itxt(OURS, parameters.as_json().decode())
    return chunks
