"""A convolution's output keeps its small channels beside outliers: divided by the layer, multiplied when it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import openvino
import pytest
from tests.exporter.test_quantize import EVERYTHING, constant, layer, model, value

from nano_export.quantize import Seen, first_fault, quantize
from nano_export.quantize.recipe import Prepared, prepare, recipe_for

SIZE = 16


def network(outlier: float, *, shift: float = 0.0, seen_outside: bool = False) -> ir.Model:
    """A convolution with one channel scaled up, and all shifted; the next operators take both back."""
    rng = np.random.default_rng(0)
    factors = np.array([1, 1, outlier, 1, 1, 1], np.float32)
    weight = rng.normal(size=(6, 4, 3, 3)).astype(np.float32) * factors[:, None, None, None]
    bias = (rng.normal(size=6).astype(np.float32) + np.float32(shift)) * factors
    x = value("x", (2, 4, SIZE, SIZE))
    conv = layer(
        "Conv", [x, constant("weight", weight), constant("bias", bias)], "conv/Conv", (2, 6, SIZE, SIZE), pads=[1] * 4
    )
    back = constant("back", np.reciprocal(factors)[:, None, None])
    scaled = layer("Mul", [conv.outputs[0], back], "back/Mul", (2, 6, SIZE, SIZE))
    whole = layer("Add", [scaled.outputs[0], constant("away", np.float32(-shift))], "away/Add", (2, 6, SIZE, SIZE))
    return model([x], [conv, scaled, whole], [whole.outputs[0], *(conv.outputs if seen_outside else ())])


def picture() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 4, SIZE, SIZE)).astype(np.float32)


def run(graph: ir.Model, level: str = "ORT_ENABLE_ALL") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    content = ir.to_proto(graph).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run([graph.graph.outputs[0].name], {"x": picture()})[0]


def quantized(outlier: float, *, shift: float = 0.0, seen_outside: bool = False) -> tuple[ir.Model, ir.Model, Prepared]:
    """Quantize as the exporter does, with what one picture shows; return the float form and the grids, too."""
    made, exact, plain = (network(outlier, shift=shift, seen_outside=seen_outside) for _ in range(3))
    conv = next(iter(plain.graph))
    plain.graph.outputs[:] = [conv.outputs[0]]
    rows = {"x": picture(), str(conv.outputs[0].name): run(plain)}
    seen = {}
    for name, array in rows.items():
        places = array.transpose(0, 2, 3, 1).reshape(-1, array.shape[1])
        seen[name] = Seen(places.min(axis=0), places.max(axis=0), places)
    recipe = recipe_for(made, EVERYTHING, seen)
    prepared = prepare(made, EVERYTHING, EVERYTHING, recipe)
    prepare(exact, EVERYTHING, EVERYTHING, recipe)
    quantize(made, EVERYTHING, prepared.ranges, prepared.divided, prepared.multiplied)
    assert first_fault(made, exact, prepared.ranges, prepared.divided, prepared.multiplied) is None
    return made, exact, prepared


def error(actual: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(actual - run(network(1.0))))))


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_an_outlier_channel_costs_the_others_nothing(level):
    plain, outlier = (error(run(quantized(factor)[0], level)) for factor in (1.0, 100.0))
    assert outlier < 1.5 * plain  # its range is twice the usual channel's
    without = quantized(100.0, seen_outside=True)[0]  # somebody else reads the output: it is not divided
    assert error(run(without, level)) > 10 * plain


def test_a_constant_in_an_output_costs_nothing():
    plain, shifted = (error(run(quantized(1.0, shift=shift)[0])) for shift in (0.0, 400.0))
    assert shifted < 1.2 * plain
    without = quantized(1.0, shift=400.0, seen_outside=True)[0]  # somebody else reads the output
    assert error(run(without)) > 5 * plain


@pytest.mark.parametrize(
    ("shift", "operators"),
    [(0.0, ["MatMul", "Mul"]), (0.5, ["MatMul", "Mul"]), (40.0, ["Sub", "MatMul", "Add", "Mul"])],
)
def test_a_constant_is_subtracted_before_a_quantizer_where_that_is_worth_two_operators(shift, operators):
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(64, 24)).astype(np.float32) + np.float32(shift)
    weight = rng.normal(size=(24, 8)).astype(np.float32)

    def product() -> ir.Model:
        x = value("x", (1, 64, 24))
        node = layer("MatMul", [x, constant("weight", weight)], "linear/MatMul", (1, 64, 8))
        doubled = layer("Mul", [node.outputs[0], constant("two", np.float32(2))], "two/Mul", (1, 64, 8))
        return model([x], [node, doubled], doubled.outputs)

    graph, exact = product(), product()
    recipe = recipe_for(graph, EVERYTHING, {"x": Seen(rows.min(axis=0), rows.max(axis=0), rows)})
    made = prepare(graph, EVERYTHING, EVERYTHING, recipe)
    prepare(exact, EVERYTHING, EVERYTHING, recipe)
    assert [node.op_type for node in graph.graph] == operators
    quantize(graph, EVERYTHING, made.ranges, made.divided, made.multiplied)
    assert first_fault(graph, exact, made.ranges, made.divided, made.multiplied) is None
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": rows[np.newaxis]})[0] / 2
    assert np.sqrt(np.mean(np.square(found - rows @ weight))) < 0.2  # of outputs that are some 5 large without a shift


def test_openvino_computes_the_same(tmp_path: Path):
    graph = quantized(100.0)[0]
    ir.save(graph, tmp_path / "model.onnx")
    compiled = openvino.Core().compile_model(tmp_path / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert error(compiled({"x": picture()})[0]) < 1.5 * error(run(quantized(1.0)[0]))


def test_another_factor_than_the_layer_divided_by_is_a_fault():
    graph, exact, made = quantized(100.0)
    ((name, factor),) = made.multiplied.items()
    wrong = {name: factor * np.where(np.arange(6) == 2, 1.01, 1).astype(np.float32)}
    assert "another grid" in str(first_fault(graph, exact, made.ranges, made.divided, wrong))


def test_the_error_of_a_layer_includes_its_output():
    exact, coarse = network(1.0), network(1.0, seen_outside=True)
    rows = picture().transpose(0, 2, 3, 1).reshape(-1, 4)
    out = np.random.default_rng(2).normal(size=(512, 6)).astype(np.float32)
    out[:, 2] *= 100
    seen = {
        "x": Seen(rows.min(axis=0), rows.max(axis=0), rows),
        "conv/Conv.out": Seen(out.min(axis=0), out.max(axis=0), out),
    }
    fine, worse = (recipe_for(graph, EVERYTHING, seen).errors["conv/Conv"] for graph in (exact, coarse))
    step = 200 / 255 * 3  # of the whole range; the channels that are no outliers have one some 50 times finer
    assert worse.squared[0] - fine.squared[0] == pytest.approx(step**2 / 12, rel=0.9)


def test_a_sum_between_quantizers_with_a_scale_for_each_channel_is_no_add():
    """onnxruntime joins DQ, DQ, Add and Q into one operator with one scale; 1.23 does not load what has more."""
    graph = sum_of_two(100.0)
    floats = run(sum_of_two(100.0))
    seen = {}
    for name in ("x", "a/Conv.out", "b/Conv.out", "sum/Add.out", "c/Conv.out"):
        watched = sum_of_two(100.0)
        values = {one.name: one for node in watched.graph for one in node.outputs}
        array = picture() if name == "x" else run_to(watched, values[name])
        rows = array.transpose(0, 2, 3, 1).reshape(-1, array.shape[1])
        seen[name] = Seen(rows.min(axis=0), rows.max(axis=0), rows)
    recipe = recipe_for(graph, EVERYTHING, seen)
    made = prepare(graph, EVERYTHING, EVERYTHING, recipe)
    exact = sum_of_two(100.0)
    prepare(exact, EVERYTHING, EVERYTHING, recipe)
    assert {"a/Conv.out", "b/Conv.out"} <= made.multiplied.keys()
    quantize(graph, EVERYTHING, made.ranges, made.divided, made.multiplied)
    assert first_fault(graph, exact, made.ranges, made.divided, made.multiplied) is None
    assert [node.op_type for node in graph.graph if node.name == "sum/Add"] == ["Sum"]
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        assert np.abs(run(graph, level) - floats).max() < 0.1 * np.abs(floats).max()


def sum_of_two(outlier: float) -> ir.Model:
    """Two convolutions with an outlier channel, their sum, and a convolution that reads it."""
    rng = np.random.default_rng(3)
    shape = (2, 6, SIZE, SIZE)
    factors = np.array([1, 1, outlier, 1, 1, 1], np.float32)
    x = value("x", (2, 4, SIZE, SIZE))
    first = [
        layer(
            "Conv",
            [
                x,
                constant(
                    f"{name}.weight", rng.normal(size=(6, 4, 3, 3)).astype(np.float32) * factors[:, None, None, None]
                ),
            ],
            f"{name}/Conv",
            shape,
            pads=[1] * 4,
        )
        for name in ("a", "b")
    ]
    added = layer("Add", [one.outputs[0] for one in first], "sum/Add", shape)
    weight = rng.normal(size=(6, 6, 3, 3)).astype(np.float32) / factors[None, :, None, None]
    last = layer("Conv", [added.outputs[0], constant("c.weight", weight)], "c/Conv", shape, pads=[1] * 4)
    return model([x], [*first, added, last], last.outputs)


def run_to(graph: ir.Model, wanted: ir.Value) -> np.ndarray:
    graph.graph.outputs[:] = [wanted]
    return run(graph)
