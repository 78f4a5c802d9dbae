"""What a drawing tells: how far it is after every UNet call, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nano_runtime.arrays import F32
from nano_runtime.errors import NoPreviewError
from nano_runtime.pictures.png import Parameters, to_pil, to_uint8
from nano_runtime.pictures.preview import colours
from nano_runtime.system.timing import Timings

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Progress", "Result"]


@dataclass(frozen=True, eq=False)
class Progress:
    """One UNet call is done.

    Attributes:
        call: its number, from 1.
        calls: how many there will be for all pictures.
        step_index: its index among the calls for these pictures, from 0.
        timestep: noise level it ran at, on the training scale.
        latents: float32 [n, *latent_shape] after it, for the n pictures drawn together. The next step starts from this
            array, with whatever was written into it.
        predicted: float32 like the latents, without noise: what the network believes the pictures to be.
        preview_weights: float32 [channels + 1, 3], the manifest's ``preview``; None in bundles that have none.
    """

    call: int
    calls: int
    step_index: int
    timestep: float
    latents: F32
    predicted: F32
    preview_weights: F32 | None

    def preview(self) -> list[Image]:
        """Return what each picture looks like by now: one pixel a latent, within a millisecond.

        Raises:
            NoPreviewError: the bundle was exported without a matrix for this.
        """
        if self.preview_weights is None:
            raise NoPreviewError
        return [to_pil(pixels) for pixels in to_uint8(colours(self.predicted, self.preview_weights))]


@dataclass(frozen=True)
class Result:
    """What a call drew.

    Attributes:
        images: Pillow images; float32 [n, height, width, 3] in [0, 1] for ``output_type="np"``; the final latents,
            float32 [n, *latent_shape], for ``"latent"``.
        seeds: the seed of each picture; it draws that picture again, alone (unless the call was given latents, and with
            the same image and variation if it had one).
        parameters: the same and all else for each picture, as ``image.save_png`` stores them.
        timings: where the time went.
    """

    images: list[Image] | F32
    seeds: tuple[int, ...]
    parameters: tuple[Parameters, ...]
    timings: Timings
