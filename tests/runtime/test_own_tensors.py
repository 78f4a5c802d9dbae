"""Tensors of an engine's own graph: cast, renamed and reshaped on the way there and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from nano_runtime.bundle.manifest import Component, Graph, TensorSpec
from nano_runtime.engines.base import LayerTime
from nano_runtime.engines.own_tensors import as_the_component

COMPONENT = Component(
    precision="fp16",
    inputs=[
        TensorSpec(name="sample", dtype="float32", shape=["batch", 2]),
        TensorSpec(name="timestep", dtype="int64", shape=[1]),
    ],
    outputs=[TensorSpec(name="out_sample", dtype="float32", shape=["batch", 2])],
    graphs={},
)
OWN = Graph(
    model="unet/model.onnx",
    weights=None,
    inputs=[
        TensorSpec(name="x", dtype="float16", shape=["batch", 2]),
        TensorSpec(name="t", dtype="int64", shape=[]),
    ],
    outputs=[TensorSpec(name="y", dtype="float16", shape=["batch", 2])],
)
FEEDS = {"sample": np.array([[0.1, 2]], np.float32), "timestep": np.array([7])}


class Doubling:
    """A session that keeps its feeds and returns twice the first."""

    def __init__(self, output: str) -> None:
        self.output = output
        self.fed: dict[str, Any] = {}
        self.closed = False

    def run(self, feeds: Any) -> dict[str, Any]:
        self.fed = dict(feeds)
        return {self.output: next(iter(feeds.values())) * 2}

    def layer_times(self) -> list[LayerTime]:
        return [LayerTime("MatMul", (1, 2), 0.5)]

    def close(self) -> None:
        self.closed = True


def test_a_graph_without_tensors_of_its_own_is_left_alone():
    session = Doubling("out_sample")
    plain = Graph(model="unet/model.onnx", weights=None)
    assert as_the_component(session, COMPONENT, plain) is session


def test_arrays_take_the_form_of_the_graph_and_results_that_of_the_component():
    session = Doubling("y")
    translated = as_the_component(session, COMPONENT, OWN)
    result = translated.run(FEEDS)
    assert {name: (values.dtype.name, values.shape) for name, values in session.fed.items()} == {
        "x": ("float16", (1, 2)),
        "t": ("int64", ()),
    }
    assert int(session.fed["t"]) == 7
    assert list(result) == ["out_sample"]
    assert result["out_sample"].dtype == np.float32
    np.testing.assert_array_equal(result["out_sample"], np.float16(FEEDS["sample"]).astype(np.float32) * 2)


def test_arrays_that_need_no_change_are_passed_on_as_they_are():
    session = Doubling("out_sample")
    renamed = Graph(model="a", weights=None, inputs=[COMPONENT.inputs[0], OWN.inputs[1]] if OWN.inputs else None)
    as_the_component(session, COMPONENT, renamed).run(FEEDS)
    assert session.fed["sample"] is FEEDS["sample"]  # an engine binds an array once


def test_times_and_closing_are_the_sessions():
    session = Doubling("y")
    translated = as_the_component(session, COMPONENT, OWN)
    assert translated.layer_times() == session.layer_times()
    translated.close()
    assert session.closed
