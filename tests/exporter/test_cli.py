"""``nano-export`` refuses in two lines what cannot work, as early as it can, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from nano_export import cli, exporting
from nano_export.options import Options
from nano_export.source import builtin
from nano_export.source.needs import Needs, check_resources
from nano_export.source.place import find_model
from nano_runtime.bundle.manifest import Backend
from nano_runtime.errors import DiskSpaceError, NotEnoughMemoryError
from nano_runtime.system.machine import memory_available_bytes

COMMAND = Path(sys.executable).parent / "nano-export"
ENGINES: tuple[Backend, ...] = ("onnxruntime", "openvino")
# Runs the command and says which heavy packages were imported on the way.
LIGHTNESS = """
import sys
from nano_export.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as exit:
    code = exit.code
heavy = {"torch", "diffusers", "transformers", "openvino", "onnxruntime", "onnx_ir", "numpy"} & set(sys.modules)
print(code, sorted(heavy), file=sys.stderr)
"""


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command in this process; return its code and the first line of its error."""
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    error = err[err.index("nano-export: ") :].splitlines()  # below the lines for each stage
    assert len(error) == 2
    assert "Traceback" not in err
    return code, error[0]


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "place" / "bundle"


@pytest.fixture(autouse=True)
def place(target):
    """An empty folder, which has to stay empty."""
    target.parent.mkdir()
    yield
    assert list(target.parent.iterdir()) == []


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A checkpoint of a few megabytes."""
    folder = tmp_path_factory.mktemp("small") / "model"
    builtin.write_checkpoint(builtin.build("tiny"), folder)
    return folder


@pytest.fixture
def huge(small, tmp_path) -> Path:
    """A checkpoint of eight terabytes, as far as headers and file sizes go: its weights are one hole."""
    folder = tmp_path / "huge"
    shutil.copytree(small, folder)
    hole(folder, 8 * 10**12)
    return folder


def hole(folder: Path, size: int) -> None:
    """Make a UNet's weights a file of one tensor without content."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with (folder / "unet" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


def needs_of(model: Path | str, output: Path, **options: Any) -> Needs:
    """Estimate an export by one engine, if nothing else is said."""
    asked = {"backends": ("onnxruntime",), **options}
    return check_resources(find_model(str(model), None, None), Options(model=str(model), output=output, **asked))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--min-psnr", "42"], "--min-psnr means nothing without --int8"),
        (["--strict"], "--strict means nothing without --int8"),
        (["--quantizer", "nncf"], "--quantizer means nothing without --int8"),
        (["--int8", "--quantizer", "nncf"], "--quantizer nncf cannot be used: its graphs are quick in OpenVINO only"),
        (
            ["--int8", "--quantizer", "nncf", "--backend", "openvino", "--compact"],
            "--quantizer nncf and --compact exclude each other",
        ),
        (["--int8", "--min-psnr", "0"], "--min-psnr 0 cannot be a goal"),
        (["--int8", "--min-psnr", "-3"], "--min-psnr -3 cannot be a goal"),
        (["--int8", "--min-psnr", "nan"], "--min-psnr nan cannot be a goal"),
        (["--int8", "--min-psnr", "inf"], "--min-psnr inf cannot be a goal"),
    ],
)
def test_goals_and_quantizers_that_mean_nothing_are_refused(arguments, why, target, capsys):
    code, error = refused(["demo", "-o", str(target), *arguments], capsys)
    assert (code, error) == (2, f"nano-export: {why}")


def test_a_quantizer_that_is_not_installed_is_an_extra(target, capsys, monkeypatch):
    monkeypatch.setattr(exporting, "nncf_is_installed", lambda: False)
    arguments = ["demo", "-o", str(target), "--int8", "--quantizer", "nncf", "--backend", "openvino"]
    assert cli.main(arguments) == 4
    assert 'pip install "nano-export[nncf]"' in capsys.readouterr().err


@pytest.mark.parametrize("size", ["100", "0", "-64", "4", "1088"])
def test_sizes_the_network_cannot_draw_are_refused(size, target, capsys):
    code, error = refused(["tiny", "-o", str(target), "--size", size], capsys)
    assert code == 2
    assert f"a size of {size} pixels cannot be exported" in error


