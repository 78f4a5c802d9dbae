"""The probe's product is valid ONNX, multiplies, and reaches the kernels that a bundle's layers reach."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from nano_runtime.benchmark.probe import probe
from nano_runtime.benchmark.product import product_graph
from nano_runtime.engines import BACKENDS, CheckedGraph, EngineOptions, open_session

ROWS, DEPTH, COLUMNS = 40, 300, 64  # 300: lengths of two bytes


@pytest.fixture(params=["int8", "f32"])
def arithmetic(request) -> str:
    return request.param


def written_out(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The product in float64, from the constants as onnx reads them."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    if "w.scale" not in constants:
        return x.astype(np.float64) @ constants["w"]
    scale, zero = constants["x.scale"].astype(np.float64), constants["x.zero"].astype(np.float64)
    codes = np.clip(np.round(x / constants["x.scale"]) + zero, 0, 255)  # both round half to even
    return (codes - zero) @ constants["w"].astype(np.float64) * scale * constants["w.scale"]


def test_onnx_reads_what_was_written_without_it(arithmetic):
    model = onnx.load_from_string(product_graph(ROWS, DEPTH, COLUMNS, arithmetic))
    onnx.checker.check_model(model, full_check=True)
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "w"]
    assert tuple(weight.dims) == (DEPTH, COLUMNS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_engines_compute_the_product(backend, arithmetic, tmp_path):
    raw = product_graph(ROWS, DEPTH, COLUMNS, arithmetic)
    path = tmp_path / "product.onnx"
    x = np.random.default_rng(2).standard_normal((ROWS, DEPTH), np.float32)
    session = open_session(
        backend, CheckedGraph(path, raw, "test"), batch=1, options=EngineOptions(1, "f32", profile=True)
    )
    y = session.run({"x": x})["y"]
    model = onnx.load_from_string(raw)
    expected = written_out(model, x)
    # Sums of 300 float32 products; integer sums are exact.
    assert np.abs(y - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(y - written_out(model, x + 0.1)).max() > 1e-2 * np.abs(expected).max()  # and another input shows

    operators = {time.operator for time in session.layer_times() if time.shape == (ROWS, COLUMNS)}
    kernel = {"onnxruntime": {"int8": "MatMulIntegerToFloat", "f32": "MatMul"}, "openvino": {"int8": "FullyConnected"}}
    assert operators == {kernel[backend].get(arithmetic, "FullyConnected")}


def test_the_probe_knows_every_engine_and_arithmetic():
    rates = probe(1, 1 << 20)
    assert set(rates.macs_per_s) >= {"int8", "f32"}
    for name in ("int8", "f32"):
        assert set(rates.macs_per_s[name]) == set(BACKENDS)
        # A processor does less than 1e14 and more than 1e6 a second: anything else is a wrong unit.
        assert all(1e6 < rate < 1e14 for rate in rates.macs_per_s[name].values())
    assert 1e6 < rates.read_bytes_per_s < 1e14
    assert (rates.threads, rates.read_bytes) == (1, 1 << 20)
