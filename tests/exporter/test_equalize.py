"""Dividing an activation and multiplying the weights that read it changes no result, wherever the division goes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from nano_export.graph.passes import TRACE_BATCH
from nano_export.graph.to_onnx import to_onnx
from nano_export.networks.attention import write_out
from nano_export.quantize import (
    Range,
    Rule,
    divide_output,
    lower_convolutions,
    quantize,
    tensors_to_calibrate,
    write_watching_graph,
)
from nano_export.quantize.equalize import Place, can_shift, divide, place_of, shift
from nano_export.quantize.layers import Layer, readers_together
from nano_export.quantize.written import first_fault

RULES = (Rule("*/MatMul*", "w8a8", "a test"), Rule("*/Conv*", "w8a8", "a test", product_up_to=16))
TOLERANCE = 2e-5  # of the output's range: float32, in another order


class Normed(nn.Module):
    """A layer norm that two linear layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.one, self.two = nn.LayerNorm(8), nn.Linear(8, 6), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        product: Tensor = self.one(normed) * self.two(normed)
        return product


class Grouped(nn.Module):
    """A group norm before a linear layer over places, as a transformer in a UNet begins."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.proj_in = nn.GroupNorm(2, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.proj_in(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        return projected


class Gated(nn.Module):
    """A gated feed-forward network: only its values are linear."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FeedForward(8, activation_fn="geglu")
        self.value, self.gate, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.value(x) * nn.functional.gelu(self.gate(x)))
        return out


class Attending(nn.Module):
    """Self-attention: its output is linear in the values."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(8, heads=2, dim_head=4, bias=True)
        write_out(self.attention)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x)
        return out


class Activated(nn.Module):
    """A group norm, a SiLU and a convolution, which no scale passes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        convolved: Tensor = self.conv(nn.functional.silu(self.norm(x)))
        return convolved


