"""Bundles for tests without an engine: one with nonsense for graphs, and two whose graphs are formulas in numpy."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.runtime.fakes import make_bundle

from nano_runtime.bundle.checksums import entry_of
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import (
    FORMAT_VERSION,
    Backend,
    Component,
    Graph,
    Licence,
    Manifest,
    Source,
    TensorSpec,
    TokenizerSpec,
)
from nano_runtime.bundle.reading import write_manifest
from nano_runtime.bundle.wiring import FreeDimension

_TENSORS = {
    "text_encoder": (["input_ids"], ["last_hidden_state"]),
    "unet_prompt": (["encoder_hidden_states"], ["key_0", "value_0"]),
    "unet_time": (["timestep"], ["time_0"]),
    "unet": (["sample", "key_0", "value_0", "time_0"], ["out_sample"]),
    "vae_decoder": (["latent_sample"], ["sample"]),
}
_SHAPES: dict[str, list[int | FreeDimension]] = {
    "input_ids": ["batch", 77],
    "last_hidden_state": ["batch", 77, 4],
    "encoder_hidden_states": ["batch", 77, 4],
    "timestep": ["batch"],
    "sample": ["batch", 4, 16, 16],
    "out_sample": ["batch", 4, 16, 16],
    "latent_sample": ["batch", 4, 16, 16],
}
_PICTURES: list[int | FreeDimension] = ["batch", 3, 128, 128]
_TOKENIZER = b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"?": 3}, "unk_token": "?"}}'
_EMPTY_GRAPH = b"\x3a\x00\x42\x02\x10\x14"
_BACKENDS: list[Backend] = ["onnxruntime", "openvino"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make every warning an error in this folder: a person would see it on the terminal."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)


@pytest.fixture(scope="session")
def hoisted(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Formulas in the hoisted form, with a shallow UNet; see ``fakes``."""
    return make_bundle(tmp_path_factory.mktemp("formulas") / "hoisted")


@pytest.fixture(scope="session")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same formulas in the standard form, without a shallow UNet."""
    return make_bundle(tmp_path_factory.mktemp("formulas") / "standard", "standard")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle's folder: checksums are right, graphs are noise."""
    bundle = tmp_path / "bundle"
    components = {name: _component(bundle, name) for name in _TENSORS}
    _write(bundle / "tokenizer" / "tokenizer.json", _TOKENIZER)
    _write(bundle / "LICENSE", b"Draw nothing that harms.")
    files = [entry_of(bundle, path) for path in sorted(bundle.rglob("*")) if path.is_file()]
    write_manifest(
        bundle,
        Manifest(
            format_version=FORMAT_VERSION,
            name="noise",
            source=Source(model="somewhere/noise", revision="0" * 40),
            licence=Licence(id="creativeml-openrail-m", file="LICENSE"),
            graph="hoisted",
            precision="fp32",
            backends=_BACKENDS,
            image_size=(128, 128),
            latent_shape=(4, 16, 16),
            scaling_factor=0.18215,
            tokenizer=TokenizerSpec(file="tokenizer/tokenizer.json", length=77, pad_id=0, bos_id=1, eos_id=2),
            scheduler={"_class_name": "PNDMScheduler", "skip_prk_steps": True},
            components=components,
            fidelity={"psnr_db": 41.5},
            versions={"torch": "2.13.0"},
            options={},
            files=files,
        ),
    )
    return bundle


def _component(bundle: Path, name: str) -> Component:
    inputs, outputs = _TENSORS[name]
    # Well-formed, or no engine would be asked, but none takes them: a graph with nothing, a result of nothing.
    _write(bundle / name / "model.onnx", b"\x08\x0a" + bytes([2 << 3 | 2, len(name)]) + name.encode() + _EMPTY_GRAPH)
    layer = '\t\t<layer id="0" name="r" type="Result" version="opset1">\n\t\t</layer>\n'
    inside = f"\t<layers>\n{layer}\t</layers>\n\t<edges>\n\t</edges>\n"
    net = f'<?xml version="1.0"?>\n<net name="{name}" version="11">\n{inside}</net>\n'
    _write(bundle / name / "openvino_model.xml", net.encode())
    _write(bundle / name / "openvino_model.bin", b"not weights: " + name.encode())
    return Component(
        precision="fp32",
        inputs=[_tensor(tensor) for tensor in inputs],
        outputs=[_tensor(tensor, _PICTURES if name == "vae_decoder" else None) for tensor in outputs],
        graphs={
            "onnxruntime": Graph(model=f"{name}/model.onnx", weights=None),
            "openvino": Graph(model=f"{name}/openvino_model.xml", weights=f"{name}/openvino_model.bin"),
        },
    )


def _tensor(name: str, shape: list[int | FreeDimension] | None = None) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=_SHAPES.get(name, ["batch", 4]) if shape is None else shape)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
