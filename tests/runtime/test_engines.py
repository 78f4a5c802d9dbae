"""One record an engine: it names its module and its files, and nothing is imported for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from tests.runtime.fakes import make_bundle

from nano_runtime.bundle.graph_files import FORMATS, IR, ONNX
from nano_runtime.bundle.manifest import Backend, Work
from nano_runtime.engines import BACKENDS, ENGINES, choose, import_engine
from nano_runtime.engines.base import Engine, OperatorKind
from nano_runtime.errors import BackendMissingError, OptionError
from nano_runtime.system.machine import PACKAGES


def test_the_manifest_knows_the_same_engines():
    """Its types are static, and the room of the bundle is below that of the engines: hence the names stand twice."""
    assert set(BACKENDS) == set(get_args(Backend)) == set(FORMATS)
    assert set(get_args(OperatorKind)) == set(get_args(get_type_hints(Work)["kind"]))


def test_benchmarks_report_the_version_of_every_engine():
    assert set(BACKENDS) <= set(PACKAGES)


def test_every_engine_has_an_extra_that_installs_it():
    needs = requires("nano-runtime")
    assert needs is not None
    for name in BACKENDS:
        assert any(line.startswith(name) and f'extra == "{name}"' in line.replace("'", '"') for line in needs)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: engine.name)
def test_a_record_names_a_module_that_opens_graphs(engine: Engine):
    spec = find_spec(engine.door)  # imports the package around it, not the module
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    assert "open_graph" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(engine.operators.values()) == set(get_args(OperatorKind))


def test_records_import_no_engine():
    program = "import sys; from nano_runtime.engines import ENGINES; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "nano_runtime.engines" in loaded
    assert not loaded & {name for engine in ENGINES.values() for name in (engine.name, engine.door)}


@pytest.mark.parametrize("name", ["", "tensorrt", "OpenVINO"])
def test_an_engine_without_a_record_is_refused(name):
    bundle: Any = None  # is not looked at
    for ask in (import_engine, lambda name: choose(bundle, name)):
        with pytest.raises(OptionError, match=r"Choose one of: onnxruntime, openvino\."):
            ask(name)


def test_files_are_named_after_their_graph():
    assert (ONNX.suffix, IR.suffix) == (".onnx", ".xml")
    assert ONNX.files() == ("model.onnx", "model.onnx.data")
    assert ONNX.files("shallow") == ("shallow.onnx", "model.onnx.data")  # it shares the UNet's weights
    assert IR.files("shallow") == ("openvino_shallow.xml", "openvino_shallow.bin")


def test_onnxruntime_is_taken_where_it_is_installed_and_the_bundle_serves_it(tmp_path, monkeypatch):
    both = make_bundle(tmp_path / "both")
    other = make_bundle(tmp_path / "other", backends=["openvino"])
    monkeypatch.setattr("nano_runtime.engines.installed", lambda _engine: True)
    assert (choose(both, None), choose(other, None)) == ("onnxruntime", "openvino")
    monkeypatch.setattr("nano_runtime.engines.installed", lambda engine: engine == "openvino")
    assert (choose(both, None), choose(both, "openvino")) == ("openvino", "openvino")
    with pytest.raises(BackendMissingError, match="onnxruntime"):
        choose(both, "onnxruntime")
