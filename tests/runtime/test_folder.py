"""No engine sees a byte that differs from the manifest."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import CheckedGraph, EngineOptions, installed, open_session
from nano_runtime.errors import (
    BackendMissingError,
    BackendNotInBundleError,
    EngineError,
    ExtraFileError,
    ManifestError,
    OptionError,
    PrecisionError,
    TamperedFileError,
)

BACKENDS = ["onnxruntime", "openvino"]
OPTIONS = EngineOptions(threads=1, precision="f32")


def needs(backend):
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")


def test_an_untouched_bundle_has_no_faults(folder):
    assert list(Bundle.open(folder).faults()) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_engine_has_its_graph(folder, backend):
    model = Bundle.open(folder).graph("unet", backend).model
    assert model == {"onnxruntime": "unet/model.onnx", "openvino": "unet/openvino_model.xml"}[backend]


@pytest.mark.parametrize("name", ["unet/openvino_model.xml", "unet/openvino_model.bin"])
@pytest.mark.parametrize("seed", range(10))
def test_one_flipped_bit_is_found(folder, name, seed):
    path = folder / name
    content = bytearray(path.read_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * len(content)))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    bundle = Bundle.open(folder)
    with pytest.raises(TamperedFileError, match=path.name):
        bundle.held(name)
    with pytest.raises(TamperedFileError, match=path.name):
        bundle.content(name)
    assert [type(fault) for fault in bundle.faults()] == [TamperedFileError]
    assert bundle.content("unet/model.onnx")  # the other engine's files are untouched


def test_missing_longer_and_swapped_files_are_found(folder):
    (folder / "unet/model.onnx").unlink()
    (folder / "vae_decoder/model.onnx").write_bytes(b"longer than before, by far")
    one, other = folder / "unet_time/openvino_model.xml", folder / "unet_time/openvino_model.bin"
    swapped = one.read_bytes(), other.read_bytes()
    other.write_bytes(swapped[0])
    one.write_bytes(swapped[1])
    faults = list(Bundle.open(folder).faults())
    assert [type(fault) for fault in faults] == [TamperedFileError] * 4


def test_files_the_manifest_does_not_know_are_found(folder):
    (folder / "unet" / "extra.bin").write_bytes(b"x")
    (folder / "link").symlink_to(folder / "nowhere")
    assert [type(fault) for fault in Bundle.open(folder).faults()] == [ExtraFileError] * 2


def test_weights_are_compared_once_and_stay_what_they_were_when_another_file_takes_their_place(folder):
    bundle, name = Bundle.open(folder), "unet/openvino_model.bin"
    before = (folder / name).read_bytes()
    held = bundle.held(name)
    held.require_in_place()
    (folder / name).rename(folder / "old")
    for put in (lambda: (folder / name).symlink_to(folder / "old"), lambda: (folder / name).write_bytes(b"other")):
        put()
        assert bundle.held(name) is held
        mapped = held.map()
        assert mapped is not None
        assert bytes(mapped) == held.open_path.read_bytes() == before
        with pytest.raises(TamperedFileError, match="replaced"):
            held.require_in_place()
        (folder / name).unlink()
    with pytest.raises(TamperedFileError):
        Bundle.open(folder).held(name)


def test_weights_that_somebody_wrote_into_are_compared_again(folder):
    """As ``cp`` of another bundle does: a server that loads them anew would draw something else under the old name."""
    path = folder / "unet/openvino_model.bin"
    os.utime(path, (1, 1))
    bundle, before = Bundle.open(folder), path.read_bytes()
    held = bundle.held("unet/openvino_model.bin")
    with path.open("r+b") as file:
        file.write(bytes([before[0] ^ 1]))
    assert held.was_written_to
    with pytest.raises(TamperedFileError, match="instead of"):
        bundle.held("unet/openvino_model.bin")
    path.write_bytes(before)
    again = bundle.held("unet/openvino_model.bin")
    assert again is bundle.held("unet/openvino_model.bin")
    assert (again is held, again.was_written_to) == (False, False)


def test_a_graph_is_compared_each_time_it_is_read(folder):
    bundle = Bundle.open(folder)
    assert bundle.content("unet/model.onnx") == (folder / "unet/model.onnx").read_bytes()
    (folder / "unet/model.onnx").write_bytes(b"changed later")
    with pytest.raises(TamperedFileError):
        bundle.content("unet/model.onnx")


def test_the_digest_names_the_content(folder):
    before = Bundle.open(folder).digest
    assert before == Bundle.open(folder).digest
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"noise"', b'"other"'))
    assert Bundle.open(folder).digest != before


def test_unknown_components_and_engines_are_named(folder):
    bundle = Bundle.open(folder)
    with pytest.raises(ManifestError, match="safety_checker"):
        bundle.component("safety_checker")
    unknown: Any = "tensorrt"
    with pytest.raises(OptionError, match="tensorrt"):
        open_session(unknown, CheckedGraph(folder / "x", b"", ""), batch=1, options=OPTIONS)


def test_a_bundle_for_one_engine_says_so(folder):
    manifest = folder / "manifest.json"
    text = manifest.read_text().replace('"backends": [\n  "onnxruntime",\n  "openvino"\n ]', '"backends": ["openvino"]')
    manifest.write_text(text)
    bundle = Bundle.open(folder)
    bundle.require("openvino")
    with pytest.raises(BackendNotInBundleError, match="openvino"):
        bundle.require("onnxruntime")


def test_sizes_count_what_an_engine_reads(folder):
    bundle = Bundle.open(folder)
    patterns: dict[Backend, str] = {"onnxruntime": "*/model.onnx", "openvino": "*/openvino_model.*"}
    for backend, pattern in patterns.items():
        graphs = sum(path.stat().st_size for path in folder.glob(pattern))
        assert bundle.size_bytes(backend) == graphs + (folder / "tokenizer/tokenizer.json").stat().st_size
    assert bundle.size_bytes() > bundle.size_bytes("openvino")


def test_files_that_an_engine_reads_must_have_their_size(folder):
    bundle = Bundle.open(folder)
    bundle.require_files("onnxruntime")
    (cut,) = folder.glob("unet/openvino_model.bin")
    cut.write_bytes(b"")
    bundle.require_files("onnxruntime")
    with pytest.raises(TamperedFileError, match=r"openvino_model\.bin is not the file .* 0 bytes"):
        bundle.require_files("openvino")
    cut.unlink()
    with pytest.raises(TamperedFileError, match="missing"):
        bundle.require_files("openvino")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_engine_that_refuses_a_graph_names_the_file(folder, backend):
    needs(backend)
    model = folder / Bundle.open(folder).graph("unet", backend).model
    with pytest.raises(EngineError, match=model.name) as caught:
        open_session(backend, CheckedGraph(model, b"", ""), batch=1, options=OPTIONS)
    assert len(caught.value.what) < 600


def test_onnxruntime_has_no_bf16(folder):
    needs("onnxruntime")
    with pytest.raises(PrecisionError, match="f32"):
        open_session(
            "onnxruntime",
            CheckedGraph(folder / "x", b"", ""),
            batch=1,
            options=EngineOptions(threads=1, precision="bf16"),
        )


def test_a_missing_engine_names_the_command_that_installs_it(folder, monkeypatch):
    monkeypatch.setattr("nano_runtime.engines.find_spec", lambda _name: None)
    with pytest.raises(
        BackendMissingError, match=r'pip install "./runtime\[openvino\]" in .* or else pip install "openvino"'
    ):
        open_session("openvino", CheckedGraph(folder / "x", b"", ""), batch=1, options=OPTIONS)
