"""What importing the package brings with it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import nano_runtime

SOURCE = Path(nano_runtime.__file__).parent
HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "optimum",
    "onnx",
    "nncf",
    "onnxruntime",
    "openvino",
    "tokenizers",
    "PIL",
}
FORBIDDEN = {
    "torch",
    "diffusers",
    "transformers",
    "optimum",
    "onnx",
    "nncf",
    "nano_export",
    "huggingface_hub",
    "socket",
}


def imported_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after one statement."""
    program = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def imports_in(path: Path) -> set[str]:
    """Top-level modules that a source file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.partition(".")[0])
    return found


def test_the_package_imports_nothing_heavy():
    assert imported_by("import nano_runtime") & (HEAVY | {"numpy"}) == set()


def test_the_check_above_can_fail():
    assert "numpy" in imported_by("import nano_runtime; nano_runtime.Pipeline")


def test_the_pipeline_waits_with_engines_tokenizers_and_pillow():
    assert imported_by("import nano_runtime; nano_runtime.Pipeline") & HEAVY == set()


@pytest.mark.parametrize("command", ["generate", "bench", "bundle"])
def test_help_needs_no_numpy(command):
    program = f"from nano_runtime.cli.{command} import _parser; _parser().format_help()"
    assert imported_by(program) & (HEAVY | {"numpy"}) == set()


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_file_imports_the_exporters_tools(path):
    assert imports_in(path) & FORBIDDEN == set()


@pytest.mark.parametrize(
    ("engine", "door"), [("onnxruntime", "engines/onnxruntime.py"), ("openvino", "engines/openvino.py")]
)
def test_each_engine_has_one_door(engine, door):
    importers = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if engine in imports_in(path)}
    assert importers == {door}


def test_onnxruntime_is_imported_with_telemetry_off():
    pytest.importorskip("onnxruntime")
    program = (
        "import builtins, os\n"
        "real, seen = builtins.__import__, []\n"
        "def spy(name, *rest):\n"
        "    if name == 'onnxruntime':\n"
        "        seen.append([os.environ.get(key) for key in ('ORT_DISABLE_TELEMETRY', 'ORT_TELEMETRY_DISABLED')])\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = spy\n"
        "import nano_runtime.engines.onnxruntime\n"
        "print(seen[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['1', '1']"


def test_openvino_is_imported_without_what_reports_its_use():
    pytest.importorskip("openvino")
    assert "openvino_telemetry" in imported_by("import openvino")  # what it would do
    program = (
        "import sys\nimport nano_runtime.engines.openvino\n"
        "print([name for name in sys.modules if 'openvino_telemetry' in name and sys.modules[name] is not None])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_resolve():
    for name in nano_runtime.__all__:
        assert getattr(nano_runtime, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = nano_runtime.nonsense
