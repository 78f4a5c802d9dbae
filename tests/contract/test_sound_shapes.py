"""Shapes that OpenVINO accepts, and at which its CPU plugin leaves the memory of a tensor, are refused before it runs.

The graphs are made with OpenVINO's own operators, each from one that was found by ``test_strict_reader.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13 as op

from nano_export.graph.to_openvino import save_ir
from nano_runtime.bundle.checksums import HeldFile
from nano_runtime.bundle.unsafe_ir import fault_of_ir
from nano_runtime.engines import CheckedGraph, EngineOptions, open_session
from nano_runtime.errors import EngineError
from nano_runtime.system.files import open_plain

LAST, PICTURE = [2], [-1, 32, 16, 16]


def ones(*shape: int) -> Any:
    return op.constant(np.ones(shape, np.float32))


def whole(*numbers: int) -> Any:
    return op.constant(np.array(numbers, np.int64))


def reshaped(sample: Any, *numbers: int) -> Any:
    return op.reshape(sample, whole(*numbers), special_zero=0 in numbers)


def normed(sample: Any) -> Any:
    """What the exporter makes of a GroupNorm: [b, 32, 256], which the plugin fuses with what comes behind it."""
    return op.mvn(reshaped(sample, 0, 32, -1), whole(2), normalize_variance=True, eps=1e-6, eps_mode="inside_sqrt")


def rounded(sample: Any, *shape: int) -> Any:
    return op.fake_quantize(sample, ones(*shape), op.constant(np.full(shape, 2, np.float32)), ones(), ones(), 256)


GOOD = {
    "reshape": lambda sample: reshaped(reshaped(sample, 0, 32, -1), 0, 32, 16, 16),
    "norm": lambda sample: op.multiply(normed(sample), ones(1, 32, 1)),
    "fewer dimensions": lambda sample: op.multiply(sample, ones(32, 1, 1)),
    "ranges": lambda sample: rounded(sample, 1, 32, 1, 1),
}
BAD = {
    "reshape with a zero": lambda sample: reshaped(sample, 0, 32, 16, 24),
    "dimensions in front": lambda sample: op.multiply(normed(sample), ones(1, 32, 1, 1, 1)),
    "dimensions in front, computed": lambda sample: op.add(normed(sample), reshaped(ones(32), 1, 1, 32, 1)),
    "ranges in front": lambda sample: rounded(sample, 32, 1, 1, 1, 1),
    "ranges of many dimensions": lambda sample: rounded(sample, 1, 32, 1, 1, 1, 1),
    "many dimensions": lambda sample: reshaped(sample, 0, *[1] * 5, -1),
}


def loaded(make: Any, folder: Any) -> str | None:
    """Load a graph that the strict reader passes; return what the error says, or None."""
    sample = op.parameter(openvino.PartialShape(PICTURE), np.float32, "sample")
    sample.output(0).get_tensor().set_names({"sample"})
    result = op.result(make(sample))
    model = openvino.Model([result], [sample], "graph")
    path, weights = folder / "model.xml", folder / "model.bin"
    save_ir(model, path)
    raw = path.read_bytes()
    assert fault_of_ir(raw, weights.stat().st_size) is None
    model.reshape({"sample": [2, *PICTURE[1:]]})
    openvino.Core().compile_model(model, "CPU")  # accepts it
    graph = CheckedGraph(path, raw, "", HeldFile(weights, open_plain(weights)))
    try:
        session = open_session(
            "openvino", graph, batch=(1, 2), tokens=8, options=EngineOptions(threads=1, precision="f32")
        )
    except EngineError as error:
        return str(error)
    given = np.ones([2, *PICTURE[1:]], np.float32)
    assert np.isfinite(next(iter(session.run({"sample": given}).values()))).all()
    session.close()
    return None


@pytest.mark.parametrize("name", GOOD)
def test_shapes_that_exporters_write_are_loaded_for_all_numbers_of_rows(name, tmp_path):
    assert loaded(GOOD[name], tmp_path) is None


@pytest.mark.parametrize("name", BAD)
def test_shapes_that_the_plugin_does_not_expect_are_refused(name, tmp_path):
    said = loaded(BAD[name], tmp_path)
    assert said is not None
    assert "the layer" in said
