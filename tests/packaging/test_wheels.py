"""What is in the wheels, what they ask for, and what they say of themselves."""

from __future__ import annotations

import ast
import re
import sys
import zipfile
from pathlib import Path

import pytest
from tests.packaging.building import ROOT, build, copied, metadata, names, requirements

import nano_runtime

LARGEST_DEMO_BYTES = 15e6
EXPORTERS_TOOLS = {"torch", "diffusers", "transformers", "optimum", "onnx", "nncf", "nano-export", "huggingface-hub"}
DISTRIBUTIONS = {"pil": "pillow", "yaml": "pyyaml"}
"""Packages whose names on the index are not those they are imported by."""


def expected(wheel: Path, project: Path) -> set[str]:
    """The sources, the demo model, the server's page and the metadata of a wheel without compiled parts, no more."""
    source = project / "src"
    found = [
        *source.rglob("*.py"),
        *source.rglob("py.typed"),
        *source.glob("nano_serve/page/*"),
        *source.rglob("*.html"),
    ]
    for demo in (*source.glob("*/demo"), *source.glob("*/source/demo")):
        found += [path for path in demo.rglob("*") if path.is_file()]
    name, version = wheel.name.split("-")[:2]
    parts = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    return {path.relative_to(source).as_posix() for path in found} | {
        f"{name}-{version}.dist-info/{part}" for part in parts
    }


class RunsOnly(ast.NodeTransformer):
    """Leaves out what only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Drop ``if TYPE_CHECKING:``."""
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imported(project: Path) -> set[str]:
    """The distributions that a project's sources import when they run, itself and the standard library aside."""
    modules = set()
    for path in (project / "src").rglob("*.py"):
        for node in ast.walk(RunsOnly().visit(ast.parse(path.read_text()))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                modules.add(node.module)
    roots = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    roots -= {path.name for path in (project / "src").iterdir()}
    return {DISTRIBUTIONS.get(root.lower(), root.lower().replace("_", "-")) for root in roots}


@pytest.fixture(params=["runtime", "exporter"])
def wheel(request):
    return request.getfixturevalue(request.param)


def test_the_runtimes_wheel_has_its_sources_and_nothing_else(runtime):
    assert names(runtime) == expected(runtime, ROOT / "runtime")


def test_the_demo_in_the_runtimes_wheel_is_small(runtime):
    files = zipfile.ZipFile(runtime).infolist()
    demo = [file for file in files if file.filename.startswith("nano_runtime/demo/")]
    assert any(file.filename.endswith("unet/model.onnx") for file in demo)
    assert sum(file.file_size for file in demo) < LARGEST_DEMO_BYTES


def test_a_stray_file_would_be_seen(tmp_path):
    project = copied("runtime", tmp_path)
    (project / "src" / "nano_runtime" / "weights.bin").write_bytes(b"\0")
    wheel = build(project, tmp_path / "dist")
    assert names(wheel) - expected(wheel, project) == {"nano_runtime/weights.bin"}


def test_the_runtime_asks_for_seven_small_packages(runtime):
    always = {name for name, marker in requirements(runtime) if marker == ""}
    assert always == {"blake3", "msgspec", "numpy", "pillow", "platformdirs", "tokenizers", "tqdm"}


def test_the_engines_are_extras(runtime):
    optional = {(name, marker) for name, marker in requirements(runtime) if marker != ""}
    signing = {name for name, marker in optional if "signing" in marker}
    assert "model-signing" in signing
    serving = {name for name, marker in optional if "serve" in marker}
    assert serving == {"h11", "starlette", "uvicorn", "python-multipart"}
    assert {name for name, marker in optional if "parquet" in marker} == {"pyarrow"}
    assert {name for name, marker in optional if "ray" in marker} == {"ray"}
    engines = {name for name, _ in optional} - {"nano-runtime", "pyarrow", "ray"} - signing - serving
    assert engines == {"onnxruntime", "openvino"}
    assert all(marker.startswith("extra ==") for _, marker in optional)


def test_the_runtime_asks_for_none_of_the_exporters_tools(runtime):
    assert {name for name, _ in requirements(runtime)} & EXPORTERS_TOOLS == set()


def test_the_check_above_can_fail(exporter):
    found = {name for name, _ in requirements(exporter)}
    assert found & EXPORTERS_TOOLS >= {"torch", "diffusers", "transformers", "onnx"}


@pytest.mark.parametrize("project", ["runtime", "exporter"])
def test_what_is_imported_is_asked_for(project, request):
    asked = {name for name, _ in requirements(request.getfixturevalue(project))}
    assert imported(ROOT / project) <= asked


def test_an_import_that_is_not_asked_for_would_be_seen(tmp_path, runtime):
    project = copied("runtime", tmp_path)
    (project / "src" / "nano_runtime" / "more.py").write_text("def f():\n    import yaml.nodes\n")
    assert imported(project) - {name for name, _ in requirements(runtime)} == {"pyyaml"}


def test_the_exporters_wheel_has_its_sources_and_the_licences(exporter):
    licences = {f"nano_export/source/licence_texts/{name}.txt" for name in ("creativeml-openrail-m", "openrail++")}
    assert names(exporter) == expected(exporter, ROOT / "exporter") | licences


def test_the_licence_is_in_the_wheel_and_named(wheel):
    assert metadata(wheel)["License-Expression"] == "Apache-2.0"
    assert metadata(wheel).get_all("License-File") == ["LICENSE"]
    (path,) = (name for name in names(wheel) if name.endswith(".dist-info/licenses/LICENSE"))
    assert zipfile.ZipFile(wheel).read(path) == (ROOT / "LICENSE").read_bytes()


def test_both_wheels_have_the_packages_version(runtime, exporter):
    assert metadata(runtime)["Version"] == metadata(exporter)["Version"] == nano_runtime.__version__
    assert f"nano-runtime=={nano_runtime.__version__}" in metadata(exporter).get_all("Requires-Dist", [])


def test_the_version_has_a_dated_entry_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(
        rf"^## \[{re.escape(nano_runtime.__version__)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", changelog, re.MULTILINE
    )


def test_the_wheel_says_who_made_it_and_that_it_is_typed(wheel):
    assert metadata(wheel)["Author"] == "The Nano authors"
    assert "Typing :: Typed" in metadata(wheel).get_all("Classifier", [])
    assert any(re.fullmatch(r"nano_\w+/py\.typed", name) for name in names(wheel))


def test_the_wheel_names_no_python_that_it_refuses(wheel):
    oldest = int(metadata(wheel)["Requires-Python"].removeprefix(">=3."))
    versions = [line.rpartition(" ")[2] for line in metadata(wheel).get_all("Classifier", []) if ":: 3." in line]
    assert min(int(version.removeprefix("3.")) for version in versions) == oldest
