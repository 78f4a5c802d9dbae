"""Embedding tables keep their small channels beside outliers and constants, and common ones stay as they are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from tests.exporter.test_quantize import constant, layer, model

from nano_export.quantize import Rule, first_fault, quantize
from nano_export.quantize.tables import even_out_tables

ROWS, CHANNELS = 90, 32
RULES = (Rule("*/Gather", "w8", "as the text encoder's"),)
ADDED = {
    "an outlier channel": lambda table: table * np.where(np.arange(CHANNELS) == 5, 100, 1),
    "a constant in each channel": lambda table: table + 10 * np.random.default_rng(1).normal(size=CHANNELS),
    "a constant in one row": lambda table: table + np.where(np.arange(ROWS) == 0, 1000, 0)[:, np.newaxis],
}


def lookup(table: np.ndarray) -> ir.Model:
    ids = ir.Value(name="ids", shape=ir.Shape([1, ROWS]), type=ir.TensorType(ir.DataType.INT64))
    weight = constant("table", table.astype(np.float32))
    node = layer("Gather", [weight, ids], "tokens/Gather", (1, ROWS, CHANNELS))
    doubled = layer("Mul", [node.outputs[0], constant("two", np.float32(2))], "two/Mul", (1, ROWS, CHANNELS))
    return model([ids], [node, doubled], doubled.outputs)


def looked_up(graph: ir.Model) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.arange(ROWS)[np.newaxis]})[0][0] / 2


def int8(table: np.ndarray, *, evened: bool) -> np.ndarray:
    graph, exact = lookup(table), lookup(table)
    if evened:
        assert even_out_tables(graph, RULES) == even_out_tables(exact, RULES) == 1
    quantize(graph, RULES, {})
    assert first_fault(graph, exact, {}) is None
    return looked_up(graph)


@pytest.fixture
def table() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, CHANNELS))


@pytest.mark.parametrize("added", ADDED)
def test_what_is_added_to_a_table_costs_the_other_channels_nothing(table, added):
    odd = ADDED[added](table)
    others = np.arange(CHANNELS) != 5
    plain = np.abs(int8(table, evened=False) - table)[:, others].mean()
    evened, without = (np.abs(int8(odd, evened=how) - odd)[:, others] for how in (True, False))
    assert evened.mean() < 1.5 * plain
    assert without.max() > 5 * plain  # the control: as it was


def test_floats_stay_what_they_were(table):
    graph = lookup(ADDED["a constant in each channel"](table))
    before = looked_up(graph)
    even_out_tables(graph, RULES)
    assert np.abs(looked_up(graph) - before).max() < 1e-5 * np.abs(before).max()


def test_a_common_table_is_left_alone(table):
    graph = lookup(table)
    assert even_out_tables(graph, RULES) == 0
    assert [node.op_type for node in graph.graph] == ["Gather", "Mul"]
