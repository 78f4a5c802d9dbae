"""What a graph computed is taken from the disk only for the same graph, description and inputs, and only whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.manifest import Backend, Component, Graph, TensorSpec
from nano_runtime.engines.base import Batch
from nano_runtime.networks.kept_outputs import KeptOutputs
from nano_runtime.system.disk_cache import DiskCache

FEEDS: Mapping[str, np.ndarray] = {"x": np.ones((2, 3), np.float32)}
JUNK = {
    "no message": b"\xc1\xff",
    "another kind": msgspec.msgpack.encode([1, 2]),
    "another name": msgspec.msgpack.encode({"z": [(2, 4), bytes(32)]}),
    "another shape": msgspec.msgpack.encode({"y": [(4, 2), bytes(32)]}),
    "another batch": msgspec.msgpack.encode({"y": [(1, 4), bytes(16)]}),
    "too few values": msgspec.msgpack.encode({"y": [(2, 4), bytes(28)]}),
    "half a value": msgspec.msgpack.encode({"y": [(2, 4), bytes(31)]}),
    "a negative size": msgspec.msgpack.encode({"y": [(-2, -4), bytes(32)]}),
    "a huge size": msgspec.msgpack.encode({"y": [(1 << 62, 1 << 62), bytes(32)]}),
    "not finite": msgspec.msgpack.encode({"y": [(2, 4), np.full(8, np.nan, np.float32).tobytes()]}),
    "one more": msgspec.msgpack.encode({"y": [(2, 4), bytes(32)], "z": [(), bytes(4)]}),
}


def tensor(name: str, width: int) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=["batch", width])


def component(output: TensorSpec, model: str = "a.onnx") -> Component:
    graphs: dict[Backend, Graph] = {"onnxruntime": Graph(model=model, weights=None)}
    return Component(precision="fp32", inputs=[tensor("x", 3)], outputs=[output], graphs=graphs)


class Counting:
    """A runner that counts."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, _component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        del batch
        self.runs += 1
        return {"y": np.arange(4 * len(feeds["x"]), dtype=np.float32).reshape(-1, 4)}


def kept(runner: Counting, folder: Path, described: Component, identity: str = "this graph") -> KeptOutputs:
    return KeptOutputs(runner, lambda _: identity, lambda _: described, DiskCache(folder))


def test_the_second_process_runs_nothing(tmp_path):
    runner = Counting()
    first, second = (kept(runner, tmp_path, component(tensor("y", 4))).run("c", FEEDS, batch=2) for _ in range(2))
    assert runner.runs == 1
    assert np.array_equal(first["y"], second["y"])
    assert second["y"].flags.writeable


@pytest.mark.parametrize("other", ["name", "shape", "file", "identity", "input"])
def test_another_description_is_another_entry(tmp_path, other):
    runner = Counting()
    kept(runner, tmp_path, component(tensor("y", 4))).run("c", FEEDS, batch=2)
    output = tensor("z" if other == "name" else "y", 5 if other == "shape" else 4)
    described = component(output, "b.onnx" if other == "file" else "a.onnx")
    feeds = {"x": FEEDS["x"] + (other == "input")}
    kept(runner, tmp_path, described, "another" if other == "identity" else "this graph").run("c", feeds, batch=2)
    assert runner.runs == 2


@pytest.mark.parametrize("junk", JUNK)
def test_what_no_graph_computed_is_dropped(tmp_path, junk, monkeypatch):
    """Its checksum is right: whoever may write into the folder can compute it."""
    runner = Counting()
    kept(runner, tmp_path, component(tensor("y", 4))).run("c", FEEDS, batch=2)
    get = DiskCache.get
    monkeypatch.setattr(DiskCache, "get", lambda self, key: None if get(self, key) is None else JUNK[junk])
    outputs = kept(runner, tmp_path, component(tensor("y", 4))).run("c", FEEDS, batch=2)
    assert runner.runs == 2
    assert outputs["y"].shape == (2, 4)
