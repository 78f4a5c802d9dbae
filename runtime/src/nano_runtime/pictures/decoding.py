"""Opens pictures that strangers made: the one place where Pillow reads bytes, and where its errors become ours."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from nano_runtime.errors import NanoError, PictureFileError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

__all__ = ["FORMATS", "as_ours", "check_readable", "opened", "upright"]

FORMATS: Final = ("PNG", "JPEG", "WEBP")
_MOST_BYTES: Final = 64 << 20
_MOST_PIXELS: Final = 64 << 20  # 200 MB once decoded
_ORIENTATION: Final = 0x0112  # EXIF's tag

Fail = Callable[[str], NanoError]
"""Makes an error of ours, given why."""


@contextmanager
def as_ours(fail: Fail) -> Iterator[None]:
    """Raise an error of ours for any that a decoder raises.

    Which ones a damaged file causes is written nowhere: beside OSError and SyntaxError there are TypeError, KeyError,
    struct.error, RecursionError and others.

    Raises:
        PictureFileError: a file cannot be opened.
    """
    try:
        yield
    except (NanoError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # what a decoder reads is open already
            raise PictureFileError(Path(error.filename), error.errno) from error
        raise fail(_in_short(error)) from error


def check_readable(path: Path) -> None:
    """Look whether a file is there, without opening it: what a pipe holds can be read once.

    Raises:
        PictureFileError: it is not, or is a folder.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise PictureFileError(path, error.errno) from error
    if stat.S_ISDIR(about.st_mode):
        raise PictureFileError(path, errno.EISDIR)


@contextmanager
def opened(file: BinaryIO, fail: Fail) -> Iterator[ImageFile]:
    """Give a PNG, JPEG or WebP picture with all its pixels, unless it is damaged or too large.

    Args:
        file: one that cannot seek, such as a pipe, is read to its end.
        fail: makes the error of what goes wrong in here, and in the block that uses the picture.
    """
    from PIL import Image  # noqa: PLC0415 - callers without a picture need no Pillow

    with as_ours(fail):
        if not file.seekable():
            file = BytesIO(file.read(_MOST_BYTES + 1))
        if (size := file.seek(0, os.SEEK_END)) > _MOST_BYTES:
            raise fail(f"{size / 1e6:.0f} MB are more than the {_MOST_BYTES / 1e6:.0f} allowed")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a size above Pillow's limit, ours is lower; of damaged EXIF
            with Image.open(file, formats=FORMATS) as image:
                if (pixels := image.width * image.height) > _MOST_PIXELS:
                    most = f"{_MOST_PIXELS / 1e6:.0f}"
                    raise fail(f"{pixels / 1e6:.0f} megapixels are more than the {most} allowed")
                image.load()  # text chunks may come after the pixels
                yield image


def upright(image: Image) -> Image:
    """Return a picture turned as its EXIF says.

    ``ImageOps.exif_transpose`` also writes the EXIF anew, which fails for what it cannot write. EXIF that cannot be
    read says nothing.
    """
    from PIL.Image import Transpose  # noqa: PLC0415 - see opened

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - see as_ours
        orientation = None
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return image.copy() if turn is None else image.transpose(turn)


def _in_short(error: Exception) -> str:
    """Return a decoder's complaint without the path, which the message names already."""
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    if "cannot identify" in str(error):
        return f"it is none of {', '.join(FORMATS)}"
    return str(error).strip() or f"its pixels cannot be read ({type(error).__name__})"
