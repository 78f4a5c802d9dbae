"""The graphs of the autoencoder (VAE), between pixels and latents, and the quick decoder for previews."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import PREVIEW_DECODER, VAE_DECODER, VAE_ENCODER
from nano_runtime.engines.base import Runner
from nano_runtime.pictures.blank import find_blanks
from nano_runtime.pictures.pixels import to_unit_range
from nano_runtime.pictures.source import Edit
from nano_runtime.sampling.noise import NoiseSource

__all__ = ["Encoded", "EncodedEdit", "decode", "decode_preview", "encode"]

_LOGVAR = (-30.0, 20.0)  # diffusers keeps the encoder's log-variance between these

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A picture after the VAE encoder.

    Attributes:
        mean: float32 [1, channels, h, w].
        logvar: float32 like ``mean``, logarithm of the variance; None for encoders that know none (TAESD).
        scaling_factor: of the latents.
    """

    mean: F32
    logvar: F32 | None
    scaling_factor: float

    def sample(self, noise: NoiseSource) -> F32:
        """Return a sample for each picture of a noise source, scaled: float32 [n, channels, h, w], or [1, ...].

        Matches diffusers' ``retrieve_latents``: ``DiagonalGaussianDistribution.sample`` takes the next draw; without a
        variance all samples are one, and nothing is drawn.
        """
        scaling = np.float32(self.scaling_factor)
        if self.logvar is None:
            return scaling * self.mean
        deviation = np.exp(np.float32(0.5) * np.clip(self.logvar, *_LOGVAR))
        sampled: F32 = scaling * (self.mean + deviation * noise())
        return sampled

    @property
    def mode(self) -> F32:
        """The most likely latents, not scaled: float32 [1, channels, h, w]. Matches ``sample_mode="argmax"``."""
        return self.mean


@dataclass(frozen=True, eq=False)
class EncodedEdit:
    """The pictures of an edit in latents.

    Attributes:
        start: the picture that drawing starts from; None if it starts from noise.
        seen: the picture that the UNet sees beside the latents; None for UNets that see none.
        mask: float32 [1, 1, h, w], 1 where to draw anew; None for everywhere.
    """

    start: Encoded | None
    seen: Encoded | None
    mask: F32 | None


def encode(runner: Runner, bundle: Bundle, edit: Edit) -> EncodedEdit:
    """Bring the pictures of an edit into latents.

    Raises:
        BundleError: the bundle has no encoder, or it cannot be run.
    """
    seen = None if edit.seen is None else _encoded(runner, bundle, edit.seen)
    start = _encoded(runner, bundle, edit.sample) if edit.is_start else None
    return EncodedEdit(start, seen, edit.mask)


def _encoded(runner: Runner, bundle: Bundle, sample: F32) -> Encoded:
    """Run the encoder on one picture, float32 [1, 3, height, width]."""
    component, manifest = bundle.component(VAE_ENCODER), bundle.manifest
    outputs = runner.run(VAE_ENCODER, {component.inputs[0].name: sample}, batch=1)
    moments = outputs[component.outputs[0].name]
    channels = manifest.latent_shape[0]
    logvar = moments[:, channels:] if moments.shape[1] > channels else None
    return Encoded(moments[:, :channels], logvar, manifest.scaling_factor)


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
    if not len(latents):
        return np.empty((0, *bundle.manifest.image_size, 3), np.float32)
    component = bundle.component(VAE_DECODER)
    scaled = latents / np.float32(bundle.manifest.scaling_factor)
    decoded = [runner.run(VAE_DECODER, {component.inputs[0].name: one[np.newaxis]}, batch=1) for one in scaled]
    unit = to_unit_range(np.concatenate([outputs[component.outputs[0].name] for outputs in decoded]))
    for blank in find_blanks(latents, unit):
        _log.warning("the picture of seed %d is blank: the %s made it constant", seeds[blank.index], blank.component)
    return unit


def decode_preview(runner: Runner, bundle: Bundle, latents: F32) -> F32:
    """Decode latents that are not final, roughly and in little time.

    Args:
        runner: runs the graph for previews.
        bundle: describes it; it has one.
        latents: float32 [n, C, h, w].

    Returns:
        Float32 [n, height, width, 3] in [0, 1].

    Raises:
        BundleError: the graph cannot be run, or computes NaN.
    """
    component = bundle.component(PREVIEW_DECODER)
    decoded = [runner.run(PREVIEW_DECODER, {component.inputs[0].name: one[np.newaxis]}, batch=1) for one in latents]
    return to_unit_range(np.concatenate([outputs[component.outputs[0].name] for outputs in decoded]))
