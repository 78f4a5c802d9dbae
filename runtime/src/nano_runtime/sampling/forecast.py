"""What the deep layers would compute, forecast from what they computed in the last two whole calls."""

from __future__ import annotations

from collections import deque

import numpy as np

from nano_runtime.arrays import F32

__all__ = ["Forecast"]

_KNOWN = 2  # whole calls that a straight line needs


class Forecast:
    """A feature as a straight line over the timestep.

    DeepCache (Ma et al. 2023, arXiv:2312.00858) takes the last whole call's feature as it is. To go on in the direction
    of the last two is the first order of TaylorSeer (Liu et al. 2025, arXiv:2503.06923): it costs nothing, and on the
    demo brings pictures 2 to 3 dB nearer to the exact ones (bench/LOG.md).
    """

    def __init__(self) -> None:
        self._known: deque[tuple[float, F32]] = deque(maxlen=_KNOWN)

    def learn(self, timestep: float, feature: F32) -> None:
        """Keep the feature of a whole call, float32 [rows, ...]; the array is not copied."""
        self._known.append((timestep, feature))

    def at(self, timestep: float, rows: int) -> F32:
        """Return the last ``rows`` rows of the feature at another timestep.

        It is the last whole call's where a direction is not known: after the first one, between two of one timestep,
        and where the one before the last had fewer rows.
        """
        (before, earlier), (now, latest) = self._known[0], self._known[-1]
        feature = latest[-rows:]
        if now == before or len(earlier) < rows:
            return feature
        share = np.float32((timestep - now) / (now - before))
        return feature + share * (feature - earlier[-rows:])
