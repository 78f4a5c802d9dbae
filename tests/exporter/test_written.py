"""A wrong INT8 graph is told from a right one of a bad checkpoint: by its weights and grids, not by its results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.exporter.test_quantize import EVERYTHING, INT64, constant, layer, model, value

from nano_export.quantize import Range, Rule, first_fault, lower_convolutions, quantize

PRODUCTS = (Rule("small/Conv*", "w8a8", "a test", product_up_to=64), *EVERYTHING)
WEIGHTS = (Rule("*Gather*", "w8", "a test"), Rule("linear/*", "w8", "a test"), *PRODUCTS)
RANGES = {
    "x": Range(-3, 4),
    "conv/Conv.out": Range(-50, 60),
    "small/Conv.out": Range(-500, 400),
    "y": Range(-3, 3),
    "ids": Range(0, 9),
}


@pytest.fixture(params=[1.0, 1000.0], ids=["even weights", "outliers"])
def floats(request) -> Callable[[], ir.Model]:
    """A table, a linear layer, a convolution and one that is written as a product; a weight may dwarf the others."""
    rng = np.random.default_rng(0)
    arrays = {
        "conv.weight": rng.normal(size=(6, 3, 3, 3)),
        "conv.bias": rng.normal(size=6),
        "small.weight": rng.normal(size=(4, 6, 3, 3)),
        "small.bias": rng.normal(size=4),
        "linear.weight": rng.normal(size=(5, 7)),
        "table": rng.normal(size=(10, 5)),
    }
    for name in ("conv.weight", "small.weight", "linear.weight", "table"):
        arrays[name].flat[7] *= request.param

    def build() -> ir.Model:
        known = {name: constant(name, array.astype(np.float32)) for name, array in arrays.items()}
        x, ids = value("x", (2, 3, 8, 8)), value("ids", (2, 4), INT64)
        padded = {"pads": [1, 1, 1, 1]}
        conv = layer("Conv", [x, known["conv.weight"], known["conv.bias"]], "conv/Conv", (2, 6, 8, 8), **padded)
        small = layer(
            "Conv",
            [conv.outputs[0], known["small.weight"], known["small.bias"]],
            "small/Conv",
            (2, 4, 8, 8),
            **padded,
        )
        relu = layer("Relu", small.outputs, "relu/Relu", (2, 4, 8, 8))
        rows = layer("Gather", [known["table"], ids], "table/Gather", (2, 4, 5))
        linear = layer("MatMul", [rows.outputs[0], known["linear.weight"]], "linear/MatMul", (2, 4, 7))
        return model([x, ids], [conv, small, relu, rows, linear], [*relu.outputs, *linear.outputs])

    return build


def lowered(source: ir.Model) -> ir.Model:
    lower_convolutions(source, PRODUCTS)
    return source


def fault(floats: Callable[[], ir.Model], change: Callable[[ir.Model], object], folder: Path) -> str | None:
    """Quantize, change the result, write and read it, and compare."""
    quantized = lowered(floats())
    ranges = {**RANGES, **{str(node.outputs[0].name): Range(-9, 9) for node in quantized.graph}}
    assert quantize(quantized, WEIGHTS, ranges)["w8"] == 2
    change(quantized)
    ir.save(quantized, folder / "model.onnx", external_data="model.onnx.data")
    return first_fault(ir.load(folder / "model.onnx"), lowered(floats()), ranges)


def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[ir.Model], None]:
    def act(quantized: ir.Model) -> None:
        found = quantized.graph.initializers[name]
        assert found.const_value is not None
        before = found.const_value.numpy()
        found.const_value = ir.tensor(change(before).astype(before.dtype), name=name)

    return act


def swap(one: str, other: str) -> Callable[[ir.Model], None]:
    """Let two scales trade places, as far as the first needs numbers."""

    def act(quantized: ir.Model) -> None:
        first, second = (quantized.graph.initializers[name] for name in (one, other))
        assert first.const_value is not None
        assert second.const_value is not None
        numbers = np.resize(second.const_value.numpy(), first.const_value.numpy().shape)
        first.const_value = ir.tensor(numbers, name=one)

    return act


def test_a_right_graph_has_no_fault_however_poor_it_is(floats, tmp_path):
    assert fault(floats, lambda _: None, tmp_path) is None


def test_learned_rounding_is_no_fault(floats, tmp_path):
    """Values rounded up that are nearer to the lower step, and clipped ones, lie on the grid too (AdaRound)."""
    weights = lowered(floats()).graph.initializers["linear.weight"].const_value
    assert weights is not None
    exact = weights.numpy()
    scale = np.abs(exact).max(axis=0) / 127
    assert fault(floats, put("linear.weight.int8", lambda _: np.ceil(exact / scale).clip(-127, 127)), tmp_path) is None
    assert "linear.weight is" in (fault(floats, put("linear.weight.int8", lambda q: q + 2), tmp_path) or "")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (swap("conv.weight.scale", "linear.weight.scale"), "weight conv.weight is"),
        (swap("linear.weight.scale", "conv.weight.scale"), "weight linear.weight is"),
        (swap("table.scale_column", "conv.weight.scale"), "weight table is"),
        (put("conv.weight.scale", lambda scale: scale[::-1]), "weight conv.weight is"),
        (put("small/Conv/MatMul.weight.int8", np.negative), "weight small/Conv/MatMul.weight is"),
        (put("x.scale", lambda scale: scale * 1.5), "activation x has the grid of another range"),
        (put("x.zero_point", lambda zero: zero + 1), "activation x has the grid of another range"),
        (swap("x.scale", "conv/Conv.out.scale"), "activation x has the grid of another range"),
        (put("conv/Conv.bias.scale", lambda scale: scale * 2), "bias of conv/Conv does not count"),
    ],
)
def test_a_wrong_graph_is_named(floats, change, where, tmp_path):
    found = fault(floats, change, tmp_path)
    assert found is not None
    assert where in found


def test_bytes_are_read_on_the_grid_on_which_they_were_written(floats, tmp_path):
    def read_elsewhere(quantized: ir.Model) -> None:
        grid = quantized.graph.initializers["conv/Conv.out.scale"]
        reader = next(node for node in quantized.graph if node.name == "x/DequantizeLinear")
        reader.replace_input_with(1, grid)

    assert "reads its bytes on another grid" in (fault(floats, read_elsewhere, tmp_path) or "")
