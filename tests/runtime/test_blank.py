"""Pictures of one colour are found, and whose fault they are."""

from __future__ import annotations

import numpy as np

from nano_runtime.pictures.blank import Blank, find_blanks
from nano_runtime.sampling.noise import randn


def test_one_colour_is_blank_and_two_are_not():
    latents, unit = randn(0, (4, 4, 2, 2)), np.full((4, 16, 16, 3), 0.3, np.float32)
    unit[0, 3, 3, 1] += 0.01  # the least that a file can show is 0.0039
    unit[1, 3, 3, 1] += 0.003
    unit[2, ..., 0] = 1
    latents[2] = latents[2, :, :1, :1]
    assert find_blanks(latents, unit) == [Blank(1, "vae_decoder"), Blank(2, "unet"), Blank(3, "vae_decoder")]
