"""The embedded guidance scale against diffusers' pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from nano_runtime.networks.guidance import embed_guidance

# Sines of up to 20,000: a wavelength that is rounded otherwise in its last bit moves them by up to 1e-3.
TOLERANCE = 2e-3


@pytest.mark.parametrize("width", [16, 17, 256, 512])
@pytest.mark.parametrize("scale", [1.0, 3.5, 8.5, 20.0])
def test_the_embedding_is_diffusers_own(scale, width):
    theirs = StableDiffusionPipeline.get_guidance_scale_embedding
    expected = theirs(None, torch.tensor([scale - 1]), width).numpy()
    actual = embed_guidance(scale, width)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE, rtol=0)
    other = theirs(None, torch.tensor([scale - 0.99]), width).numpy()
    assert np.abs(actual - other).max() > 100 * TOLERANCE
