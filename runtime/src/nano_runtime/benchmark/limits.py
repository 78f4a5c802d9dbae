"""Computes the least time of a graph on a machine: the roofline of its groups of layers.

Williams, Waterman & Patterson 2009 ("Roofline: an insightful visual performance model"): a piece of work takes at
least as long as its arithmetic at the machine's peak rate, and at least as long as moving its data at the peak
bandwidth. Here a piece is one group of layers (``manifest.Work``), its data are its weights, and a graph takes the sum:
groups run one after the other, and none can use what another leaves idle.

The limit is that of the bundle's arithmetic in dense matrix products. An algorithm with fewer products (Winograd's
convolution) or weights that stay in the processor's cache from call to call could go below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nano_runtime.bundle.manifest import Backend, Work
from nano_runtime.engines.base import Precision

__all__ = ["Rates", "limit_ms"]


@dataclass(frozen=True)
class Rates:
    """The best rates of a machine with a number of threads, as ``probe`` measured them.

    Attributes:
        threads: that computed.
        macs_per_s: multiply-accumulates per second in a large matrix product, by arithmetic (``"int8"``, ``"f32"``,
            ``"bf16"``) and engine.
        read_bytes_per_s: reading from memory.
        read_bytes: size of the array that was read.
    """

    threads: int
    macs_per_s: Mapping[str, Mapping[Backend, float]]
    read_bytes_per_s: float
    read_bytes: int

    def best_macs_per_s(self, arithmetic: str) -> float:
        """Return the rate of the engine that multiplies fastest: the limit is the machine's, not an engine's."""
        return max(self.macs_per_s[arithmetic].values())


def limit_ms(work: Iterable[Work], rows: float, rates: Rates, precision: Precision) -> float:
    """Return the least milliseconds one call of a graph can take.

    Args:
        work: of the graph, or of some of its groups; nothing takes no time.
        rows: size of the batch; the mean where calls differ.
        rates: of the machine.
        precision: arithmetic of the layers that are not quantized.
    """
    seconds = 0.0
    for group in work:
        macs = group.macs * (rows if group.batched else 1)
        arithmetic = group.arithmetic if group.arithmetic == "int8" else precision
        seconds += max(macs / rates.best_macs_per_s(arithmetic), group.weight_bytes / rates.read_bytes_per_s)
    return seconds * 1e3
