"""Edits of a graph's inputs: what it computes stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper

from nano_export.graph.inputs import take_scalar


def model_with(shape: list[int]) -> ir.Model:
    """y = float(timestep) * [1, 2]."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["timestep"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["cast", "w"], ["y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("timestep", TensorProto.INT64, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def run(model: ir.Model, timestep: np.ndarray) -> list[float]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"timestep": timestep})[0])


def test_a_vector_of_one_value_becomes_a_scalar():
    model = model_with([1])
    before = run(model, np.array([981]))
    assert take_scalar(model, "timestep") == 1
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert run(model, np.array(981)) == before == [981.0, 1962.0]


def test_other_inputs_stay():
    assert take_scalar(model_with([2]), "timestep") == 0
    assert take_scalar(model_with([1]), "sample") == 0
    scalar = model_with([1])
    take_scalar(scalar, "timestep")
    assert take_scalar(scalar, "timestep") == 0