class Summed(nn.Module):
    """A linear layer that reads a sum of places: nothing before it can be divided."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x) + x)
        return out


TOKENS, MAP = (5, 8), (8, 4, 4)
CASES: dict[str, tuple[type[nn.Module], tuple[int, ...], str, Place]] = {
    "layer norm": (Normed, TOKENS, "one/MatMul", "norm"),
    "group norm": (Grouped, MAP, "proj_in/MatMul", "affine"),
    "values of a gate": (Gated, TOKENS, "out/MatMul", "product"),
    "values of an attention": (Attending, TOKENS, "to_out.0/MatMul", "product"),
    "behind an activation": (Activated, MAP, "conv/Conv/MatMul", "quantizer"),
    "a sum": (Summed, TOKENS, "two/MatMul", "multiply"),
}


@functools.cache
def traced(name: str) -> onnx.ModelProto:
    """Trace once; every test gets a copy."""
    kind, shape, _, _ = CASES[name]
    torch.manual_seed(0)
    module = kind().eval()
    for parameter in module.parameters():  # norms begin as 1 and 0
        parameter.data += 0.3 * torch.randn(parameter.shape)
    model = to_onnx(module, (torch.zeros(TRACE_BATCH, *shape),), ["x"], ["y"])
    lower_convolutions(model, RULES)
    return ir.to_proto(model)


@pytest.fixture(params=CASES, ids=str)
def case(request) -> tuple[Callable[[], ir.Model], np.ndarray, str, Place]:
    """A graph, an input, the layer whose activation is divided, and where the division is expected."""
    _, shape, layer, place = CASES[request.param]
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    return (lambda: ir.from_proto(traced(request.param))), x, layer, place


def compute(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def readers_of(model: ir.Model, name: str) -> list[Layer]:
    return next(list(group) for group in readers_together(model, RULES) if name in {one.name for one in group})


def scale_for(layers: list[Layer]) -> np.ndarray:
    """Eight factors: each activation here has eight channels, but for the one behind the gate."""
    shape = layers[0].source.shape
    channels = 16 if shape is not None and shape[-1] == 16 else 8
    return np.exp(np.random.default_rng(1).normal(size=channels)).astype(np.float32)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / (other.max() - other.min()))


def test_a_division_is_found_its_place_and_changes_nothing(case):
    build, x, name, expected = case
    model = build()
    layers = readers_of(model, name)
    assert place_of(layers[0].source, layers) == expected
    place, of_input = divide(model, layers[0].source, layers, scale_for(layers))
    assert (place, of_input) == (expected, "")
    if expected == "quantizer":  # the quantizer of the graph divides; the float graph does not
        assert apart(compute(model, {"x": x}), compute(build(), {"x": x})) > 0.05
    else:
        assert apart(compute(model, {"x": x}), compute(build(), {"x": x})) < TOLERANCE


TAKES_A_CONSTANT = {"layer norm", "group norm", "values of an attention"}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("anywhere", [False, True])
def test_a_constant_is_taken_from_an_activation_and_changes_nothing(name, anywhere):
    _, shape, reader, _ = CASES[name]
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    model = ir.from_proto(traced(name))
    layers = readers_of(model, reader)
    source = layers[0].source
    possible = name in TAKES_A_CONSTANT or (anywhere and name == "a sum")
    assert can_shift(source, layers, anywhere=anywhere) == possible
    if not possible:
        return
    offset = 5 * np.log(scale_for(layers))
    shifted = shift(model, source, layers, offset)
    assert (shifted is source) == (name in TAKES_A_CONSTANT)
    expected = compute(ir.from_proto(traced(name)), {"x": x})
    assert apart(compute(model, {"x": x}), expected) < TOLERANCE
    moved = activation(ir.from_proto(traced(name)), source, x) - activation(model, shifted, x)
    np.testing.assert_allclose(moved, np.broadcast_to(offset, moved.shape), atol=1e-4)  # it was really taken away
    assert divide(model, shifted, layers, scale_for(layers))[0] in {"norm", "affine", "product", "multiply"}
    assert apart(compute(model, {"x": x}), expected) < TOLERANCE  # both together, too


def activation(model: ir.Model, wanted: ir.Value, x: np.ndarray) -> np.ndarray:
    """Return what a value is in a graph for an input, its channels last."""
    model = ir.from_proto(ir.to_proto(model))
    value = next(value for node in model.graph for value in node.outputs if value.name == wanted.name)
    value.type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs[:] = [value]
    return compute(model, {"x": x})


def test_weights_alone_change_the_result(case):
    build, x, name, _ = case
    model = build()
    layers = readers_of(model, name)
    for layer in layers:  # the activation is not divided
        node, scale = layer.node, scale_for(layers)
        value = node.inputs[1]
        assert value is not None
        assert value.const_value is not None
        weight = value.const_value.numpy()
        rows = np.tile(scale, len(weight) // len(scale))[:, np.newaxis]
        value.const_value = ir.tensor((weight * rows).astype(np.float32), name=value.name)
    assert apart(compute(model, {"x": x}), compute(build(), {"x": x})) > 0.05


def test_a_divided_graph_quantizes_like_its_float_form(case, tmp_path):
    build, x, name, _ = case
    model, exact = build(), build()
    divided: dict[str, np.ndarray] = {}
    for graph in (model, exact):
        layers = readers_of(graph, name)
        source, scale = layers[0].source, scale_for(layers)
        if divide(graph, source, layers, scale)[0] == "quantizer":
            divided[str(source.name)] = scale
    ranges = {
        tensor: Range(float((low / divided.get(tensor, 1)).min()), float((high / divided.get(tensor, 1)).max()))
        for tensor, (low, high) in extremes(exact, x, tmp_path).items()
    }
    quantize(model, RULES, ranges, divided)
    assert apart(compute(model, {"x": x}), compute(build(), {"x": x})) < 0.05  # a division left out: 0.2 and more
    assert first_fault(model, exact, ranges, divided) is None


def extremes(model: ir.Model, x: np.ndarray, folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The smallest and the largest value of each channel, as calibration finds them."""
    tensors = tensors_to_calibrate(model, RULES)
    ir.save(model, folder / "plain.onnx")
    write_watching_graph(folder / "plain.onnx", tensors, folder / "watching.onnx")
    session = onnxruntime.InferenceSession(folder / "watching.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"x": x}), strict=True))
    return {tensor: (found[f"{tensor}.low"], found[f"{tensor}.high"]) for tensor in tensors}


def test_the_values_of_a_cross_attention_are_divided_in_the_graph_that_makes_them():
    class Values(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_v = nn.Linear(6, 8)

        def forward(self, prompt: Tensor) -> Tensor:
            return self.to_v(prompt).view(*prompt.shape[:2], 2, 4).transpose(1, 2)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_out = nn.Linear(8, 8)

        def forward(self, scores: Tensor, values: Tensor) -> Tensor:
            out: Tensor = self.to_out((torch.softmax(scores, -1) @ values).transpose(1, 2).flatten(2))
            return out

    torch.manual_seed(0)
    makes, reads = Values().eval(), Reader().eval()
    rng = np.random.default_rng(0)
    prompt = rng.normal(size=(2, 5, 6)).astype(np.float32)
    scores = rng.normal(size=(2, 2, 3, 5)).astype(np.float32)
    inputs = (torch.zeros(TRACE_BATCH, 2, 3, 5), torch.zeros(TRACE_BATCH, 2, 5, 4))

    maker, reader = (
        to_onnx(makes, (torch.zeros(TRACE_BATCH, 5, 6),), ["prompt"], ["value"]),
        to_onnx(reads, inputs, ["scores", "value"], ["y"]),
    )

    def both(maker: ir.Model, reader: ir.Model) -> np.ndarray:
        return compute(reader, {"scores": scores, "value": compute(maker, {"prompt": prompt})})

    expected = both(maker, reader)
    layers = readers_of(reader, "to_out/MatMul")
    scale = scale_for(layers)
    assert divide(reader, layers[0].source, layers, scale) == ("input", "value")
    assert apart(both(maker, reader), expected) > 0.05  # one half of it is another network
    divide_output(maker, "value", scale)
    assert apart(both(maker, reader), expected) < TOLERANCE
