"""PSNR and SSIM against scikit-image, on pictures that differ in known ways."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from nano_export.judge.metrics import psnr_db, relative_rmse, ssim

# Both sides compute in float64 with the same formula; only the order of summation differs.
TOLERANCE = 1e-9


def picture(seed: int, data_range: float) -> np.ndarray:
    """Smooth blobs with some noise, float32 [48, 64, 3] from 0 to ``data_range``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :64][..., np.newaxis]
    waves = np.sin(x / rng.uniform(3, 9, 3)) * np.cos(y / rng.uniform(3, 9, 3))
    noisy = 0.5 + 0.4 * waves + 0.1 * rng.standard_normal((48, 64, 3))
    return (np.clip(noisy, 0, 1) * data_range).astype(np.float32)


def reference_ssim(actual: np.ndarray, expected: np.ndarray, data_range: float, *, gaussian: bool = True) -> float:
    return structural_similarity(
        actual.astype(np.float64),
        expected.astype(np.float64),
        data_range=data_range,
        channel_axis=2,
        gaussian_weights=gaussian,
        sigma=1.5,
        use_sample_covariance=False,
    )


@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
@pytest.mark.parametrize("noise", [0.001, 0.05, 0.5])
def test_both_scores_are_those_of_scikit_image(data_range, noise):
    expected = picture(0, data_range)
    shift = np.random.default_rng(1).standard_normal(expected.shape) * noise * data_range
    actual = (expected + shift).astype(np.float32)
    theirs = peak_signal_noise_ratio(expected.astype(np.float64), actual.astype(np.float64), data_range=data_range)
    assert psnr_db(actual, expected, data_range) == pytest.approx(theirs, abs=TOLERANCE)
    assert ssim(actual, expected, data_range) == pytest.approx(
        reference_ssim(actual, expected, data_range), abs=TOLERANCE
    )


def test_the_ssim_window_matters():
    """Negative control: scikit-image's other window is far outside the tolerance."""
    actual, expected = picture(0, 1.0), picture(1, 1.0)
    assert abs(ssim(actual, expected, 1.0) - reference_ssim(actual, expected, 1.0, gaussian=False)) > 1e3 * TOLERANCE


def test_the_range_matters():
    actual, expected = picture(0, 1.0), picture(1, 1.0)
    assert psnr_db(actual, expected, 2.0) - psnr_db(actual, expected, 1.0) == pytest.approx(20 * np.log10(2))
    assert ssim(actual, expected, 2.0) > ssim(actual, expected, 1.0) + 0.01


def test_equal_pictures_score_the_most_and_unrelated_ones_little():
    one, other = picture(0, 1.0), picture(1, 1.0)
    assert psnr_db(one, one, 1.0) == 200.0
    assert ssim(one, one, 1.0) == pytest.approx(1.0, abs=TOLERANCE)
    assert relative_rmse(one, one) == 0.0
    assert psnr_db(one, other, 1.0) < 20
    assert ssim(one, other, 1.0) < 0.5


def test_relative_rmse_is_a_share_of_what_was_expected():
    expected = np.array([3.0, -4.0], np.float32)
    assert relative_rmse(expected * np.float32(1.25), expected) == 0.25
    assert relative_rmse(np.zeros(2, np.float32), expected) == 1.0


@pytest.mark.parametrize("side", [1, 2, 8, 10])
def test_pictures_smaller_than_the_window_are_compared_too(side):
    expected, other = picture(0, 1.0)[:side, :side], picture(1, 1.0)[:side, :side]
    assert ssim(expected, expected, 1.0) == pytest.approx(1, abs=TOLERANCE)
    assert ssim(other, expected, 1.0) < 1 - 1e3 * TOLERANCE


def test_cutting_colours_where_others_round_them_is_51_db():
    """What the documents say of openvino-genai's bytes: half of all pixels are one step darker."""
    picture = np.random.default_rng(1).uniform(0, 255, (64, 64, 3))
    assert psnr_db(np.floor(picture), np.round(picture), 255) == pytest.approx(51.1, abs=0.2)
