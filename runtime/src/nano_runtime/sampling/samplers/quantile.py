"""The quantiles of a symmetric beta distribution; numpy has none."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from nano_runtime.arrays import F64

__all__ = ["beta_quantile"]

_TERMS: Final = 60  # of a series whose terms at least halve: 2**-60 is less than float64's rounding
_HALVINGS: Final = 60  # of the interval that holds the quantile


def beta_quantile(shares: F64, shape: float) -> F64:
    """Return the points that have given shares of a beta distribution below them.

    The share below x is the series x^a / (a B) * (1 + sum of (1-a)(2-a)...(n-a) / n! * a / (a+n) * x^n), with
    B = Γ(a)² / Γ(2a) (DLMF 8.17.7 and 8.17.8). The series converges quickly in the lower half, so bisection finds the
    quantile there; the upper half is its mirror image. The result equals ``scipy.stats.beta.ppf(shares, shape, shape)``
    to 1e-12.

    Args:
        shares: in [0, 1], any shape.
        shape: both parameters of the distribution, in (0, 1].

    Returns:
        Float64 in [0, 1]; exactly 0 and 1 at the ends.
    """
    n = np.arange(1, _TERMS)
    series = np.append(1.0, np.cumprod((n - shape) / n) * shape / (shape + n))
    scale = math.gamma(2 * shape) / math.gamma(shape) ** 2 / shape
    wanted = np.minimum(shares, 1 - shares)
    low, high = np.zeros_like(wanted), np.full_like(wanted, 0.5)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = scale * middle**shape * np.polynomial.polynomial.polyval(middle, series) < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found = np.where(wanted == 0, 0.0, high)
    return np.where(shares > 0.5, 1 - found, found)  # noqa: PLR2004 - a half
