"""Counted work against the same numbers by hand, on graphs of one layer each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from nano_export.graph.mac_counts import work_of
from nano_runtime.bundle.manifest import Work

FLOAT = ir.DataType.FLOAT


def value(name: str, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(FLOAT))


def constant(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))


def node(op: str, inputs: Sequence[ir.Value], *shape: int | str) -> ir.Node:
    made = ir.node(op, inputs, name=f"the {op}")
    made.outputs[0].name, made.outputs[0].shape = f"{op}.out", ir.Shape(shape)
    return made


def count(*nodes: ir.Node) -> list[Work]:
    """The work of nodes in a row; what has no producer and no value is an input."""
    read = [used for one in nodes for used in one.inputs if used is not None and used.producer() is None]
    inputs = [used for used in read if used.const_value is None]
    constants = [used for used in read if used.const_value is not None]
    graph = ir.Graph(inputs, [nodes[-1].outputs[0]], nodes=nodes, initializers=constants, opset_imports={"": 20})
    return work_of(ir.Model(graph, ir_version=10), 77)


def quantized(name: str, source: ir.Value, *shape: int | str) -> ir.Node:
    made = node("DequantizeLinear", [source, constant(f"{name}.scale", np.array(1, np.float32))], *shape)
    made.outputs[0].name = f"{name}.dq"
    return made


def test_a_convolution():
    weight = constant("w", np.zeros((32, 3, 3, 5), np.float32))
    (work,) = count(node("Conv", [value("x", "batch", 6, 10, 8), weight], "batch", 32, 10, 8))
    assert (work.positions, work.kind, work.arithmetic, work.layers, work.batched) == ((10, 8), "conv", "f32", 1, True)
    assert work.macs == 32 * 10 * 8 * (3 * 3 * 5)  # two groups: each output sums three of the six channels
    assert work.weight_bytes == 32 * 3 * 3 * 5 * 4


def test_layers_that_another_form_quantizes_count_as_integers():
    x, w = value("x", "batch", 77, 48), constant("w", np.zeros((48, 96), np.float32))
    product = node("MatMul", [x, w], "batch", 77, 96)
    graph = ir.Graph([x], product.outputs, nodes=[product], initializers=[w], opset_imports={"": 20})
    for scheme, arithmetic, weight_bytes in (("w8a8", "int8", 48 * 96), ("w8", "f32", 48 * 96)):
        (work,) = work_of(ir.Model(graph, ir_version=10), 77, {"the MatMul": scheme})
        assert (work.macs, work.arithmetic, work.weight_bytes) == (77 * 48 * 96, arithmetic, weight_bytes)
    (work,) = work_of(ir.Model(graph, ir_version=10), 77, {"another": "w8a8"})
    assert (work.arithmetic, work.weight_bytes) == ("f32", 48 * 96 * 4)


def test_a_linear_layer_on_a_sequence():
    (work,) = count(
        node("MatMul", [value("x", "batch", 77, 48), constant("w", np.zeros((48, 96), np.float32))], "batch", 77, 96)
    )
    assert (work.positions, work.kind, work.macs, work.weight_bytes) == ((77,), "matmul", 77 * 48 * 96, 48 * 96 * 4)


def test_a_linear_layer_on_one_vector_for_all_rows():
    """The timestep of a standard UNet: the same work whatever the batch."""
    vector, weight = value("x", 1, 32), constant("w", np.zeros((48, 32), np.float32))
    (work,) = count(node("Gemm", [vector, weight], 1, 48))
    assert (work.positions, work.batched, work.macs) == ((), False, 32 * 48)


def test_an_attention_product_has_no_weights():
    queries, keys = value("q", "batch", 5, 256, 64), value("k", "batch", 5, 64, 77)
    (work,) = count(node("MatMul", [queries, keys], "batch", 5, 256, 77))
    assert (work.kind, work.macs, work.weight_bytes) == ("attention", 5 * 256 * 77 * 64, 0)


def test_a_sequence_in_a_network_of_maps_is_told_by_its_map():
    maps = value("x", "batch", 32, 24, 16)
    flat = node("Reshape", [maps, constant("to", np.array([0, 96, 128]))], "batch", 96, 128)  # 12x8, once halved
    linear = node("MatMul", [flat.outputs[0], constant("w", np.zeros((128, 8), np.float32))], "batch", 96, 8)
    (work,) = count(flat, linear)
    assert work.positions == (12, 8)


@pytest.mark.parametrize(("both", "arithmetic"), [(True, "int8"), (False, "f32")])
def test_int8_needs_two_quantized_factors(both, arithmetic):
    sequence = value("x", "batch", 77, 48)
    activation = quantized("x", sequence, "batch", 77, 48)
    weight = quantized("w", constant("w", np.zeros((48, 96), np.int8)), 48, 96)
    factor = activation.outputs[0] if both else sequence
    (work,) = count(activation, weight, node("MatMul", [factor, weight.outputs[0]], "batch", 77, 96))
    assert (work.kind, work.arithmetic, work.weight_bytes) == ("matmul", arithmetic, 48 * 96)


def test_layers_of_one_kind_are_one_group():
    square = [constant(f"w{i}", np.zeros((48, 48), np.float32)) for i in range(2)]
    first = node("MatMul", [value("x", "batch", 77, 48), square[0]], "batch", 77, 48)
    (work,) = count(first, node("MatMul", [first.outputs[0], square[1]], "batch", 77, 48))
    assert (work.layers, work.macs, work.weight_bytes) == (2, 2 * 77 * 48 * 48, 2 * 48 * 48 * 4)


def test_what_cannot_be_counted_is_refused():
    def weight() -> ir.Value:
        return constant("w", np.zeros((48, 96), np.float32))

    with pytest.raises(ValueError, match="the Einsum: the products of Einsum are not counted"):
        count(node("Einsum", [value("x", "batch", 77, 48), weight()], "batch", 77, 96))
    with pytest.raises(ValueError, match="free dimension besides batch and prompt"):
        count(node("MatMul", [value("x", "batch", "length", 48), weight()], "batch", "length", 96))
    unknown = node("MatMul", [value("x", "batch", 77, 48), weight()], "batch", 77, 96)
    unknown.outputs[0].shape = None
    with pytest.raises(ValueError, match="is unknown"):
        count(unknown)
