"""Files of graphs: the formats, the names of their files in a bundle, and the engines that read each format.

Two engines may read one file. Readers take the names from the manifest; ``nano-export`` chooses them by these rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nano_runtime.bundle.manifest import Backend

__all__ = ["FORMATS", "IR", "ONNX", "GraphFormat"]


@dataclass(frozen=True)
class GraphFormat:
    """A file format of graphs, with weights in a file of their own.

    Attributes:
        tag: the Hub's tag for models in this format.
        model: name of the graph's file, with ``{}`` where the name of the graph goes.
        weights: the same for the file with its weights; without ``{}``, all graphs of a folder share one.
    """

    tag: str
    model: str
    weights: str

    @property
    def suffix(self) -> str:
        """The end of a graph's file name, with the dot."""
        return f".{self.model.rpartition('.')[2]}"

    def files(self, graph: str = "model") -> tuple[str, str]:
        """Return the names of a graph's file and of its weights, which lie in one folder."""
        return self.model.format(graph), self.weights.format(graph)


ONNX: Final = GraphFormat(tag="onnx", model="{}.onnx", weights="model.onnx.data")
IR: Final = GraphFormat(tag="openvino", model="openvino_{}.xml", weights="openvino_{}.bin")

FORMATS: Final[Mapping[Backend, tuple[GraphFormat, ...]]] = {"onnxruntime": (ONNX,), "openvino": (IR, ONNX)}
"""Formats that each engine reads, the best one first."""
