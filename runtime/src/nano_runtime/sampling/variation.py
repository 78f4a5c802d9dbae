"""Noise between those of two seeds, which draws siblings of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.sampling.noise import randn

__all__ = ["Variation", "slerp"]


_NEARLY_PARALLEL = 1e-6  # sine of the angle; below it the arc between two directions is not unique


@dataclass(frozen=True)
class Variation:
    """The mix of a picture's own noise with that of another seed.

    Attributes:
        seeds: the other seed of each picture.
        strength: 0 keeps the picture's own noise, 1 takes the other's, stretched to the same magnitude.
    """

    seeds: tuple[int, ...]
    strength: float

    def only(self, pictures: Sequence[int]) -> Variation:
        """Return the mix of some of the pictures."""
        return Variation(tuple(self.seeds[i] for i in pictures), self.strength)

    def apply(self, noise: F32, pictures: Sequence[int]) -> F32:
        """Turn the noise of some pictures, float32 [len(pictures), C, h, w], towards that of their other seeds."""
        others = (randn(self.seeds[picture], noise.shape[1:]) for picture in pictures)
        return np.stack([slerp(own, other, self.strength) for own, other in zip(noise, others, strict=True)])


def slerp(own: F32, other: F32, share: float) -> F32:
    """Go a share of the way from one array to another along the great circle, and keep the first one's magnitude.

    Spherical linear interpolation (Shoemake 1985, section 3.3) of the directions. A straight line would come too near
    to zero: halfway, latents have half the variance, and networks are not trained on such latents.
    """
    a, b = own.astype(np.float64), other.astype(np.float64)
    magnitude = np.linalg.norm(a)
    a, b = a / magnitude, b / np.linalg.norm(b)
    angle = np.arccos(np.clip(np.vdot(a, b), -1, 1))
    if np.sin(angle) < _NEARLY_PARALLEL:
        return own.copy()
    direction = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    between: F32 = (magnitude * direction).astype(np.float32)
    return between
