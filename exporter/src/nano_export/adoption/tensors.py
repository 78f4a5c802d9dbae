"""Graphs of other exporters, whatever their format: their tensors, and the edits that an adoption makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nano_runtime.bundle.manifest import Precision, TensorSpec

__all__ = ["ForeignGraph", "Tensor", "precision_of"]

_HALF = ("float16", "bfloat16")
_BYTE = ("int8", "uint8")


@dataclass(frozen=True)
class Tensor:
    """An input or output: name, numpy's name of its type, and its sizes, None for those that are free or unknown."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class ForeignGraph(Protocol):
    """A graph that another tool wrote; edits change what ``write`` writes."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """The inputs, in the graph's order."""

    @property
    def outputs(self) -> Sequence[Tensor]:
        """The outputs, in the graph's order."""

    @property
    def weight_bytes(self) -> Mapping[str, int]:
        """Bytes of constants by numpy's name of their type, or the engine's where numpy has none."""

    def channels_into(self, tensor: str) -> int | None:
        """Return how many channels the first convolution of an input takes; None if that cannot be told."""

    def take_moments(self, output: str) -> bool:
        """Make the graph put out mean and logarithm of the variance where it draws noise for an output itself.

        Returns:
            Whether it draws no noise now.
        """

    def fix(self, inputs: Sequence[TensorSpec], output: TensorSpec) -> None:
        """Give the inputs their final shapes, and leave out all other outputs.

        Raises:
            ValueError: the graph cannot have these shapes.
        """

    def write(self, folder: Path) -> None:
        """Write the graph and its weights, unchanged, under the names that a bundle has for them."""


def precision_of(graph: ForeignGraph) -> Precision:
    """Return the precision of most of a graph's weights.

    Raises:
        ValueError: it is none that a bundle can have.
    """
    bytes_of = graph.weight_bytes
    values = {kind: size / _BYTES.get(kind, 1) for kind, size in bytes_of.items()}
    kind = max(values, key=values.__getitem__, default="float32")
    if kind in _BYTE:
        return "int8"
    if kind in _HALF:
        return "fp16"
    if kind in ("float32", "int64"):
        return "fp32"
    raise ValueError(f"most of its weights are {kind}")


_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4}
