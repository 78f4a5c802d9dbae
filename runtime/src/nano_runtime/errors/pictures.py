"""Errors of pictures that are read, to start from or to draw again: exit code 2."""

from __future__ import annotations

import errno
import os
from difflib import get_close_matches
from pathlib import Path

from nano_runtime.errors.branches import UsageError

__all__ = [
    "ImageError",
    "MaskSizeError",
    "NoOriginalError",
    "NoParametersError",
    "OtherBundleError",
    "PictureFileError",
]


class ImageError(UsageError):
    """A picture to start from, or a mask, that cannot be used."""

    def __init__(self, name: str, why: str, hint: str = "Give a PNG, JPEG or WebP picture.") -> None:
        super().__init__(f"{name} cannot be used: {why}", hint)


class MaskSizeError(UsageError):
    """A mask of another size than its picture."""

    def __init__(self, mask: tuple[int, int], picture: tuple[int, int]) -> None:
        sizes = [f"{width} x {height}" for width, height in (mask, picture)]
        super().__init__(
            f"the mask has {sizes[0]} pixels and its picture {sizes[1]}",
            "Give a mask of the picture's own size, white where it is to be painted anew.",
        )


class NoParametersError(UsageError):
    """A picture without the parameters with which it was drawn."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} holds no drawing parameters: {why}",
            "Give a picture, but no sheet, that nano-generate wrote without --no-metadata, "
            "or one of A1111, sd.cpp or InvokeAI.",
        )


class OtherBundleError(UsageError):
    """A picture to repeat that another bundle drew."""

    def __init__(self, picture: Path, name: str, digest: str, bundle: Path) -> None:
        super().__init__(
            f"{picture} was drawn by the bundle {name} ({digest[:10]}), and {bundle} is another",
            "With --bundle, give the bundle that drew it, or the one that should draw it now.",
        )


class NoOriginalError(UsageError):
    """A picture to repeat that was drawn from a picture."""

    def __init__(self, picture: Path) -> None:
        super().__init__(
            f"{picture} was drawn from another picture, which it does not hold",
            "Give that picture with --image, and its mask, if it had one, with --mask.",
        )


class PictureFileError(ImageError, NoParametersError):
    """A picture's file that cannot be opened, whether to start from it or to draw it again."""

    def __init__(self, path: Path, number: int | None) -> None:
        why = "it cannot be read" if number is None else os.strerror(number)
        UsageError.__init__(self, f"{path} cannot be opened: {why}", _hint(path, number))


def _hint(path: Path, number: int | None) -> str:
    """Say what to do about a file that cannot be opened, with the name that was probably meant."""
    if number == errno.EISDIR:
        return "Give the name of a picture in that folder."
    if number != errno.ENOENT:
        return "Give a file that this user may read."
    try:
        there = [one.name for one in path.parent.iterdir()]
    except FileNotFoundError:
        return f"There is no folder {path.parent}."
    except OSError:
        there = []
    stems = {Path(name).stem: name for name in there}  # nearly all names end alike
    if nearest := get_close_matches(path.stem, stems, 1):
        return f"Did you mean {path.with_name(stems[nearest[0]])}?"
    return "Check the name." if path.is_absolute() else f"Check the name: it is looked up in {Path.cwd()}."
