"""Between two seeds: on the arc, of the first one's magnitude, and still noise."""

from __future__ import annotations

import numpy as np
import pytest

from nano_runtime.sampling.noise import randn
from nano_runtime.sampling.variation import Variation, slerp

OWN, OTHER = randn(1, (4, 16, 16)), randn(2, (4, 16, 16))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


def test_a_right_angle_is_divided_by_sine_and_cosine():
    between = slerp(np.array([3, 0], np.float32), np.array([0, 5], np.float32), 1 / 3)
    np.testing.assert_allclose(between, [3 * np.sqrt(3) / 2, 3 / 2], rtol=1e-6)  # 30 of 90 degrees, 3 long


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_one_of_the_angle_and_the_magnitude_stays(share):
    between, whole = slerp(OWN, OTHER, share), angle(OWN, OTHER)
    assert between.dtype == np.float32
    # Float32 rounds the result: 6e-8 of each number.
    assert angle(OWN, between) == pytest.approx(share * whole, abs=1e-5)
    assert angle(between, OTHER) == pytest.approx((1 - share) * whole, abs=1e-5)
    assert np.linalg.norm(between) == pytest.approx(np.linalg.norm(OWN), rel=1e-6)
    straight = (1 - share) * OWN + share * OTHER
    assert np.linalg.norm(straight) < 0.95 * np.linalg.norm(OWN)  # what the arc is for


def test_the_ends_are_the_two_seeds():
    np.testing.assert_array_equal(slerp(OWN, OTHER, 0), OWN)
    assert angle(slerp(OWN, OTHER, 1), OTHER) < 1e-3  # the arc's cosine rounds to 1 below


def test_the_same_noise_twice_has_no_arc():
    np.testing.assert_array_equal(slerp(OWN, OWN, 0.5), OWN)


def test_each_picture_turns_towards_its_own_seed():
    variation = Variation((7, 8, 9), 0.25)
    both = variation.apply(np.stack([OWN, OWN]), [0, 2])
    np.testing.assert_array_equal(both, [slerp(OWN, randn(seed, OWN.shape), 0.25) for seed in (7, 9)])
    assert angle(both[0], both[1]) > 0.1
