"""What a pipeline asks of an inference engine: open a graph, run it, let it go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRECISIONS", "Arrays", "EngineOptions", "Open", "Precision", "Session"]

Precision = Literal["f32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Arrays = Mapping[str, NDArray[np.float32] | NDArray[np.int64]]


@dataclass(frozen=True)
class EngineOptions:
    """Choices that change speed and rounding, never the algorithm.

    Attributes:
        threads: intra-op threads, at least 1.
        precision: arithmetic of the layers that are not quantized. ``"f32"`` computes what the graph says; ``"bf16"``
            lets OpenVINO round to bfloat16 on processors that have it (onnxruntime always computes in f32).
    """

    threads: int
    precision: Precision


class Session(Protocol):
    """A loaded graph with all shapes fixed."""

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.float32]]:
        """Compute all outputs from all inputs; shapes and dtypes are those of the manifest."""

    def close(self) -> None:
        """Give the memory back; the session cannot run afterwards."""


class Open(Protocol):
    """How a backend module opens a graph: ``model`` on disk, ``batch`` for every free dimension."""

    def __call__(self, model: Path, *, batch: int, options: EngineOptions) -> Session:
        """Load the graph; see ``backends.open_session``."""
