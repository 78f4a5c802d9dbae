"""The shallow graph, cut out of a small network with skip connections: what it computes, and what is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor, nn

from nano_export.choose.presets import work_share
from nano_export.graph.passes import TRACE_BATCH
from nano_export.graph.shallow_unet import FEATURE, cut, expose
from nano_export.graph.to_onnx import to_onnx
from nano_export.graph.to_openvino import cut_ir, read_ir, save_ir
from nano_runtime.bundle.folder import DEMO
from nano_runtime.bundle.manifest import Component, Work
from nano_runtime.bundle.reading import read_manifest
from nano_runtime.networks.unet_calls import EXACT, Shortcuts

CHANNELS, SIDE = 4, 8
# Float32 sums of 36 products, in another order.
TOLERANCE = 1e-5


class Net(nn.Module):
    """Down, up, and two skip connections; ``late`` feeds the last layer only, ``early`` the first two only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.down = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.up = nn.Conv2d(2 * CHANNELS, CHANNELS, 3, padding=1)
        self.conv_out = nn.Conv2d(2 * CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, sample: Tensor, early: Tensor, late: Tensor) -> Tensor:
        first = self.conv_in(sample)
        second = torch.relu(self.down(first) + early)
        deep = torch.relu(self.up(torch.cat([torch.sin(second), second], 1)) + early)
        return self.conv_out(torch.cat([deep, first], 1)) + late


@pytest.fixture(scope="module")
def traced() -> onnx.ModelProto:
    torch.manual_seed(0)
    values = tuple(torch.randn(TRACE_BATCH, CHANNELS, SIDE, SIDE) for _ in range(3))
    return ir.to_proto(to_onnx(Net().eval(), values, ["sample", "early", "late"], ["out"]))


@pytest.fixture
def model(traced) -> ir.Model:
    """A copy for each test, which changes it."""
    return ir.from_proto(traced)


def compute(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    given = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {n: rng.standard_normal((2, CHANNELS, SIDE, SIDE)).astype(np.float32) for n in ("sample", "early", "late")}


def test_an_exposed_feature_changes_nothing_else(model, feeds):
    before = compute(model, feeds)
    expose(model, 0)
    after = compute(model, feeds)
    assert list(after) == ["out", FEATURE]
    np.testing.assert_array_equal(after["out"], before["out"])


@pytest.mark.parametrize(("branch", "inputs"), [(0, ["sample", "late"]), (1, ["sample", "early", "late"])])
def test_the_shallow_graph_computes_the_rest(model, feeds, branch, inputs):
    expose(model, branch)
    whole = compute(model, feeds)
    weights = len(model.graph.initializers)
    cut(model)
    assert [value.name for value in model.graph.inputs] == [*inputs, FEATURE]
    assert len(model.graph.initializers) < weights or branch == 1
    rest = compute(model, {**feeds, FEATURE: whole[FEATURE]})
    assert list(rest) == ["out"]
    np.testing.assert_allclose(rest["out"], whole["out"], atol=TOLERANCE)
    stale = compute(model, {**feeds, FEATURE: 0.9 * whole[FEATURE]})
    assert np.abs(stale["out"] - whole["out"]).max() > 1000 * TOLERANCE


def test_what_is_not_understood_is_refused(model):
    with pytest.raises(ValueError, match="branch 2 of 2"):
        expose(model, 2)
    with pytest.raises(ValueError, match="exposes no feature"):
        cut(model)


def component(macs: int) -> Component:
    work = Work(positions=(), kind="conv", arithmetic="f32", layers=1, macs=macs, batched=True, weight_bytes=0)
    return Component(precision="fp32", inputs=[], outputs=[], graphs={}, work=[work])


def test_the_work_of_shortcuts_is_counted():
    """Counted by hand: of ten whole guided calls, what two rows or one cost, and a shallow call a tenth."""
    manifest = msgspec.structs.replace(
        read_manifest(DEMO), components={"unet": component(100), "unet_shallow": component(10)}
    )
    assert work_share(manifest, 10, EXACT) == 1
    assert work_share(manifest, 10, Shortcuts(2, (0, 1))) == pytest.approx(5 / 10 + 5 * 0.1 / 10)
    assert work_share(manifest, 10, Shortcuts(1, (0, 0.5))) == pytest.approx(0.75)
    assert work_share(manifest, 10, Shortcuts(5, (0, 0.5))) == pytest.approx((1 + 0.5 + 4 * 0.1 + 4 * 0.05) / 10)
    unguided = msgspec.structs.replace(manifest, guidance_scale=1.0)
    assert work_share(unguided, 10, Shortcuts(2, (0, 0.5))) == pytest.approx(0.55)


# The same in OpenVINO's form, for graphs that exist in it alone


def infer(model: openvino.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    given = {name: feeds[name] for port in model.inputs for name in port.get_names()}
    return {port.get_any_name(): value for port, value in compiled(given).items()}


def test_a_graph_of_openvino_is_cut_alike(model, feeds, tmp_path):
    expose(model, 0)
    ir.save(model, tmp_path / "model.onnx")
    cut(model)
    names = [str(value.name) for value in model.graph.inputs]
    whole = read_ir(tmp_path / "model.onnx")
    shallow = cut_ir(whole, FEATURE, names)
    assert [port.get_any_name() for port in shallow.inputs] == names == ["sample", "late", FEATURE]
    assert {port.get_any_name() for port in whole.outputs} == {"out", FEATURE}  # it did not change
    save_ir(shallow, tmp_path / "shallow.xml")

    expected = infer(whole, feeds)
    again = infer(read_ir(tmp_path / "shallow.xml"), {**feeds, FEATURE: expected[FEATURE]})
    assert list(again) == ["out"]
    np.testing.assert_allclose(again["out"], expected["out"], rtol=0, atol=TOLERANCE)
    other = infer(shallow, {**feeds, FEATURE: expected[FEATURE] + 1})
    assert np.abs(other["out"] - expected["out"]).max() > 100 * TOLERANCE
    with pytest.raises(ValueError, match="0 outputs are called elsewhere"):
        cut_ir(whole, "elsewhere", names)
