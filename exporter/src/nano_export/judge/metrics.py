"""Distances between two pictures, or two arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["psnr_db", "relative_rmse", "ssim"]

Floats = NDArray[np.floating]
_IDENTICAL_DB = 200.0  # the score of identical arrays: JSON has no infinity


def psnr_db(actual: Floats, expected: Floats, data_range: float) -> float:
    """Return the peak signal-to-noise ratio, 10 log10(range^2 / mean squared error), in dB; 200 for equal arrays."""
    error = float(np.mean((np.asarray(actual, np.float64) - expected) ** 2))
    return _IDENTICAL_DB if error == 0 else min(_IDENTICAL_DB, 10 * float(np.log10(data_range**2 / error)))


def relative_rmse(actual: Floats, expected: Floats) -> float:
    """Return the root mean squared error over the root mean square of ``expected``."""
    difference = np.asarray(actual, np.float64) - expected
    return float(np.sqrt(np.mean(difference**2)) / np.sqrt(np.mean(np.asarray(expected, np.float64) ** 2)))


def ssim(actual: Floats, expected: Floats, data_range: float) -> float:
    """Return the structural similarity of two pictures [H, W, C], the mean over channels.

    Wang et al. 2004, equation 13, with the paper's Gaussian window (11 pixels, sigma 1.5; the largest that
    fits into a smaller picture), where it fits. Equals
    ``skimage.metrics.structural_similarity`` with ``gaussian_weights`` and population covariance.
    """
    x, y = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return float(similarity.mean())


def _blur(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight with a Gaussian window along height and width, without padding."""
    radius = min(5, (min(picture.shape[:2]) - 1) // 2)
    offsets = np.arange(-radius, radius + 1)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    for axis in (0, 1):
        views = np.lib.stride_tricks.sliding_window_view(picture, len(window), axis=axis)
        picture = views @ window
    return picture