def test_a_folder_without_a_model_is_refused(tmp_path, target, capsys):
    code, error = refused([str(tmp_path), "-o", str(target)], capsys)
    assert code == 2
    assert f"{tmp_path / 'model_index.json'} is not a usable checkpoint: it is missing" in error


def test_a_name_that_is_none_is_refused_without_asking_the_hub(target, capsys):
    code, error = refused(["./no such folder", "-o", str(target)], capsys)
    assert code == 2
    assert "there is no such folder, and it cannot be the name of a model on the Hub" in error


def test_a_parent_that_is_missing_is_refused(target, capsys):
    code, error = refused(["tiny", "-o", str(target / "deeper")], capsys)
    assert code == 4
    assert f"the folder {target} does not exist" in error


def test_a_disk_that_is_too_small_is_refused(huge, target, capsys):
    assert shutil.disk_usage(target.parent).free < 8e12, "this disk is too large for the test"
    code, error = refused([str(huge), "-o", str(target)], capsys)
    assert code == 4
    assert f"{target.parent} has" in error
    assert "GB are needed" in error  # once for each engine


def test_the_estimate_grows_with_engines_and_with_what_int8_needs_in_between(huge, target):
    needs: dict[tuple[str, int], float] = {}
    cases: list[tuple[Literal["fp32", "int8"], int]] = [("fp32", 1), ("fp32", 2), ("int8", 1), ("int8", 2)]
    for precision, engines in cases:
        with pytest.raises(DiskSpaceError) as caught:
            needs_of(huge, target, precision=precision, backends=ENGINES[:engines])
        needs[precision, engines] = float(caught.value.what.split()[-4])
    assert needs["fp32", 1] < needs["int8", 1] < needs["int8", 2] < needs["fp32", 2]
    needs_of("tiny", target, precision="int8", backends=ENGINES)  # and a small model passes


def test_too_little_memory_is_refused(huge, target):
    available = memory_available_bytes()
    if available is None or shutil.disk_usage(target.parent).free < available + 2e8:
        pytest.skip("needs Linux and more free disk than free memory, as the disk is looked at first")
    hole(huge, available // 4 * 4)
    with pytest.raises(NotEnoughMemoryError, match="exporting"):
        needs_of(huge, target)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["tiny", "-o", "x", "--fast"], ["tiny"], ["tiny", "-o", "x", "--backend", "tensorrt"]]
)
def test_help_and_usage_errors_import_nothing_heavy(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIGHTNESS, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == ("0 []" if arguments == ["--help"] else "2 []")
    assert ("usage: nano-export" if arguments == ["--help"] else "nano-export --help") in done.stdout + done.stderr
    if arguments == ["--help"]:
        assert all(words in done.stdout for words in ("--int8", "--backend", "--graph", "--size", "tiny", "synthetic"))


def test_an_output_that_exists_is_refused_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").touch()
    for force, said in (([], "bundle exists already"), (["--force"], "bundle is not replaced")):  # it is no bundle
        done = subprocess.run(
            [sys.executable, "-c", LIGHTNESS, "tiny", "-o", "bundle", *force],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr.splitlines()[-1] == "2 []"
        assert said in done.stderr
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["mine.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_cannot_be_reached_is_the_networks_fault(offline, target, tmp_path):
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        environment = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [COMMAND, "someone/else", "-o", target], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 5
    assert done.stdout == ""
    assert "nano-export: someone/else could not be fetched from the Hub: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_interrupted_export_leaves_nothing_and_has_printed_its_stages_alone(small, target):
    with subprocess.Popen([COMMAND, small, "-o", target], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            assert re.match(r" *\d+% ", line)
            assert line.count("%") == 1  # a library's bar is none of them
            if "drawing" in line:
                break
        assert list(target.parent.iterdir())  # it has begun
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=120) == 130
    assert rest.splitlines()[-1] == "nano-export: interrupted"
    assert "Traceback" not in rest
