"""The start of a drawing: noise, or a picture with noise in it.

Noise is drawn in the order of diffusers' pipelines. With a picture, a seed's stream is: the VAE encoder's sample, the
noise, with a mask a sample once more (of the masked picture, which only UNets made for inpainting look at), and then
what the sampler asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.drawing.plan import Plan
from nano_runtime.networks.autoencoder import Encoded
from nano_runtime.sampling.noise import NoiseSource
from nano_runtime.sampling.samplers import Sampler

__all__ = ["Start", "Unmasked", "start_of"]


@dataclass(frozen=True, eq=False)
class Unmasked:
    """The part of a picture that stays: clean latents and their noise, float32 [n, C, h, w], where the mask is 0."""

    picture: F32
    noise: F32
    mask: F32

    def put_back(self, sampler: Sampler, index: int, latents: F32) -> None:
        """Put the part that stays into the latents after call ``index``, in place, as noisy as they are by then."""
        last = index + 1 == len(sampler.timesteps)
        proper = self.picture if last else sampler.mixing.add_noise(self.picture, self.noise, index + 1)
        np.copyto(latents, (np.float32(1) - self.mask) * proper + self.mask * latents)


@dataclass(frozen=True, eq=False)
class Start:
    """The state in which the denoising of a batch begins.

    Attributes:
        latents: float32 [n, C, h, w] before the first call, on the sampler's scale.
        first_call: its index.
        unmasked: put back after every call; None without a mask.
    """

    latents: F32
    first_call: int
    unmasked: Unmasked | None


def start_of(
    plan: Plan, pictures: Sequence[int], sampler: Sampler, noise: NoiseSource, encoded: Encoded | None
) -> Start:
    """Return where some of a plan's pictures begin.

    Args:
        plan: of the call.
        pictures: indices of those that are drawn together.
        sampler: for them, with ``noise`` as its source.
        noise: the stream of their seeds, from its beginning.
        encoded: the picture that ``plan.edit`` starts from.
    """

    def drawn() -> F32:
        unit = noise()
        return unit if plan.variation is None else plan.variation.apply(unit, pictures)

    if encoded is not None and plan.edit is not None:
        return _from_picture(sampler, encoded, noise, drawn, first_call=plan.first_call, pure=plan.edit.strength == 1)
    unit = drawn() if plan.latents is None else plan.latents[pictures]
    return Start(unit * np.float32(sampler.mixing.init_noise_sigma), 0, None)


def _from_picture(
    sampler: Sampler, encoded: Encoded, noise: NoiseSource, drawn: NoiseSource, *, first_call: int, pure: bool
) -> Start:
    """Start at a picture with as much noise as its first call expects; with a mask, at ``pure`` noise if so asked.

    Matches diffusers' ``StableDiffusionImg2ImgPipeline`` and, with a mask, ``StableDiffusionInpaintPipeline`` around a
    UNet with four channels, which starts at pure noise if the strength is 1.
    """
    clean = encoded.sample(noise())
    unit = drawn()
    if encoded.mask is None:
        return Start(sampler.mixing.add_noise(clean, unit, first_call), first_call, None)
    noise()
    mixing = sampler.mixing
    noisy = unit * np.float32(mixing.init_noise_sigma) if pure else mixing.add_noise(clean, unit, first_call)
    return Start(noisy, first_call, Unmasked(clean, unit, encoded.mask))
