"""The two graphs of the autoencoder (VAE), between pixels and latents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import VAE_DECODER, VAE_ENCODER
from nano_runtime.engines.base import Runner
from nano_runtime.pictures.blank import find_blanks
from nano_runtime.pictures.pixels import to_unit_range
from nano_runtime.pictures.source import Edit

__all__ = ["Encoded", "decode", "encode"]

_LOGVAR = (-30.0, 20.0)  # diffusers keeps the encoder's log-variance between these

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A picture in latents.

    Attributes:
        moments: float32 [1, 2 * channels, h, w], means and log-variances as the VAE encoder computes them.
        scaling_factor: of the latents.
        mask: float32 [1, 1, h, w], 1 where to draw anew; None for everywhere.
    """

    moments: F32
    scaling_factor: float
    mask: F32 | None

    def sample(self, noise: F32) -> F32:
        """Return one sample for each row of unit noise: diffusers' ``DiagonalGaussianDistribution.sample``, scaled."""
        mean, logvar = np.split(self.moments, 2, axis=1)
        deviation = np.exp(np.float32(0.5) * np.clip(logvar, *_LOGVAR))
        sampled: F32 = np.float32(self.scaling_factor) * (mean + deviation * noise)
        return sampled


def encode(runner: Runner, bundle: Bundle, edit: Edit) -> Encoded:
    """Bring the picture to start from into latents.

    Raises:
        BundleError: the bundle has no encoder, or it cannot be run.
    """
    component = bundle.component(VAE_ENCODER)
    outputs = runner.run(VAE_ENCODER, {component.inputs[0].name: edit.sample}, batch=1)
    return Encoded(outputs[component.outputs[0].name], bundle.manifest.scaling_factor, edit.mask)


def decode(runner: Runner, bundle: Bundle, latents: F32, seeds: Sequence[int]) -> F32:
    """Decode final latents picture by picture: a batch is no quicker per picture, and takes more memory.

    Args:
        runner: runs the decoder.
        bundle: describes it.
        latents: float32 [n, C, h, w].
        seeds: of the pictures, to name those that come out blank in the log.

    Returns:
        Float32 [n, height, width, 3] in [0, 1].

    Raises:
        BundleError: the decoder cannot be run, or computes NaN.
    """
    component = bundle.component(VAE_DECODER)
    scaled = latents / np.float32(bundle.manifest.scaling_factor)
    decoded = [runner.run(VAE_DECODER, {component.inputs[0].name: one[np.newaxis]}, batch=1) for one in scaled]
    unit = to_unit_range(np.concatenate([outputs[component.outputs[0].name] for outputs in decoded]))
    for blank in find_blanks(latents, unit):
        _log.warning("the picture of seed %d is blank: the %s made it constant", seeds[blank.index], blank.component)
    return unit
