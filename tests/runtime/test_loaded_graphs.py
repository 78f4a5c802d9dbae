"""Files are checked ahead in the background, and still no engine sees one that differs from the manifest."""

from __future__ import annotations

import threading

import pytest

from nano_runtime.bundle.folder import Bundle
from nano_runtime.engines import EngineOptions, installed
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import EngineError, TamperedFileError

ALL = ("text_encoder", "unet", "unet_prompt", "unet_time", "vae_decoder")


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request) -> str:
    if not installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return request.param


def stages_of(folder, backend) -> LoadedGraphs:
    return LoadedGraphs(Bundle.open(folder), backend, EngineOptions(threads=1, precision="f32"))


def change(path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("ahead", [(), ALL], ids=["when needed", "ahead"])
@pytest.mark.parametrize("loaded_ahead", [(), ("unet", "text_encoder")], ids=["", "loaded ahead"])
def test_only_checked_files_reach_the_engine(folder, backend, ahead, loaded_ahead):
    """The graphs are noise: an engine that sees one says so, and one that differs from the manifest is told first."""
    weights = {"onnxruntime": "model.onnx", "openvino": "openvino_model.bin"}[backend]
    change(folder / "unet" / weights)
    stages = stages_of(folder, backend)
    stages.prepare(ahead)
    for component in loaded_ahead:
        stages.load_ahead(component, batch=1)
    with pytest.raises(TamperedFileError, match=weights):
        stages.run("unet", {}, batch=1)
    with pytest.raises(EngineError, match="text_encoder"):  # negative control
        stages.run("text_encoder", {}, batch=1)
    stages.close()


def test_what_was_found_is_told_once_and_looked_at_again(folder, backend):
    path = folder / "unet" / {"onnxruntime": "model.onnx", "openvino": "openvino_model.xml"}[backend]
    original = path.read_bytes()
    change(path)
    stages = stages_of(folder, backend)
    stages.prepare(ALL)
    with pytest.raises(TamperedFileError):
        stages.run("unet", {}, batch=1)
    path.write_bytes(original)
    with pytest.raises(EngineError):
        stages.run("unet", {}, batch=1)
    stages.close()


def test_a_graph_is_compared_whenever_it_is_loaded(folder, backend):
    stages = stages_of(folder, backend)
    stages.prepare(ALL)
    stages.prepare(ALL)
    with pytest.raises(EngineError):
        stages.run("unet", {}, batch=1)
    for path in (folder / "unet").iterdir():
        change(path)
    stages.prepare(ALL)
    with pytest.raises(TamperedFileError):
        stages.run("unet", {}, batch=1)
    stages.close()


def test_stages_that_are_gone_leave_no_threads(folder, backend):
    before = threading.active_count()
    for _ in range(5):
        stages = stages_of(folder, backend)
        stages.prepare(ALL)
        stages.load_ahead("unet", batch=1)
        stages.close()
        del stages
    for thread in threading.enumerate():
        if thread.name.startswith("nano-ahead"):
            thread.join(timeout=30)
    assert threading.active_count() <= before  # those of earlier tests may end meanwhile
