"""The preview's matrix is the least-squares one: exact where colours are linear in latents, and the best elsewhere."""

from __future__ import annotations

import numpy as np

from nano_export.choose.preview_matrix import fit_preview
from nano_export.judge.original import Reference
from nano_runtime.pictures.preview import colours
from nano_runtime.sampling.noise import randn

WEIGHTS = np.array([[0.1, 0, 0.02], [0, -0.05, 0], [0.03, 0.03, 0], [0, 0, 0.08], [0.5, 0.4, 0.6]], np.float32)


def reference(seed: int, noise: float) -> Reference:
    """A picture whose colours are those of the latents, 8 x 8 pixels each, with noise in the pixels."""
    latents = randn(seed, (1, 4, 4, 6))
    image = colours(latents, WEIGHTS)[0].repeat(8, axis=0).repeat(8, axis=1)
    image = image + np.float32(noise) * randn(seed + 100, image.shape)
    return Reference("", seed, 1, 1.0, {}, latents, image, [])


def test_linear_colours_are_found_again():
    found = fit_preview([reference(seed, 0.0) for seed in range(3)])
    np.testing.assert_allclose(found, WEIGHTS, atol=1e-5)  # rounded to six digits
    other = fit_preview([reference(seed, 0.0) for seed in range(3)][:1])
    np.testing.assert_allclose(other, WEIGHTS, atol=1e-5)  # one picture says it already


def test_no_other_matrix_fits_better():
    references = [reference(seed, 0.3) for seed in range(2)]
    found = np.array(fit_preview(references), np.float32)

    def error(weights: np.ndarray) -> float:
        features = np.concatenate([one.latents[0].reshape(4, -1).T for one in references])
        pixels = np.concatenate([one.image.reshape(4, 8, 6, 8, 3).mean((1, 3)).reshape(-1, 3) for one in references])
        return float(np.square(features @ weights[:4] + weights[4] - pixels).sum())

    best = error(found)
    assert error(WEIGHTS) > best
    for row in range(5):
        for sign in (-1, 1):
            moved = found.copy()
            moved[row] += sign * 0.01
            assert error(moved) > best
