"""A real bundle on the command line: every pixel that is black in the mask is the picture's own."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nano_runtime.cli import generate


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize(("blur", "reach"), [((), 16), (("--mask-blur", "0"), 0)])
def test_black_stays_to_the_bit_and_white_is_drawn(tmp_path, blur, reach):
    own = np.random.default_rng(3).integers(0, 256, (128, 128, 3), np.uint8)
    mask = np.zeros((128, 128), np.uint8)
    mask[40:100, 24:90] = 255
    Image.fromarray(own).save(tmp_path / "own.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = ["--image", str(tmp_path / "own.png"), "--mask", str(tmp_path / "mask.png")]
    asked = ["an otter on a teal background", "--seed", "7", "--steps", "1", "--no-cache", *files]
    assert generate.main([*asked, *blur, "-o", str(tmp_path / "kept.png")]) == 0
    assert generate.main([*asked, "--no-keep-unmasked", "-o", str(tmp_path / "open.png")]) == 0
    far = np.ones((128, 128), bool)  # from white, by more than the blur reaches
    far[40 - reach : 100 + reach, 24 - reach : 90 + reach] = False
    assert np.array_equal(pixels(tmp_path / "kept.png")[far], own[far])
    assert np.mean(pixels(tmp_path / "open.png")[far] != own[far]) > 0.5
    assert np.mean(pixels(tmp_path / "kept.png")[mask == 255] != own[mask == 255]) > 0.5
