"""Graphs for onnxruntime alone against the same graphs before their operators were joined, and against torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from nano_export.graph.passes import TRACE_BATCH, free_batch
from nano_export.graph.to_onnx import to_onnx
from nano_export.quantize import (
    Range,
    Rule,
    join_attention,
    join_biases,
    lower_convolutions,
    quantize,
    tensors_to_calibrate,
)

EVERYTHING = (Rule("*", "w8a8", "a test", product_up_to=64),)
HEADS, WIDTH, LENGTH, TOKENS = 2, 8, 6, 5
B = TRACE_BATCH
TOLERANCE = 2e-6  # of sums in another order
LEVELS = [onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL]


class Products(nn.Module):
    """A layer with a bias, one without, and one whose product is added to another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(WIDTH, 5), nn.Linear(WIDTH, 5, bias=False), nn.Linear(WIDTH, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(x) + self.a(x) * self.b(x)


class Timed(nn.Module):
    """The first convolution of a residual block: its bias comes in from outside, one for all pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, 5, 3, padding=1, bias=False)

    def forward(self, x: Tensor, time_bias: Tensor) -> Tensor:
        return torch.tanh(self.conv(x) + time_bias[:, :, None, None])


class Attends(nn.Module):
    """Tokens to themselves, and then to a prompt whose keys and values come in ready, as in a hoisted UNet."""

    def __init__(self, *, mask: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v, self.q2 = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.mask = torch.triu(torch.full((LENGTH, LENGTH), -10.0), 1) if mask else None

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        def split(tokens: Tensor) -> Tensor:
            return tokens.view(*tokens.shape[:2], HEADS, -1).transpose(1, 2)

        scores = split(self.q(x) * 0.5) @ split(self.k(x)).transpose(2, 3)
        scores = scores if self.mask is None else scores + self.mask
        own = (torch.softmax(scores, -1) @ split(self.v(x))).transpose(1, 2).flatten(2)
        given = torch.softmax(split(self.q2(own)) @ key.transpose(2, 3), -1) @ value
        return torch.tanh(given.transpose(1, 2).flatten(2))


def traced(module: nn.Module, **inputs: Tensor) -> ir.Model:
    model = to_onnx(module.eval(), tuple(inputs.values()), list(inputs), ["y"])
    lower_convolutions(model, EVERYTHING)
    free_batch(model, TRACE_BATCH)
    return model


def quantized(module: nn.Module, **inputs: Tensor) -> ir.Model:
    model = traced(module, **inputs)
    quantize(model, EVERYTHING, dict.fromkeys(tensors_to_calibrate(model, EVERYTHING), Range(-3, 3)))
    return model


def compute(
    model: ir.Model, feeds: Mapping[str, Tensor], level: onnxruntime.GraphOptimizationLevel = LEVELS[1]
) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})[0]


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def products() -> tuple[dict[str, Tensor], onnx.ModelProto, onnx.ModelProto]:
    """The input of a network, and its graph before and after a bias was moved."""
    torch.manual_seed(0)
    module, feeds = Products(), {"x": torch.randn(B, LENGTH, WIDTH)}
    graph = ir.to_proto(quantized(module, **feeds))
    with torch.no_grad():
        module.a.bias.add_(1e-3)
    return feeds, graph, ir.to_proto(quantized(module, **feeds))


@pytest.fixture(scope="module")
def timed() -> tuple[dict[str, Tensor], onnx.ModelProto]:
    """The inputs of a convolution with a time bias for all pictures, and its graph."""
    torch.manual_seed(0)
    module, feeds = Timed(), {"x": torch.randn(B, WIDTH, 4, 4), "time_bias": torch.randn(1, 5)}
    return feeds, ir.to_proto(quantized(module, **feeds))


@pytest.mark.parametrize("level", LEVELS, ids=["as written", "fused"])
def test_a_product_joined_with_its_bias_computes_the_same(products, level):
    feeds, graph, other = products
    joined = ir.from_proto(graph)
    assert join_biases(joined) == 1
    assert operators(joined) == {"MatMulIntegerToFloat": 3, "QuantizeLinear": 1, "Mul": 1, "Add": 1}
    expected = compute(ir.from_proto(graph), feeds, level)
    assert error(compute(joined, feeds, level), expected) < TOLERANCE
    moved = ir.from_proto(other)  # the negative control
    join_biases(moved)
    assert error(compute(moved, feeds, level), expected) > 100 * TOLERANCE


@pytest.mark.parametrize("level", LEVELS, ids=["as written", "fused"])
def test_a_convolution_joined_with_its_time_bias_computes_the_same(timed, level):
    feeds, graph = timed
    joined = ir.from_proto(graph)
    assert operators(joined)["Add"] == 1
    assert join_biases(joined) == 1
    assert operators(joined)["Add"] == 0
    expected = compute(ir.from_proto(graph), feeds, level)
    assert error(compute(joined, feeds, level), expected) < TOLERANCE
    moved = {**feeds, "time_bias": feeds["time_bias"] + 1e-3}  # the negative control
    assert error(compute(joined, moved, level), expected) > 100 * TOLERANCE


def test_a_bias_of_each_picture_stays_a_sum():
    module, feeds = Timed(), {"x": torch.randn(B, WIDTH, 4, 4), "time_bias": torch.randn(B, 5)}
    joined = quantized(module, **feeds)
    graph = ir.to_proto(joined)
    assert join_biases(joined) == 0
    assert operators(joined)["Add"] == 1
    assert error(compute(joined, feeds), compute(ir.from_proto(graph), feeds)) < TOLERANCE


def test_joined_attention_computes_what_torch_does():
    module = Attends()
    feeds = {"x": torch.randn(B, LENGTH, WIDTH)}
    feeds |= {name: torch.randn(B, HEADS, TOKENS, WIDTH // HEADS) for name in ("key", "value")}
    joined = traced(module, **feeds)
    assert join_attention(joined) == 2
    assert operators(joined) == {"MatMul": 4, "MultiHeadAttention": 2, "Tanh": 1}
    with torch.no_grad():
        expected = module(**feeds).numpy()
    assert error(compute(joined, feeds), expected) < TOLERANCE
    for node in joined.graph:  # the negative control: a scale that is a thousandth larger
        if node.op_type == "MultiHeadAttention":
            node.attributes["scale"] = ir.AttrFloat32("scale", 1.001 * node.attributes.get_float("scale"))
    assert error(compute(joined, feeds), expected) > 20 * TOLERANCE


def test_masked_attention_stays():
    module = Attends(mask=True)
    feeds = {"x": torch.randn(B, LENGTH, WIDTH)}
    feeds |= {name: torch.randn(B, HEADS, TOKENS, WIDTH // HEADS) for name in ("key", "value")}
    joined = traced(module, **feeds)
    assert join_attention(joined) == 1  # the prompt's
    assert operators(joined)["Softmax"] == 1
    with torch.no_grad():
        expected = module(**feeds).numpy()
    assert error(compute(joined, feeds), expected) < TOLERANCE
