"""Refuses graphs that no engine may parse, although their checksums are right.

``unsafe_onnx`` and ``unsafe_ir`` have the checks of the two file formats.
"""

from __future__ import annotations

from collections.abc import Iterator

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.graph_files import IR
from nano_runtime.bundle.manifest import Graph
from nano_runtime.bundle.unsafe_ir import fault_of_ir
from nano_runtime.bundle.unsafe_onnx import fault_of_onnx
from nano_runtime.errors import BundleError, NanoError, UnsafeGraphError

__all__ = ["check_graph", "unsafe_graphs"]


def check_graph(bundle: Bundle, graph: Graph, raw: bytes) -> None:
    """Refuse a graph that has anything but what exporters write, or weights outside of the listed file.

    A right checksum says that a file was published with its bundle, not that it is harmless. This takes 20 to 40 ms for
    a full-size UNet, and runs in the background with the checksums.

    Args:
        bundle: with the size of the weights.
        graph: its files.
        raw: the content of its model, which the engine gets.

    Raises:
        UnsafeGraphError: the graph is refused.
    """
    if (fault := _fault_of(bundle, graph, raw)) is not None:
        raise UnsafeGraphError(bundle.path / graph.model, fault)


def unsafe_graphs(bundle: Bundle) -> Iterator[NanoError]:
    """Yield the error of ``check_graph`` for each graph that it refuses, or of a file that changed meanwhile."""
    graphs = {graph.model: graph for part in bundle.manifest.components.values() for graph in part.graphs.values()}
    yield from filter(None, (_error_of(bundle, graph) for graph in graphs.values()))


def _error_of(bundle: Bundle, graph: Graph) -> NanoError | None:
    try:
        check_graph(bundle, graph, bundle.content(graph.model))
    except BundleError as error:
        return error
    return None


def _fault_of(bundle: Bundle, graph: Graph, raw: bytes) -> str | None:
    """Return the reason to refuse a graph, or None."""
    weights_bytes = 0 if graph.weights is None else bundle.entry(graph.weights).size
    if graph.model.endswith(IR.suffix):
        return fault_of_ir(raw, weights_bytes)
    return fault_of_onnx(raw, None if graph.weights is None else graph.weights.rpartition("/")[2], weights_bytes)
