"""``--preview FILE``: a file that shows the picture after every UNet call; it is complete at any moment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nano_runtime.bundle.wiring import PREVIEW_DECODER
from nano_runtime.cli.output import Output
from nano_runtime.errors import NoPreviewError, OutputNameError

if TYPE_CHECKING:
    from nano_runtime.bundle.folder import Bundle
    from nano_runtime.cli.desk import Desk
    from nano_runtime.drawing.events import Progress

__all__ = ["Preview"]


@dataclass(frozen=True)
class Preview:
    """A file to watch while pictures are drawn.

    Attributes:
        path: of a PNG file.
    """

    path: Path

    @classmethod
    def plan(cls, path: Path, bundle: Bundle, *, force: bool) -> Preview:
        """Find out before the work begins whether there can be one.

        Raises:
            NoPreviewError: the bundle has neither a matrix nor a decoder for it.
            OutputNameError: the name does not end in .png.
            OutputExistsError: the file exists and ``force`` is False.
            OutputError: its folder is missing or not writable.
        """
        if bundle.manifest.preview is None and PREVIEW_DECODER not in bundle.manifest.components:
            raise NoPreviewError
        if path.is_dir() or path.suffix.lower() != ".png":
            raise OutputNameError(path, "PNG file")
        Output.plan(path, 1, force=force)
        return cls(path)

    def write(self, progress: Progress, desk: Desk) -> None:
        """Show the pictures that are being drawn now, side by side in a square, in a file that the desk writes.

        Raises:
            OutputError: the disk is full, or the folder went away.
        """
        from nano_runtime.pictures.picture_files import picture_bytes
        from nano_runtime.pictures.sheet import contact_sheet

        images = progress.preview()
        sheet = contact_sheet(images, math.ceil(math.sqrt(len(images))))
        desk.write(self.path, picture_bytes(sheet, self.path, None))
