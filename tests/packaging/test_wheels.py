"""What is in the wheels, and what they ask for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_DEMO_BYTES = 15e6
EXPORTERS_TOOLS = {"torch", "diffusers", "transformers", "optimum", "onnx", "nncf", "nano-export", "huggingface-hub"}


def build(project: Path, folder: Path) -> Path:
    """Build a project's wheel from a copy, with the build backend of this environment: no network."""
    copy = folder / project.name
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    return build_in_place(copy, folder / "dist")


def build_in_place(project: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, project]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return build(ROOT / "runtime", tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="module")
def exporter(tmp_path_factory):
    return build(ROOT / "exporter", tmp_path_factory.mktemp("exporter"))


def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def expected(wheel: Path, project: Path) -> set[str]:
    """The sources, the demo model and the metadata of a wheel without compiled parts, and nothing else."""
    source = project / "src"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    files |= {path.relative_to(source).as_posix() for path in source.rglob("py.typed")}
    files |= {path.relative_to(source).as_posix() for path in source.glob("*/demo/**/*") if path.is_file()}
    name, version = wheel.name.split("-")[:2]
    return files | {
        f"{name}-{version}.dist-info/{part}" for part in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")
    }


def requirements(wheel: Path) -> set[tuple[str, str]]:
    """Every requirement's name with its marker; "" where it is always wanted."""
    archive = zipfile.ZipFile(wheel)
    (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    found = set()
    for line in Parser().parsestr(archive.read(path).decode()).get_all("Requires-Dist", []):
        specification, _, marker = line.partition(";")
        name = re.split(r"[\s\[<>=!~(]", specification, maxsplit=1)[0]
        found.add((name.lower().replace("_", "-"), marker.strip()))
    return found


def test_the_runtimes_wheel_has_its_sources_and_nothing_else(runtime):
    assert contents(runtime) == expected(runtime, ROOT / "runtime")


def test_the_demo_in_the_runtimes_wheel_is_small(runtime):
    files = zipfile.ZipFile(runtime).infolist()
    demo = [file for file in files if file.filename.startswith("nano_runtime/demo/")]
    assert any(file.filename.endswith("unet/model.onnx") for file in demo)
    assert sum(file.file_size for file in demo) < LARGEST_DEMO_BYTES


def test_a_stray_file_would_be_seen(tmp_path):
    project = tmp_path / "runtime"
    shutil.copytree(ROOT / "runtime", project, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    (project / "src" / "nano_runtime" / "weights.bin").write_bytes(b"\0")
    wheel = build_in_place(project, tmp_path / "dist")
    assert contents(wheel) - expected(wheel, project) == {"nano_runtime/weights.bin"}


def test_the_runtime_asks_for_seven_small_packages(runtime):
    always = {name for name, marker in requirements(runtime) if marker == ""}
    assert always == {"blake3", "msgspec", "numpy", "pillow", "platformdirs", "tokenizers", "tqdm"}


def test_the_engines_are_extras(runtime):
    optional = {(name, marker) for name, marker in requirements(runtime) if marker != ""}
    signing = {name for name, marker in optional if "signing" in marker}
    assert "model-signing" in signing
    assert {name for name, _ in optional} - {"nano-runtime"} - signing == {"onnxruntime", "openvino"}
    assert all(marker.startswith("extra ==") for _, marker in optional)


def test_the_runtime_asks_for_none_of_the_exporters_tools(runtime):
    assert {name for name, _ in requirements(runtime)} & EXPORTERS_TOOLS == set()


def test_the_check_above_can_fail(exporter):
    found = {name for name, _ in requirements(exporter)}
    assert found & EXPORTERS_TOOLS >= {"torch", "diffusers", "transformers", "onnx"}


def test_the_exporters_wheel_has_its_sources_and_the_licences(exporter):
    licences = {f"nano_export/source/licence_texts/{name}.txt" for name in ("creativeml-openrail-m", "openrail++")}
    assert contents(exporter) == expected(exporter, ROOT / "exporter") | licences


@pytest.mark.parametrize("command", ["generate", "bench", "bundle"])
def test_the_commands_run_from_the_wheel_alone(runtime, command, tmp_path):
    zipfile.ZipFile(runtime).extractall(tmp_path)
    (entry_points,) = tmp_path.glob("*.dist-info/entry_points.txt")
    assert f"nano-{command} = nano_runtime.cli.{command}:main" in entry_points.read_text().splitlines()
    program = (
        f"from nano_runtime.cli.{command} import main; import nano_runtime, sys; "
        "print(nano_runtime.__file__, file=sys.stderr); main(['--help'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stderr.strip()).is_relative_to(tmp_path)
    assert done.stdout.startswith("usage: ")
