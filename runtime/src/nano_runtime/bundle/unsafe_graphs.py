"""Refuses graphs that no engine may parse, although their checksums are right.

``unsafe_onnx`` and ``unsafe_ir`` have the checks of the two file formats.
"""

from __future__ import annotations

from collections.abc import Iterator

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Graph
from nano_runtime.bundle.unsafe_ir import fault_of_ir
from nano_runtime.bundle.unsafe_onnx import fault_of_onnx
from nano_runtime.errors import UnsafeGraphError

__all__ = ["check_graph", "unsafe_graphs"]


def check_graph(bundle: Bundle, graph: Graph) -> None:
    """Refuse a graph that makes an engine read outside the bundle, or recurse too deep.

    A right checksum says that a file was published with its bundle, not that it is harmless. This takes 10 to 60 ms for
    a full-size UNet, and runs in the background with the checksums.

    Raises:
        UnsafeGraphError: the graph is refused.
    """
    if (fault := _fault_of(bundle, graph)) is not None:
        raise fault


def unsafe_graphs(bundle: Bundle) -> Iterator[UnsafeGraphError]:
    """Yield the error of ``check_graph`` for each graph that it refuses; the checksums must be right."""
    graphs = {graph.model: graph for part in bundle.manifest.components.values() for graph in part.graphs.values()}
    for graph in graphs.values():
        if (fault := _fault_of(bundle, graph)) is not None:
            yield fault


def _fault_of(bundle: Bundle, graph: Graph) -> UnsafeGraphError | None:
    """Return the error for a graph that is refused, or None."""
    model = bundle.path / graph.model
    weights = None if graph.weights is None else graph.weights.rpartition("/")[2]
    weights_bytes = 0 if graph.weights is None else bundle.entry(graph.weights).size
    raw = model.read_bytes()
    is_ir = model.suffix == ".xml"
    fault = fault_of_ir(raw, weights_bytes) if is_ir else fault_of_onnx(raw, weights, weights_bytes)
    return None if fault is None else UnsafeGraphError(model, fault)
