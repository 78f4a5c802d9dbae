"""Convolutions written as matrix products, against torch's convolutions of the same numbers, float and quantized."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from nano_export.quantize import Range, Rule, lower_convolutions, quantize, tensors_to_calibrate
from nano_export.quantize.convolutions import seen_pixels

RULES = (Rule("*/Conv*", "w8a8", "a test", product_up_to=64),)
# Float32 sums of up to 54 products, in another order than torch's.
TOLERANCE = 2e-6
# Kernel, stride, and pads as ONNX has them: top, left, bottom, right. The last is how diffusers' encoder halves a map.
FORMS = [(3, 1, (1, 1, 1, 1)), (3, 2, (1, 1, 1, 1)), (1, 1, (0, 0, 0, 0)), (3, 2, (0, 0, 1, 1))]
X, W, B = (2, 6, 8, 8), 5, 2.5


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, pads: tuple[int, ...]) -> np.ndarray:
    """In float64; the bias comes after."""
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(x.astype(np.float64)), (left, right, top, bottom))
    weights = torch.from_numpy(weight.astype(np.float64))
    return torch.nn.functional.conv2d(padded, weights, torch.from_numpy(bias.astype(np.float64)), stride).numpy()


def compute(model: ir.Model, x: np.ndarray) -> np.ndarray:
    content = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def to_grid(x: np.ndarray, extent: Range) -> np.ndarray:
    scale, zero = extent.uint8_parameters()
    return (np.clip(np.rint(x / scale) + float(zero), 0, 255) - float(zero)) * scale


def to_weight_grid(weight: np.ndarray) -> np.ndarray:
    scale = np.abs(weight).reshape(len(weight), -1).max(1)[:, None, None, None] / 63
    return np.rint(weight / scale) * scale


@pytest.fixture(params=FORMS, ids=["3x3", "3x3 halving", "1x1", "3x3 halving, padded behind"])
def form(request) -> tuple[int, int, tuple[int, ...]]:
    return request.param


@pytest.fixture
def numbers(form) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels off centre, so that padding with anything but zero would show; a kernel; a bias."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=X) + 1.5
    weight = rng.normal(size=(W, X[1], form[0], form[0])) * rng.uniform(0.1, 2, (W, 1, 1, 1))
    return x.astype(np.float32), weight.astype(np.float32), (rng.normal(size=W) + B).astype(np.float32)


@pytest.fixture
def build(form, numbers) -> Callable[..., ir.Model]:
    """A convolution between two operators that see the feature map as it was."""

    def value(node: ir.Node, name: str, shape: tuple[int, ...]) -> ir.Value:
        output = node.outputs[0]
        output.name, output.shape, output.type = name, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        return output

    def make(**more: object) -> ir.Model:
        _, stride, pads = form
        _, weight, bias = numbers
        side = (X[2] + pads[0] + pads[2] - form[0]) // stride + 1
        source = ir.Value(name="x", shape=ir.Shape(X), type=ir.TensorType(ir.DataType.FLOAT))
        w, b = (ir.Value(name=n, const_value=ir.tensor(a, name=n), shape=ir.Shape(a.shape)) for n, a in
                (("w", weight), ("b", bias)))  # fmt: skip
        before = ir.node("Neg", [source], name="before/Neg")
        attributes: dict[str, Any] = {"pads": list(pads), "strides": [stride, stride], **more}
        middle = ir.node("Conv", [value(before, "negative", X), w, b], attributes=attributes, name="middle/Conv")
        made = (X[0], W, side, side)
        after = ir.node("Neg", [value(middle, "convolved", made)], name="after/Neg")
        outputs = [value(after, "y", made)]
        graph = ir.Graph([source], outputs, nodes=[before, middle, after], initializers=[w, b],
                         opset_imports={"": 20}, name="test")  # fmt: skip
        return ir.Model(graph, ir_version=10)

    return make


def test_products_compute_the_convolution(build, numbers, form):
    x, weight, bias = numbers
    lowered = build()
    assert lower_convolutions(lowered, RULES) == 1
    assert "Conv" not in {node.op_type for node in lowered.graph}
    expected = -convolve(-x, weight, bias, *form[1:])
    assert error(compute(lowered, x), expected) < TOLERANCE
    # Negative control: a kernel whose taps are in another order.
    turned = np.ascontiguousarray(weight.transpose(0, 1, 3, 2)) if form[0] > 1 else weight[::-1]
    assert error(compute(lowered, x), -convolve(-x, turned, bias, *form[1:])) > 1000 * TOLERANCE


def test_quantized_products_gather_bytes_and_keep_their_sums(build, numbers, form):
    x, weight, bias = numbers
    lowered = build()
    lower_convolutions(lowered, RULES)
    (watched,) = tensors_to_calibrate(lowered, RULES)
    extent = Range(float((-x).min()), float((-x).max()))
    assert quantize(lowered, RULES, {watched: extent}) == {"w8a8": 1, "w8": 0, "float": 0}
    gathers = [node for node in lowered.graph if node.op_type == "Gather"]
    assert [node.outputs[0].dtype for node in gathers] == [ir.DataType.UINT8] * (form[0] > 1)
    quantizers = [node.op_type for node in lowered.graph].count("QuantizeLinear")
    assert quantizers == 1  # nothing rounds what the product computes
    expected = -convolve(to_grid(-x, extent), to_weight_grid(weight), bias, *form[1:])
    assert error(compute(lowered, x), expected) < TOLERANCE
    # Negative controls: float arithmetic, and a border that is not zero.
    assert error(compute(build(), x), expected) > 1000 * TOLERANCE
    if max(form[2]) > 0:
        pad = next(node for node in lowered.graph if node.op_type == "Pad")
        pad.replace_input_with(2, None)  # which means 0, the smallest value
        assert error(compute(lowered, x), expected) > 1000 * TOLERANCE


def test_large_maps_stay_convolutions(build):
    small = (Rule("*/Conv*", "w8a8", "a test", product_up_to=15),)
    for rules in (small, (Rule("other", "w8a8", "a test", product_up_to=64),)):
        untouched = build()
        assert lower_convolutions(untouched, rules) == 0
        assert [node.op_type for node in untouched.graph] == ["Neg", "Conv", "Neg"]


def test_what_is_not_understood_is_refused(build):
    with pytest.raises(ValueError, match="groups and dilations"):
        lower_convolutions(build(dilations=[2, 2]), RULES)


def test_pixels_are_seen_as_torch_unfolds_them():
    numbered = torch.arange(1.0, 31.0).reshape(1, 1, 5, 6)
    unfolded = torch.nn.functional.unfold(numbered, 3, padding=1, stride=2)[0].T.numpy()  # [9 outputs, 9 weights]
    seen = seen_pixels((5, 6), (3, 3), (3, 3), [2, 2], [1, 1, 1, 1])
    np.testing.assert_array_equal(np.append(np.arange(1.0, 31.0), 0.0)[seen], unfolded)
