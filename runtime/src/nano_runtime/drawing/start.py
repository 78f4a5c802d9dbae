"""Where drawing starts: at noise, or at a picture with noise in it.

Noise is drawn in the order of diffusers' pipelines. With a picture, a seed's stream is: the VAE encoder's sample, the
noise, with a mask a sample once more (of the masked picture, which only UNets made for inpainting look at), and then
what the sampler asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.drawing.request import Request
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers import Sampler

__all__ = ["Encoded", "Kept", "Start", "start_of"]


_LOGVAR = (-30.0, 20.0)  # diffusers keeps the encoder's log-variance between these


@dataclass(frozen=True, eq=False)
class Encoded:
    """A picture in latents.

    Attributes:
        moments: float32 [1, 2 * channels, h, w], means and log-variances as the VAE encoder computes them.
        scaling_factor: of the latents.
        mask: float32 [1, 1, h, w], 1 where to draw anew; None for everywhere.
        strength: in (0, 1]; see ``edit.Edit``.
        first_call: index of the UNet call that drawing begins with.
    """

    moments: F32
    scaling_factor: float
    mask: F32 | None
    strength: float
    first_call: int

    def sample(self, noise: F32) -> F32:
        """Return one sample for each row of unit noise: diffusers' ``DiagonalGaussianDistribution.sample``, scaled."""
        mean, logvar = np.split(self.moments, 2, axis=1)
        deviation = np.exp(np.float32(0.5) * np.clip(logvar, *_LOGVAR))
        sampled: F32 = np.float32(self.scaling_factor) * (mean + deviation * noise)
        return sampled


@dataclass(frozen=True, eq=False)
class Kept:
    """What stays of a picture: clean latents and their noise, float32 [n, C, h, w], where the mask is 0."""

    picture: F32
    noise: F32
    mask: F32

    def put_back(self, sampler: Sampler, index: int, latents: F32) -> None:
        """Replace what stays in the latents after call ``index``, in place, as noisy as they are by then."""
        last = index + 1 == len(sampler.timesteps)
        proper = self.picture if last else sampler.add_noise(self.picture, self.noise, index + 1)
        np.copyto(latents, (np.float32(1) - self.mask) * proper + self.mask * latents)


@dataclass(frozen=True, eq=False)
class Start:
    """Where the denoising of a batch begins.

    Attributes:
        latents: float32 [n, C, h, w] before the first call, on the sampler's scale.
        first_call: its index.
        kept: what is put back after every call; None for nothing.
    """

    latents: F32
    first_call: int
    kept: Kept | None


def start_of(
    request: Request, pictures: Sequence[int], sampler: Sampler, noise: NoiseSource, encoded: Encoded | None
) -> Start:
    """Return where some of a request's pictures begin.

    Args:
        request: what is drawn.
        pictures: indices of those that are drawn together.
        sampler: for them, with ``noise`` as its source.
        noise: the stream of their seeds, from its beginning.
        encoded: the picture that ``request.edit`` starts from.
    """

    def drawn() -> F32:
        unit = noise()
        return unit if request.variation is None else request.variation.apply(unit, pictures)

    if encoded is not None:
        return _from_picture(sampler, encoded, noise, drawn)
    unit = drawn() if request.latents is None else request.latents[pictures]
    return Start(unit * np.float32(sampler.init_noise_sigma), 0, None)


def _from_picture(sampler: Sampler, picture: Encoded, noise: NoiseSource, drawn: NoiseSource) -> Start:
    """Start at a picture with as much noise as its first call expects.

    Matches diffusers' ``StableDiffusionImg2ImgPipeline`` and, with a mask, ``StableDiffusionInpaintPipeline`` around a
    UNet with four channels, which starts at pure noise if the strength is 1.
    """
    clean, first = picture.sample(noise()), picture.first_call
    unit = drawn()
    if picture.mask is None:
        return Start(sampler.add_noise(clean, unit, first), first, None)
    noise()
    pure = picture.strength == 1
    latents = unit * np.float32(sampler.init_noise_sigma) if pure else sampler.add_noise(clean, unit, first)
    return Start(latents, first, Kept(clean, unit, picture.mask))
