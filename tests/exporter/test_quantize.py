"""Quantized graphs against the same arithmetic written out in numpy, and against the float graphs they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from nano_export.quantize import (
    PLANS,
    Range,
    Rule,
    quantize,
    tensors_to_calibrate,
    write_watching_graph,
)
from nano_export.quantize.grids import quantized_weight
from nano_export.quantize.plan import scheme_for
from nano_runtime.system.machine import describe_machine

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
EVERYTHING = (Rule("*", "w8a8", "a test"),)
WEIGHTS_ONLY = (Rule("*", "w8", "a test"),)
LEVELS = [onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL]
# Where nothing is rounded after a sum, engine and numpy differ by float32 roundings alone.
TOLERANCE = 2e-6

Feeds = dict[str, np.ndarray]


def value(name: str, shape: Sequence[int | str], dtype: ir.DataType = FLOAT) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def constant(name: str, array: np.ndarray | np.float32) -> ir.Value:
    tensor = ir.tensor(np.asarray(array), name=name)
    return ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))


def layer(op: str, inputs: Sequence[ir.Value], name: str, shape: Sequence[int | str], **attributes: Any) -> ir.Node:
    """A node with a named and typed output ``NAME.out``."""
    node = ir.node(op, inputs, attributes=attributes, name=name)
    (output,) = node.outputs
    output.name, output.shape, output.type = f"{name}.out", ir.Shape(shape), ir.TensorType(FLOAT)
    return node


def model(inputs: Sequence[ir.Value], nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> ir.Model:
    used = {one.name: one for node in nodes for one in node.inputs if one is not None and one.const_value is not None}
    graph = ir.Graph(
        inputs, outputs, nodes=nodes, initializers=list(used.values()), opset_imports={"": 20}, name="test"
    )
    return ir.Model(graph, ir_version=10)


def compute(source: ir.Model, feeds: Feeds, level: onnxruntime.GraphOptimizationLevel = LEVELS[0]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    # In f32, as the runtime has it.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    content = ir.to_proto(source).SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def observed(source: Callable[[], ir.Model], rules: tuple[Rule, ...], feeds: Feeds, folder: Path) -> dict[str, Range]:
    """Find ranges as calibration does: by running the graph with its extremes as further outputs."""
    tensors = tensors_to_calibrate(source(), rules)
    ir.save(source(), folder / "plain.onnx")
    write_watching_graph(folder / "plain.onnx", tensors, folder / "watching.onnx")
    session = onnxruntime.InferenceSession(folder / "watching.onnx", providers=["CPUExecutionProvider"])
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))
    return {name: Range(float(found[f"{name}.low"].min()), float(found[f"{name}.high"].max())) for name in tensors}


def fake(x: np.ndarray, extent: Range) -> np.ndarray:
    """Round to the uint8 grid and back, as QuantizeLinear (half to even, saturating) and DequantizeLinear define it."""
    scale, zero = extent.uint8_parameters()
    q = np.clip(np.rint(x / scale) + np.float32(zero), 0, 255)
    return ((q - np.float32(zero)) * scale).astype(np.float32)


def fake_weight(weight: np.ndarray, axis: int, limit: int = 63) -> np.ndarray:
    """The same for a weight, in a loop over its channels."""
    rows = []
    for row in np.moveaxis(weight, axis, 0):
        scale = np.float32(np.abs(row).max() / np.float32(limit))
        rows.append(np.clip(np.rint(row / scale), -limit, limit) * scale)
    return np.moveaxis(np.stack(rows), 0, axis).astype(np.float32)


def fake_bias(bias: np.ndarray, weight: np.ndarray, extent: Range) -> np.ndarray:
    """A convolution's bias counts in units of weight scale times activation scale."""
    unit = np.abs(weight).reshape(len(weight), -1).max(1) / 63 * np.float64(extent.uint8_parameters()[0])
    return np.rint(bias / unit) * unit


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3 x 3, padded by one, in float64."""
    inputs, weights, biases = (torch.from_numpy(array.astype(np.float64)) for array in (x, weight, bias))
    return torch.nn.functional.conv2d(inputs, weights, biases, padding=1).numpy()


def within_one_step(actual: np.ndarray, expected: np.ndarray, step: float) -> bool:
    """Equal up to float32 rounding, but for few values near the middle between two steps, which go either way."""
    difference = np.abs(actual - expected)
    return bool(difference.max() < 1.01 * step and (difference > 0.01 * step).mean() < 0.005)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Convolutions


@pytest.fixture
def convolutions(rng) -> Callable[[], ir.Model]:
    """Two convolutions in a row, the first off centre so that padding with anything but zero would show."""
    arrays = {
        "w1": rng.normal(size=(6, 3, 3, 3)) * rng.uniform(0.1, 2, (6, 1, 1, 1)),
        "b1": rng.normal(size=6) + 2,
        "w2": rng.normal(size=(4, 6, 3, 3)),
        "b2": rng.normal(size=4),
    }

    def build() -> ir.Model:
        x = value("x", (2, 3, 8, 8))
        w1, b1, w2, b2 = (constant(name, array.astype(np.float32)) for name, array in arrays.items())
        first = layer("Conv", [x, w1, b1], "first/Conv", (2, 6, 8, 8), pads=[1, 1, 1, 1])
        second = layer("Conv", [first.outputs[0], w2, b2], "second/Conv", (2, 4, 8, 8), pads=[1, 1, 1, 1])
        after = layer("Relu", [second.outputs[0]], "after/Relu", (2, 4, 8, 8))
        return model([x], [first, second, after], after.outputs)

    return build


@pytest.fixture
def picture(rng) -> np.ndarray:
    return (rng.normal(size=(2, 3, 8, 8)) + 1.5).astype(np.float32)


@pytest.mark.parametrize("level", LEVELS, ids=["as written", "fused"])
def test_convolutions_compute_the_integer_arithmetic(convolutions, picture, tmp_path, level):
    ranges = observed(convolutions, EVERYTHING, {"x": picture}, tmp_path)
    assert list(ranges) == ["x", "first/Conv.out", "second/Conv.out"]
    weights = {name: one.const_value.numpy() for name, one in convolutions().graph.initializers.items()}
    x = fake(picture, ranges["x"])
    middle = convolve(x, fake_weight(weights["w1"], 0), fake_bias(weights["b1"], weights["w1"], ranges["x"]))
    middle = fake(middle.astype(np.float32), ranges["first/Conv.out"])
    bias = fake_bias(weights["b2"], weights["w2"], ranges["first/Conv.out"])
    last = fake(convolve(middle, fake_weight(weights["w2"], 0), bias).astype(np.float32), ranges["second/Conv.out"])
    expected = np.maximum(last, 0)
    step = float(ranges["second/Conv.out"].uint8_parameters()[0])

    quantized = convolutions()
    assert quantize(quantized, EVERYTHING, ranges) == {"w8a8": 2, "w8": 0, "float": 0}
    assert within_one_step(compute(quantized, {"x": picture}, level), expected, step)

    # Negative controls: a scale that is 2 % off, and float arithmetic, are both noticed.
    wrong = convolutions()
    quantize(wrong, EVERYTHING, {**ranges, "x": Range(ranges["x"].low, ranges["x"].high * 1.02)})
    assert not within_one_step(compute(wrong, {"x": picture}, level), expected, step)
    assert not within_one_step(compute(convolutions(), {"x": picture}, level), expected, step)


def test_a_convolution_in_front_of_another_is_quantized_once(convolutions, picture, tmp_path):
    ranges = observed(convolutions, EVERYTHING, {"x": picture}, tmp_path)
    quantized = convolutions()
    quantize(quantized, EVERYTHING, ranges)
    assert [node.op_type for node in quantized.graph].count("QuantizeLinear") == 3  # x, between the two, after them
    second = next(node for node in quantized.graph if node.name == "second/Conv")
    assert [one.producer().op_type for one in second.inputs] == ["DequantizeLinear"] * 3
    assert [one.producer().inputs[0].dtype.name for one in second.inputs] == ["UINT8", "INT8", "INT32"]


def test_a_convolution_that_ends_the_graph_keeps_a_float_output(rng):
    weight = rng.normal(size=(2, 3, 3, 3)).astype(np.float32)
    x = value("x", (1, 3, 4, 4))
    last = layer("Conv", [x, constant("w", weight)], "last/Conv", (1, 2, 4, 4), pads=[1, 1, 1, 1])
    quantized = model([x], [last], last.outputs)
    ranges = {"x": Range(-3, 3), "last/Conv.out": Range(-9, 9)}
    quantize(quantized, EVERYTHING, ranges)
    feed = rng.uniform(-3, 3, (1, 3, 4, 4)).astype(np.float32)
    expected = convolve(fake(feed, ranges["x"]), fake_weight(weight, 0), np.zeros(2))
    np.testing.assert_allclose(compute(quantized, {"x": feed}), expected, rtol=0, atol=20 * TOLERANCE)


def test_padding_is_zero_on_the_integer_grid(convolutions, picture, tmp_path):
    """A picture of one colour far from zero: its border shows what is padded with."""
    ranges = observed(convolutions, EVERYTHING, {"x": picture}, tmp_path)
    quantized = convolutions()
    quantize(quantized, EVERYTHING, ranges)
    flat = np.full_like(picture, 2.0)
    step = float(ranges["second/Conv.out"].uint8_parameters()[0])
    difference = compute(quantized, {"x": flat}) - compute(convolutions(), {"x": flat})
    assert np.abs(difference).max() < 8 * step


# Linear layers and tables


@pytest.fixture
def linears(rng) -> Callable[[], ir.Model]:
    """Two linear layers that read the same activation, and a product of two activations."""
    arrays = {"a": rng.normal(size=(8, 5)), "b": rng.normal(size=(8, 5)) * 3}

    def build() -> ir.Model:
        x = value("x", (2, 4, 8))
        a, b = (constant(name, array.astype(np.float32)) for name, array in arrays.items())
        left = layer("MatMul", [x, a], "left/MatMul", (2, 4, 5))
        right = layer("MatMul", [x, b], "right/MatMul", (2, 4, 5))
        turned = layer("Transpose", [right.outputs[0]], "turned/Transpose", (2, 5, 4), perm=[0, 2, 1])
        product = layer("MatMul", [left.outputs[0], turned.outputs[0]], "product/MatMul", (2, 4, 4))
        return model([x], [left, right, turned, product], product.outputs)

    return build


@pytest.fixture
def tokens(rng) -> np.ndarray:
    return rng.normal(size=(2, 4, 8)).astype(np.float32)


@pytest.mark.parametrize("level", LEVELS, ids=["as written", "fused"])
@pytest.mark.parametrize("rules", [EVERYTHING, WEIGHTS_ONLY], ids=["w8a8", "w8"])
def test_linear_layers_compute_the_integer_arithmetic(linears, tokens, tmp_path, rules, level):
    ranges = observed(linears, rules, {"x": tokens}, tmp_path)
    assert list(ranges) == ["x"]  # watched for weights alone, too: their scale depends on it
    x = fake(tokens, ranges["x"]) if rules == EVERYTHING else tokens
    weights = {name: one.const_value.numpy() for name, one in linears().graph.initializers.items()}
    limit = 63 if rules == EVERYTHING else 127  # alone, they meet no integers with which they could overflow
    left, right = (x.astype(np.float64) @ fake_weight(weights[name], 1, limit) for name in "ab")
    expected = left @ right.transpose(0, 2, 1)

    quantized = linears()
    assert quantize(quantized, rules, ranges) == {"w8a8": 0, "w8": 0, "float": 0} | {rules[0].scheme: 2}
    shared = int(rules == EVERYTHING)  # weights alone leave their activation as it is
    assert [node.op_type for node in quantized.graph].count("QuantizeLinear") == shared
    tolerance = TOLERANCE * np.abs(expected).max()
    np.testing.assert_allclose(compute(quantized, {"x": tokens}, level), expected, rtol=0, atol=tolerance)
    assert np.abs(compute(linears(), {"x": tokens}) - expected).max() > 100 * tolerance  # negative control: float


def test_the_largest_products_do_not_saturate():
    """All weights and activations at their ends: without VNNI, kernels add two such products in 16 signed bits."""
    inner = 64

    def build() -> ir.Model:
        x, ones = value("x", (1, inner)), constant("w", np.ones((inner, 8), np.float32))
        linear = layer("MatMul", [x, ones], "full/MatMul", (1, 8))
        return model([x], [linear], linear.outputs)

    quantized, feed = build(), {"x": np.ones((1, inner), np.float32)}
    quantize(quantized, EVERYTHING, {"x": Range(0, 1)})
    np.testing.assert_allclose(compute(quantized, feed, LEVELS[1]), inner, rtol=1e-6)

    isa = describe_machine().isa
    if isa is not None and "avx2" in isa and not {"avx512_vnni", "avx_vnni"} & set(isa):
        # Negative control, where the processor allows one: the same values on the full range of int8.
        for name, array in (
            ("w.int8", np.full((inner, 8), 127, np.int8)),
            ("w.scale", np.full(8, 1 / 127, np.float32)),
        ):
            quantized.graph.initializers[name].const_value = ir.tensor(array, name=name)
        np.testing.assert_allclose(compute(quantized, feed, LEVELS[0]), inner, rtol=1e-6)
        assert compute(quantized, feed, LEVELS[1]).max() < 0.6 * inner


@pytest.mark.parametrize("level", LEVELS, ids=["as written", "fused"])
def test_tables_are_looked_up_in_integers(rng, level):
    table = (rng.normal(size=(10, 6)) * rng.uniform(0.01, 5, (10, 1))).astype(np.float32)
    table[3] = 0
    ids = value("ids", (2, 3), INT64)
    rows = layer("Gather", [constant("table", table), ids], "embed/Gather", (2, 3, 6))
    after = layer("Neg", rows.outputs, "after/Neg", (2, 3, 6))
    quantized = model([ids], [rows, after], after.outputs)
    assert quantize(quantized, WEIGHTS_ONLY, {}) == {"w8a8": 0, "w8": 1, "float": 0}
    assert "table" not in quantized.graph.initializers
    assert quantized.graph.initializers["table.int8"].dtype == ir.DataType.INT8

    feed = np.array([[0, 3, 9], [3, 1, 1]])
    actual = -compute(quantized, {"ids": feed}, level)
    assert (actual[feed == 3] == 0).all()
    others = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    expected = np.zeros_like(table)
    expected[others] = fake_weight(table[others], 0, 127)
    np.testing.assert_array_equal(actual, expected[feed])
    assert np.abs(actual - table[feed]).max() > 0  # it was rounded


# Weights, grids, rules, ranges


@pytest.mark.parametrize(("shape", "axis"), [((6, 3, 3, 3), 0), ((8, 5), 1), ((8, 5), 0)])
def test_weights_keep_within_half_a_step(rng, shape, axis):
    weight = rng.normal(size=shape).astype(np.float32)
    q, scale = quantized_weight(weight, axis)
    assert (q.dtype, scale.dtype, scale.shape) == (np.dtype(np.int8), np.dtype(np.float32), (shape[axis],))
    assert np.abs(q).max() == 63
    steps = np.moveaxis(np.abs(np.moveaxis(weight, axis, -1) - np.moveaxis(q, axis, -1) * scale) / scale, -1, axis)
    assert 0.25 < steps.max() <= 0.5 * (1 + 1e-5)
    np.testing.assert_array_equal(np.moveaxis(np.moveaxis(q, axis, -1) * scale, -1, axis), fake_weight(weight, axis))


def test_a_channel_of_zeros_has_a_scale():
    q, scale = quantized_weight(np.array([[0, 0], [0.5, -2]], np.float32), 0)
    assert q.tolist() == [[0, 0], [16, -63]]
    assert scale.tolist() == [1.0, np.float32(2 / 63)]


@pytest.mark.parametrize(
    ("low", "high", "zero"),
    [
        (-1.0, 2.0, 85),
        (0.0, 5.0, 0),
        (-5.0, 0.0, 255),
        (2.0, 5.0, 0),  # reaches down to zero
        (-5.0, -2.0, 255),  # reaches up to zero
        (-0.1, 100.0, 0),
        (-1.0, 3.0, 64),
        (0.0, 0.0, 0),
    ],
)
def test_the_grid_covers_the_range_and_has_an_exact_zero(low, high, zero):
    scale, zero_point = Range(low, high).uint8_parameters()
    assert (int(zero_point), zero_point.dtype, scale.dtype) == (zero, np.dtype(np.uint8), np.dtype(np.float32))
    assert fake(np.zeros(1, np.float32), Range(low, high))[0] == 0
    ends = np.array([low, high], np.float32)
    assert np.abs(fake(ends, Range(low, high)) - ends).max() <= 0.51 * scale
    wider = fake(ends * 2, Range(low, high))
    assert np.abs(wider).max() <= max(abs(low), abs(high)) + 0.51 * scale  # what lies beyond saturates


def test_the_first_matching_rule_decides():
    rules = (Rule("a/Conv", "float", ""), Rule("a/*", "w8", ""), Rule("*/Conv", "w8a8", ""))
    names = ["a/Conv", "a/MatMul", "b/Conv", "b/MatMul", "A/Conv"]
    assert [scheme_for(rules, name) for name in names] == ["float", "w8", "w8a8", "float", "w8a8"]
    assert scheme_for(rules[::-1], "a/Conv") == "w8a8"


def test_layers_that_stay_float_are_left_alone(convolutions, picture):
    untouched, before = convolutions(), convolutions()
    assert quantize(untouched, (Rule("*", "float", "a test"),), {}) == {"w8a8": 0, "w8": 0, "float": 2}
    assert [node.op_type for node in untouched.graph] == [node.op_type for node in before.graph]
    np.testing.assert_array_equal(compute(untouched, {"x": picture}), compute(before, {"x": picture}))


def test_a_missing_range_is_an_error(convolutions):
    with pytest.raises(KeyError, match=r"first/Conv\.out"):
        quantize(convolutions(), EVERYTHING, {"x": Range(0, 1)})


def test_watching_finds_the_extremes_and_changes_nothing_else(convolutions, picture, tmp_path):
    ranges = observed(convolutions, EVERYTHING, {"x": picture}, tmp_path)
    assert ranges["x"] == Range(float(picture.min()), float(picture.max()))
    weights = {name: one.const_value.numpy() for name, one in convolutions().graph.initializers.items()}
    middle = convolve(picture, weights["w1"], weights["b1"])
    assert ranges["first/Conv.out"].low == pytest.approx(middle.min(), abs=1e-4)
    assert ranges["first/Conv.out"].high == pytest.approx(middle.max(), abs=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "watching.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(
        session.run(["after/Relu.out"], {"x": picture})[0],
        compute(convolutions(), {"x": picture}, LEVELS[1]),
    )


def test_every_rule_gives_its_reason():
    assert all(rule.reason for rules in PLANS["w8a8"].values() for rule in rules)
