"""The guidance scale as a vector, for UNets that were trained with it as an input (LCM): one call draws, not two."""

from __future__ import annotations

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.manifest import Manifest
from nano_runtime.bundle.wiring import TIMESTEP_COND

__all__ = ["embed_guidance", "embedding_width"]

_LONGEST = np.float32(10000)  # the longest wave, as in sinusoidal embeddings of timesteps
_SCALE = np.float32(1000)


def embedding_width(manifest: Manifest) -> int | None:
    """Return the length of the vector that a bundle's UNet takes; None for UNets that are guided by two predictions."""
    for component in manifest.components.values():
        for spec in component.inputs:
            if spec.name == TIMESTEP_COND and isinstance(width := spec.shape[-1], int):
                return width
    return None


def embed_guidance(scale: float, width: int) -> F32:
    """Return float32 [1, width]: sines and cosines of the scale, less 1, at many wavelengths.

    ``LatentConsistencyModelPipeline.get_guidance_scale_embedding`` of diffusers; Luo et al. 2023 (arXiv:2310.04378).

    Args:
        scale: classifier-free guidance, as without this embedding.
        width: of the vector.
    """
    half = width // 2
    step = np.log(_LONGEST) / np.float32(half - 1)
    waves = np.exp((np.arange(half, dtype=np.float32) * -step).astype(np.float64)).astype(np.float32)
    phases = np.float32(scale - 1) * _SCALE * waves
    vector = np.concatenate([np.sin(phases), np.cos(phases), np.zeros(width % 2, np.float32)])
    return vector[np.newaxis].astype(np.float32)
