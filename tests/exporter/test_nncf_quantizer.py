"""The other quantizer: what it is calibrated with, which layers it rounds, and a bundle of it that draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import openvino
import pytest
from tests.exporter.test_quantize import constant, layer, model, value

from nano_export import cli
from nano_export.graph.to_openvino import read_ir, save_ir
from nano_export.judge.metrics import psnr_db
from nano_export.quantize import Recorder, Rule, lower_convolutions, quantize_with_nncf, schemes_of
from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import TensorSpec
from nano_runtime.bundle.rules import first_contradiction
from nano_runtime.bundle.unsafe_ir import fault_of_ir
from nano_runtime.engines import Batch
from nano_runtime.pipeline import Pipeline

INPUTS = {
    "unet": [
        TensorSpec(name="sample", dtype="float32", shape=["batch", 4]),
        TensorSpec(name="time", dtype="float32", shape=[1, 2]),
    ],
    "vae_decoder": [TensorSpec(name="latent", dtype="float32", shape=["batch", 4])],
}
RULES = (Rule("kept/*", "float", "a test"), Rule("*", "w8a8", "a test"))


class Doubling:
    """A runner whose result shows that its inputs arrived."""

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        assert batch == len(feeds["sample"])
        return {component: np.asarray(feeds["sample"], np.float32) * 2}


def called(count: int, rows: int) -> Recorder:
    """Make calls whose values say which call and which row they are from."""
    recorder = Recorder(INPUTS)
    runner = recorder.recording(Doubling())
    for index in range(count):
        sample = np.repeat(index + np.arange(rows)[:, None] / 1000, 4, axis=1).astype(np.float32)
        result = runner.run("unet", {"sample": sample, "time": np.full((1, 2), index, np.float32)}, batch=rows)
        np.testing.assert_array_equal(result["unet"], sample * 2)
        sample[:] = -1  # the pipeline may write into its arrays again
    return recorder


@pytest.mark.parametrize("count", [1, 20, 333])
def test_calls_are_kept_evenly_and_at_most_so_many(count):
    kept = called(count, 24).kept
    assert kept["vae_decoder"] == []
    values = [float(feeds["sample"][0, 0]) for feeds in kept["unet"]]
    assert [feeds["time"][0, 0] for feeds in kept["unet"]] == [int(value) for value in values]
    assert all(feeds["sample"].shape == (1, 4) for feeds in kept["unet"])
    assert min(count * 4, 33) <= len(values) <= 64
    calls = sorted({int(value) for value in values})
    assert calls[0] == 0
    assert calls[-1] >= 0.9 * (count - 1)
    assert max(np.diff(calls), default=1) <= 2 * count / len(calls)


def test_rows_of_one_call_are_from_both_halves():
    rows = [round(float(feeds["sample"][0, 0]) * 1000) for feeds in called(1, 24).kept["unet"]]
    assert rows == [0, 8, 15, 23]
    assert len(called(1, 2).kept["unet"]) == 2


@pytest.fixture
def two_layers(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    a, b = (constant(name, rng.normal(size=(16, 16)).astype(np.float32)) for name in ("a", "b"))
    x = value("x", (3, 8, 16))
    first = layer("MatMul", [x, a], "first/MatMul", (3, 8, 16))
    relu = layer("Relu", first.outputs, "relu/Relu", (3, 8, 16))
    last = layer("MatMul", [relu.outputs[0], b], "kept/MatMul", (3, 8, 16))
    ir.save(model([x], [first, relu, last], last.outputs), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_layers_are_rounded_as_the_plan_says(two_layers, tmp_path):
    pytest.importorskip("nncf", reason="an extra")
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(3, 8, 16)).astype(np.float32)} for _ in range(8)]
    floats = ir.load(two_layers)
    assert schemes_of(read_ir(two_layers), floats) == {}
    quantized = quantize_with_nncf(two_layers, RULES, feeds)
    assert schemes_of(quantized, floats) == {"first/MatMul": "w8a8"}
    weights_only = (Rule("*", "w8", "a test"),)
    assert schemes_of(quantize_with_nncf(two_layers, weights_only, feeds), floats) == {
        "first/MatMul": "w8",
        "kept/MatMul": "w8",
    }
    save_ir(quantized, tmp_path / "model.xml")
    assert fault_of_ir((tmp_path / "model.xml").read_bytes(), (tmp_path / "model.bin").stat().st_size) is None


def test_a_convolution_that_is_a_product_is_rounded_behind_its_padding(tmp_path, monkeypatch):
    """OpenVINO 2026.4.1 crashes where integers are padded; without smoothing, they would be."""
    nncf = pytest.importorskip("nncf", reason="an extra")
    quantize, off = nncf.quantize, nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)

    def unsmoothed(*arguments: Any, **options: Any) -> Any:
        options["advanced_parameters"].smooth_quant_alphas = off
        return quantize(*arguments, **options)

    monkeypatch.setattr(nncf, "quantize", unsmoothed)
    rng = np.random.default_rng(2)
    x, weight = value("x", ("batch", 8, 8, 8)), rng.normal(size=(8, 8, 3, 3)).astype(np.float32)
    relu = layer("Relu", [x], "act/Relu", ("batch", 8, 8, 8))
    conv = layer("Conv", [relu.outputs[0], constant("w", weight)], "c/Conv", ("batch", 8, 8, 8), pads=[1, 1, 1, 1])
    floats, rules = model([x], [relu, conv], conv.outputs), (Rule("*", "w8a8", "a test", product_up_to=64),)
    assert lower_convolutions(floats, rules) == 1
    ir.save(floats, tmp_path / "model.onnx")
    feeds = [{"x": rng.normal(size=(1, 8, 8, 8)).astype(np.float32)} for _ in range(8)]
    quantized = quantize_with_nncf(tmp_path / "model.onnx", rules, feeds)
    assert list(schemes_of(quantized, floats).values()) == ["w8a8"]
    (pad,) = [op for op in quantized.get_ops() if op.get_type_name() == "Pad"]
    before = pad.input_value(0).get_node()
    while before.get_type_name() in {"Transpose", "Reshape"}:
        before = before.input_value(0).get_node()
    assert before.get_type_name() == "Relu"  # no FakeQuantize
    actual = openvino.compile_model(quantized, "CPU")(feeds[0])[0]
    exact = openvino.compile_model(read_ir(tmp_path / "model.onnx"), "CPU")(feeds[0])[0]
    assert psnr_db(actual, exact, float(np.ptp(exact))) > 35


@pytest.mark.slow
def test_a_bundle_of_nncf_draws_as_the_original(tmp_path, capsys):
    pytest.importorskip("nncf", reason="an extra")
    target = tmp_path / "bundle"
    options = ["--int8", "--quantizer", "nncf", "--backend", "openvino", "--json"]
    assert cli.main(["tiny", "-o", str(target), *options]) == 0
    assert capsys.readouterr().out.startswith("{")  # nncf prints nothing between
    bundle = Bundle.open(target)
    manifest = bundle.manifest
    assert list(bundle.faults()) == []
    assert first_contradiction(manifest) is None
    assert manifest.quantization is not None
    assert (manifest.quantization.quantizer, manifest.backends) == ("nncf", ["openvino"])
    assert not list(target.rglob("*.onnx*"))
    unet = manifest.components["unet"].work
    integers = sum(work.macs for work in unet if work.arithmetic == "int8")
    assert integers > 0.9 * sum(work.macs for work in unet)

    pipe = Pipeline.from_pretrained(target, backend="openvino")
    pictures = {
        quality: np.asarray(pipe("a fox", seed=0, quality=quality, output_type="np").images)
        for quality in ("exact", "fast")
    }
    assert psnr_db(pictures["fast"], pictures["exact"], 1.0) > 20
    assert manifest.fidelity["openvino.image_psnr_db"] > 25
