"""Cuts the graphs of a bundle into pieces of some operators, which engines load many times as fast as the whole.

Together they have every operator of the graphs, beside the neighbours that it has there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import onnx
import openvino
from onnx import TensorProto, helper
from tests.contract.engine_child import ROWS, TOKENS

from nano_export.graph.to_openvino import read_ir, save_ir
from nano_runtime.bundle.unsafe_ir import fault_of_ir
from nano_runtime.bundle.unsafe_onnx import fault_of_onnx

__all__ = ["Graph", "Input", "pieces_of"]

OPERATORS = 24  # of a piece
Input = tuple[str, str, list[int]]  # name, type of numpy, shape


class Graph(NamedTuple):
    """A graph by itself.

    Attributes:
        model: its file.
        weights: the file with its weights; None without one.
        inputs: what it is fed.
    """

    model: Path
    weights: Path | None
    inputs: list[Input]

    def fault(self, raw: bytes) -> str | None:
        """Return what the strict reader has against other bytes in the place of this graph."""
        size = 0 if self.weights is None else self.weights.stat().st_size
        if self.model.suffix == ".xml":
            return fault_of_ir(raw, size)
        return fault_of_onnx(raw, None if self.weights is None else self.weights.name, size)


def pieces_of(model: Path, weights: Path | None, folder: Path) -> list[Graph]:
    """Write the pieces of a graph into a folder.

    Args:
        model: an ``.onnx`` or ``.xml``.
        weights: its weights.
        folder: which exists; pieces of an ONNX graph need the weights in it.
    """
    if model.suffix == ".xml":
        return _of_ir(read_ir(model), folder, model.parent.name)
    return _of_onnx(onnx.load(model, load_external_data=False), weights, folder, model.parent.name)


def _of_ir(model: Any, folder: Path, name: str) -> list[Graph]:
    operators = [
        one for one in model.get_ordered_ops() if one.get_type_name() not in {"Parameter", "Result", "Constant"}
    ]
    fixed = _computed_of_constants(model)
    found: list[Graph] = []
    for number in range(0, len(operators), OPERATORS):
        window = operators[number : number + OPERATORS]
        names = {one.get_friendly_name() for one in window}
        given: dict[tuple[str, int], Any] = {}
        for one in window:
            for place in one.inputs():
                source = place.get_source_output()
                node = source.get_node()
                if node.get_friendly_name() in fixed | names:
                    continue
                key = node.get_friendly_name(), source.get_index()
                if key not in given:
                    given[key] = openvino.opset13.parameter(
                        source.get_partial_shape(), source.get_element_type(), f"in{len(given)}"
                    )
                    given[key].output(0).get_tensor().set_names({f"in{len(given) - 1}"})
                place.replace_source_output(given[key].output(0))
        results: list[Any] = []
        for output in (output for one in window for output in one.outputs()):
            if any(reader.get_node().get_friendly_name() not in names for reader in output.get_target_inputs()):
                output.get_tensor().set_names({f"out{len(results)}"})
                results.append(openvino.opset13.result(output))
        if not given or not results:
            continue
        path = folder / f"{name}-{number}.xml"
        save_ir(openvino.Model(results, [*given.values()], "piece"), path)
        inputs = [
            (f"in{at}", one.get_element_type().to_dtype().name, _sizes(one)) for at, one in enumerate(given.values())
        ]
        found.append(Graph(path, path.with_suffix(".bin"), inputs))
    return found


def _computed_of_constants(model: Any) -> set[str]:
    """Return the names of layers that depend on no input: pieces keep these whole, as engines fold them."""
    names: set[str] = set()
    for one in model.get_ordered_ops():
        sources = [place.get_source_output().get_node() for place in one.inputs()]
        if one.get_type_name() != "Parameter" and all(source.get_friendly_name() in names for source in sources):
            names.add(one.get_friendly_name())
    return names


def _sizes(parameter: Any) -> list[int]:
    return [
        size.get_length() if size.is_static else ROWS if axis == 0 else TOKENS
        for axis, size in enumerate(parameter.get_partial_shape())
    ]


def _of_onnx(model: onnx.ModelProto, weights: Path | None, folder: Path, name: str) -> list[Graph]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = {one.name: one for one in (*graph.input, *graph.value_info, *graph.output)}
    constants = {one.name: one for one in graph.initializer}
    last = {one.name for one in graph.output}
    found: list[Graph] = []
    for number in range(0, len(graph.node), OPERATORS):
        window = graph.node[number : number + OPERATORS]
        made = {value for node in window for value in node.output}
        taken = {value for node in window for value in node.input if value}
        given = sorted(taken - made - constants.keys())
        read = last | {value for node in graph.node[number + OPERATORS :] for value in node.input}
        results = sorted(made & read)
        if not given or not results or not values.keys() >= {*given, *results}:
            continue
        piece = helper.make_graph(
            window, "piece", [values[one] for one in given], [values[one] for one in results],
            [constants[one] for one in sorted(taken & constants.keys())],
        )  # fmt: skip
        whole = helper.make_model(piece, ir_version=model.ir_version, opset_imports=model.opset_import)
        path = folder / f"{name}-{number}.onnx"
        path.write_bytes(whole.SerializeToString())
        found.append(
            Graph(path, None if weights is None else folder / weights.name, [_described(values[one]) for one in given])
        )
    return found


def _described(value: onnx.ValueInfoProto) -> Input:
    kind = value.type.tensor_type
    sizes = [
        size.dim_value if size.HasField("dim_value") else ROWS if axis == 0 else TOKENS
        for axis, size in enumerate(kind.shape.dim)
    ]
    return value.name, helper.tensor_dtype_to_np_dtype(kind.elem_type or TensorProto.FLOAT).name, sizes
