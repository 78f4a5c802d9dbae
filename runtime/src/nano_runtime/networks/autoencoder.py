"""Between pixels and latents: the two graphs of the autoencoder (VAE)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.drawing.start import Encoded
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.pictures.blank import find_blanks
from nano_runtime.pictures.png import to_unit_range
from nano_runtime.pictures.source import Edit
from nano_runtime.system.timing import Stopwatch

__all__ = ["decode", "encode"]


_log = logging.getLogger(__name__)


def encode(stages: LoadedGraphs, edit: Edit, first_call: int, watch: Stopwatch) -> Encoded:
    """Bring the picture to start from into latents.

    Raises:
        BundleError: the bundle has no encoder, or it cannot be run.
    """
    component = stages.bundle.component("vae_encoder")
    outputs = stages.run("vae_encoder", {component.inputs[0].name: edit.sample}, watch, batch=1)
    moments = outputs[component.outputs[0].name]
    return Encoded(moments, stages.bundle.manifest.scaling_factor, edit.mask, edit.strength, first_call)


def decode(stages: LoadedGraphs, latents: F32, seeds: Sequence[int], watch: Stopwatch) -> F32:
    """Decode final latents picture by picture: a batch is no quicker per picture, and takes more memory.

    Args:
        stages: of the bundle.
        latents: float32 [n, C, h, w].
        seeds: of the pictures, to name those that come out blank in the log.
        watch: gets a sample for each.

    Returns:
        Float32 [n, height, width, 3] in [0, 1].

    Raises:
        BundleError: the decoder cannot be run, or computes NaN.
    """
    component = stages.bundle.component("vae_decoder")
    scaled = latents / np.float32(stages.bundle.manifest.scaling_factor)
    decoded = [stages.run("vae_decoder", {component.inputs[0].name: one[np.newaxis]}, watch, batch=1) for one in scaled]
    unit = to_unit_range(np.concatenate([outputs[component.outputs[0].name] for outputs in decoded]))
    for blank in find_blanks(latents, unit):
        _log.warning("the picture of seed %d is blank: the %s made it constant", seeds[blank.index], blank.component)
    return unit
