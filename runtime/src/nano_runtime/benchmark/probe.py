"""Measures this machine: the rates of each engine's matrix products and of reading memory, in some seconds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nano_runtime.benchmark.limits import Rates
from nano_runtime.benchmark.product import product_graph
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import BACKENDS, CheckedGraph, EngineOptions, installed, open_session
from nano_runtime.engines.base import Precision
from nano_runtime.errors import PrecisionError
from nano_runtime.system.timing import Stopwatch

__all__ = ["LARGEST_READ_BYTES", "probe"]

LARGEST_READ_BYTES = 256 << 20  # several times any cache
# One product as large as a convolution of the decoder, whose factors fit the second-level cache in blocks.
_ROWS, _DEPTH, _COLUMNS = 1024, 2048, 2048
# Each rate's arithmetic of the graph, and precision of the engine's float layers.
_PRODUCTS: dict[str, tuple[Literal["int8", "f32"], Precision]] = {
    "int8": ("int8", "f32"),
    "f32": ("f32", "f32"),
    "bf16": ("f32", "bf16"),
}
_MS = 300.0  # for each rate
_LEAST_RUNS = 3


def probe(threads: int, read_bytes: int) -> Rates:
    """Measure the rates with all installed engines, even if fewer are compared: the limit belongs to the machine.

    The engines compute the product with the threads, options and kinds of kernel of a bundle.

    Args:
        threads: of the engines and of the reading.
        read_bytes: size of the array that is read over and over, as a UNet's weights are: if it fits a cache, it comes
            from the cache. More than ``LARGEST_READ_BYTES`` makes no difference.
    """
    rates: dict[str, dict[Backend, float]] = {}
    for name, (arithmetic, precision) in _PRODUCTS.items():
        graph = product_graph(_ROWS, _DEPTH, _COLUMNS, arithmetic)
        for backend in filter(installed, BACKENDS):
            if (rate := _macs_per_s(backend, graph, EngineOptions(threads, precision))) is not None:
                rates.setdefault(name, {})[backend] = rate
    return Rates(threads, rates, _read_bytes_per_s(threads, read_bytes), read_bytes)


def _macs_per_s(backend: Backend, graph: bytes, options: EngineOptions) -> float | None:
    """Return the rate of the product that a graph is; None if the engine does not have this precision here."""
    try:
        session = open_session(backend, CheckedGraph(Path("product.onnx"), graph, ""), batch=1, options=options)
    except PrecisionError:
        return None
    feeds = {"x": np.random.default_rng(1).standard_normal((_ROWS, _DEPTH), np.float32)}
    session.run(feeds)  # packs weights, wakes threads
    seconds = _quickest_s(lambda: session.run(feeds))
    session.close()
    return _ROWS * _DEPTH * _COLUMNS / seconds


def _read_bytes_per_s(threads: int, size: int) -> float:
    """Return how fast that many threads read, each its share of an array over and over."""
    shares = np.ones((threads, max(1, size // 8 // threads)), np.int64)  # written, or it would be one page of zeros
    passes = max(1, LARGEST_READ_BYTES // size)

    def read(share: NDArray[np.int64]) -> None:
        for _ in range(passes):
            share.max()  # numpy lets other threads run meanwhile, and takes no longer than the memory

    with ThreadPoolExecutor(threads) as pool:
        return shares.nbytes * passes / _quickest_s(lambda: list(pool.map(read, shares)))


def _quickest_s(action: Callable[[], object]) -> float:
    """Return the seconds of the quickest run of an action: disturbances only make a run slower."""
    watch = Stopwatch()
    while True:
        with watch.time("run", "action"):
            action()
        timings = watch.timings()
        if timings.total_ms > _MS and len(timings.run_ms["action"]) >= _LEAST_RUNS:
            return min(timings.run_ms["action"]) / 1e3
