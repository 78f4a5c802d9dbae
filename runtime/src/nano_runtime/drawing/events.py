"""The events of a drawing: its progress after every UNet call, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.drawing.stops import Stop
from nano_runtime.errors import NoPreviewError, OptionError
from nano_runtime.pictures.parameters import Parameters
from nano_runtime.pictures.picture_files import SUFFIXES, save_picture
from nano_runtime.pictures.pixels import to_pil, to_uint8
from nano_runtime.pictures.preview import colours
from nano_runtime.system.timing import Timings
from nano_runtime.values import path as path_of
from nano_runtime.values import whole

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Progress", "Result"]

_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC, without importing Pillow for those who look at no preview


@dataclass(frozen=True, eq=False)
class Progress:
    """One UNet call is done.

    Attributes:
        call: its number, from 1.
        calls: number of calls for all pictures.
        step_index: its index among the calls for these pictures, from 0.
        timestep: noise level it ran at, on the training scale.
        latents: float32 [n, *latent_shape] after it, for the n pictures drawn together. The next step starts from this
            array, with whatever was written into it.
        predicted: float32 like the latents: the pictures without noise, as the network predicts them by now.
        image_size: height and width of a picture, in pixels.
        preview_weights: float32 [channels + 1, 3], the manifest's ``preview``; None in bundles that have none.
        decode: turns latents into pixels, roughly: float32 [n, height, width, 3] in [0, 1]; None in bundles without a
            decoder for previews.
        pictures: indices of the n pictures among all of the call.
        of: number of all pictures of the call.
        stop: of the drawing.
    """

    call: int
    calls: int
    step_index: int
    timestep: float
    latents: F32
    predicted: F32
    image_size: tuple[int, int]
    preview_weights: F32 | None
    decode: Callable[[F32], F32] | None
    pictures: tuple[int, ...]
    of: int
    stop: Stop

    def cancel(self, *pictures: int) -> None:
        """Leave pictures of this drawing out, from any thread; without arguments all of them, which ends it.

        They are not decoded, and not in the result. Nothing changes for the others, not in one bit: a picture that is
        left out keeps its place in the calls that it shares, and calls that none is waiting for are not made.

        Args:
            *pictures: indices among all pictures of the call, from 0; ``pictures`` has those of this event.

        Raises:
            OptionError: there is no such picture.
        """
        chosen = [whole("pictures", picture) for picture in pictures]
        for picture in chosen:
            if not 0 <= picture < self.of:
                raise OptionError("pictures", picture, f"whole numbers from 0 to {self.of - 1}")
        self.stop.leave(chosen if pictures else range(self.of))

    def preview(self) -> list[Image]:
        """Return each picture as it looks by now, as large as it will be: a colour for each latent, enlarged.

        Bundles with a decoder for previews (``nano-export --preview-vae``) show all pixels, in a few milliseconds more.

        Raises:
            NoPreviewError: the bundle was exported without a matrix for this.
        """
        if self.decode is not None:
            return [to_pil(pixels) for pixels in to_uint8(self.decode(self.predicted))]
        if self.preview_weights is None:
            raise NoPreviewError
        small = to_uint8(colours(self.predicted, self.preview_weights))
        return [to_pil(pixels).resize(self.image_size[::-1], _BICUBIC) for pixels in small]


@dataclass(frozen=True)
class Result:
    """The pictures of a call.

    Attributes:
        images: Pillow images; float32 [n, height, width, 3] in [0, 1] for ``output_type="np"``; the final latents,
            float32 [n, *latent_shape], for ``"latent"``.
        seeds: the seed of each picture; it draws that picture again, alone (unless the call was given latents, and with
            the same image and variation if it had one).
        parameters: everything it takes to draw each picture again, as ``save`` stores it.
        timings: of the parts of the work.
        pictures: index of each among the pictures of the call: all, unless some were cancelled, or had not begun when
            it was interrupted.
    """

    images: list[Image] | F32
    seeds: tuple[int, ...]
    parameters: tuple[Parameters, ...]
    timings: Timings
    pictures: tuple[int, ...]

    def save(self, path: str | Path) -> list[Path]:
        """Write the pictures with everything it takes to draw them again, for ``read_parameters`` and ``--from``.

        Each file appears under its name only when it is complete, and replaces one of that name.

        Args:
            path: ``x.png`` (or ``.jpg``, ``.jpeg``, ``.webp``) is the name of a call's one picture. Several are
                ``x-1.png``, ``x-2.png`` and so on, by their place in the call.

        Returns:
            The files, in the order of the pictures.

        Raises:
            OptionError: the name does not end as a picture's does, or these are latents.
            OutputError: the folder is missing, full, or not writable.
        """
        target = path_of("path", path)
        if target.suffix.lower() not in SUFFIXES:
            raise OptionError("path", path, f"a name that ends in {', '.join(SUFFIXES)}")
        files: list[Path] = []
        for place, image, parameters in zip(self.pictures, self.images, self.parameters, strict=True):
            name = target.name if self.pictures == (0,) else f"{target.stem}-{place + 1}{target.suffix}"
            files.append(target.with_name(name))
            save_picture(_pillow(image, parameters), files[-1], parameters)
        return files


def _pillow(image: Image | F32, parameters: Parameters) -> Image:
    """Return one of a result's images as a Pillow image.

    Raises:
        OptionError: it is latents.
    """
    if not isinstance(image, np.ndarray):
        return image
    if image.shape != (parameters.options.height, parameters.options.width, 3):
        raise OptionError("output_type", "latent", "'pil' or 'np': latents are no pictures yet")
    return to_pil(to_uint8(image))
