"""A bundle in the making: graphs, then the card and the manifest, again and again as more is known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from nano_export.bundle import writer as writing
from nano_export.bundle.facts import Contents
from nano_export.bundle.writer import BundleWriter, onnx_path
from nano_export.judge.fidelity import Scores
from nano_export.options import Options
from nano_runtime.bundle.checksums import entry_of, fault_of_file
from nano_runtime.bundle.manifest import (
    MANIFEST_NAME,
    Backend,
    Change,
    Default,
    FileEntry,
    Licence,
    Manifest,
    Preset,
    Quantization,
    Source,
    TokenizerSpec,
)

CONTENTS = Contents(
    name="small",
    source=Source(model="small", revision=None),
    licence=Licence(id="mit", file="LICENSE"),
    licence_text="Free.\n",
    example="a fox",
    has_card=False,
    loras=[],
    embeddings=[],
    image_size=(64, 64),
    latent_shape=(4, 8, 8),
    scaling_factor=1.0,
    tokenizer=TokenizerSpec(file="tokenizer/tokenizer.json", length=77, pad_id=0, bos_id=1, eos_id=2),
    scheduler={},
    guidance_scale=7.5,
)
SCORES: dict[Backend, Scores] = {"onnxruntime": Scores({"unet": 40.0}, {"unet": 0.1}, 33.3, 0.9, 0.01)}
PRESETS = {"fast": Preset(cache_interval=3, guidance_interval=(0.0, 0.4), work=0.3, fidelity={})}


def graph(width: int) -> ir.Model:
    """x [batch, 4] -> y [batch, width], a product with a constant."""
    x = ir.Value(name="x", shape=ir.Shape(["batch", 4]), type=ir.TensorType(ir.DataType.FLOAT))
    tensor = ir.Tensor(np.ones((4, width), np.float32), name="weight")
    weight = ir.Value(name="weight", const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
    node = ir.node("MatMul", [x, weight], name="product")
    y = node.outputs[0]
    y.name, y.shape, y.type = "y", ir.Shape(["batch", width]), ir.TensorType(ir.DataType.FLOAT)
    made = ir.Graph([x], [y], nodes=[node], initializers=[weight], opset_imports={"": 20}, name="graph")
    return ir.Model(made, ir_version=10)


@pytest.fixture
def bundle(tmp_path) -> BundleWriter:
    (tmp_path / "LICENSE").write_text(CONTENTS.licence_text)
    writer = BundleWriter(tmp_path, CONTENTS, Options(output=tmp_path, backends=("onnxruntime",)))
    writer.add("text_encoder", graph(2000))
    writer.add("unet", graph(3000))
    return writer


def faults(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the files of a bundle, those that are not listed included."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wrong = [str(fault) for entry in manifest.files if (fault := fault_of_file(folder, entry, all_checksums=True))]
    return wrong + sorted(found.symmetric_difference({entry.path for entry in manifest.files} | {MANIFEST_NAME}))


def test_the_manifest_has_the_graphs_in_order_and_every_file(bundle):
    manifest = bundle.write({})
    assert list(bundle.components) == list(manifest.components) == ["text_encoder", "unet"]
    unet = manifest.components["unet"]
    assert (unet.graphs["onnxruntime"].model, unet.graphs["onnxruntime"].weights) == (
        "unet/model.onnx",
        "unet/model.onnx.data",
    )
    assert [spec.shape for spec in unet.outputs] == [["batch", 3000]]
    assert [work.macs for work in unet.work] == [4 * 3000]
    assert faults(bundle.folder, manifest) == []
    assert ir.load(onnx_path(bundle.folder, "unet")).graph.outputs[0].name == "y"


def test_later_manifests_know_more_and_fit_the_card(bundle):
    first = bundle.write({})
    card = (bundle.folder / "README.md").read_text()
    second = bundle.write(SCORES)
    third = bundle.write(SCORES, default=Default(scheduler="ddim", steps=9, fidelity={}), presets=PRESETS)
    assert "33.3 dB" not in card
    assert "33.3 dB" in (bundle.folder / "README.md").read_text()
    assert (first.fidelity, second.fidelity["onnxruntime.image_psnr_db"]) == ({}, 33.3)
    assert third.components["unet"].fidelity == {"onnxruntime.psnr_db": 40.0, "onnxruntime.max_abs": 0.1}
    assert (second.default, third.default.steps, third.presets) == (None, 9, PRESETS)
    assert faults(bundle.folder, third) == []
    assert faults(bundle.folder, first) != []  # the card is another one


def test_int8_says_how_it_was_made_and_where_it_falls_short(bundle, tmp_path):
    assert bundle.write(SCORES).quantization is None
    options = Options(output=tmp_path, precision="int8", backends=("onnxruntime",), min_psnr=41.0)
    writer = BundleWriter(tmp_path, CONTENTS, options)
    writer.add("text_encoder", graph(2000))
    writer.add("unet", graph(3000))
    made = Quantization(plan="w8a8", goal_db={"text_encoder": 41.0, "unet": 41.0})
    assert writer.write({}).quantization == made
    assert "Short of its goal" not in (tmp_path / "README.md").read_text()

    changes = [Change(component="unet", layer="product", scheme="float", reason="30 dB alone", share=0.015)]
    writer.record_search(changes, equalized=3, seconds=12.34)
    assert writer.write(SCORES).quantization == msgspec.structs.replace(
        made, changes=changes, equalized=3, search_s=12.3
    )
    card = (tmp_path / "README.md").read_text()
    assert "**Short of its goal** on onnxruntime: unet reaches 40.0 dB PSNR of 41;" in card
    assert "1 layer is in another scheme than the plan's (arithmetic in floats: unet +1.5%)" in card


def test_graphs_are_hashed_once(bundle, monkeypatch):
    hashed: list[str] = []

    def counted(folder: Path, path: Path) -> FileEntry:
        hashed.append(path.name)
        return entry_of(folder, path)

    monkeypatch.setattr(writing, "entry_of", counted)
    bundle.write({})
    count = len(hashed)
    assert count == 6  # two graphs, two files of weights, licence and card
    bundle.write(SCORES)
    assert hashed[count:] == ["README.md"]


def test_two_bundles_of_one_source_are_equal(bundle, tmp_path_factory):
    bundle.write(SCORES)
    other = tmp_path_factory.mktemp("other")
    (other / "LICENSE").write_text(CONTENTS.licence_text)
    again = BundleWriter(other, CONTENTS, Options(output=other, backends=("onnxruntime",)))
    for name, width in (("text_encoder", 2000), ("unet", 3000)):
        again.add(name, graph(width))
    again.write(SCORES)
    for path in [path for path in other.rglob("*") if path.is_file()]:
        assert path.read_bytes() == (bundle.folder / path.relative_to(other)).read_bytes()
