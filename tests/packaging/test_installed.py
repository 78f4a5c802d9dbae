"""The built wheels, installed into an environment of their own: the commands run from there, and from nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@dataclass(frozen=True)
class Environment:
    """A virtual environment with both wheels, and an empty folder to run its commands in."""

    bin: Path
    packages: Path
    folder: Path

    def run(self, command: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of its commands as a user would: nothing of this process says where to import from."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["XDG_CACHE_HOME"] = str(self.folder / "cache")
        return subprocess.run(
            [self.bin / command, *options],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=self.folder,
        )


@pytest.fixture(scope="module")
def installed(runtime, exporter, tmp_path_factory) -> Environment:
    """Install both wheels and nothing else; what they need is read from where the tests' own interpreter finds it."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", runtime, exporter]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    needs = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "needs.pth").write_text("\n".join(needs) + "\n")
    (folder / "empty").mkdir()
    return Environment(folder / "venv" / "bin", packages, folder / "empty")


def test_the_packages_are_imported_from_the_environment(installed):
    program = "import nano_runtime, nano_export; print(nano_runtime.__file__, nano_export.__file__, sep='\\n')"
    done = installed.run("python", "-c", program)
    assert done.stderr == ""
    assert [Path(line) for line in done.stdout.splitlines()] == [
        installed.packages / "nano_runtime" / "__init__.py",
        installed.packages / "nano_export" / "__init__.py",
    ]


def test_the_installed_runtime_draws_its_demo(installed):
    done = installed.run("nano-generate", "an otter on a teal background", "--seed", "7", "-o", "otter.png")
    assert done.returncode == 0, done.stderr
    with Image.open(installed.folder / "otter.png") as picture:
        assert picture.size == (128, 128)
        assert np.asarray(picture).std() > 10  # not one colour


def test_the_installed_demo_is_whole(installed):
    demo = installed.packages / "nano_runtime" / "demo"
    assert installed.run("nano-bundle", "verify", demo).returncode == 0


def test_an_installed_demo_with_a_changed_byte_is_refused(installed):
    weights = installed.packages / "nano_runtime" / "demo" / "vae_decoder" / "model.onnx.data"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        done = installed.run("nano-bundle", "verify", weights.parents[1])
    finally:
        weights.write_bytes(whole)
    assert done.returncode == 3
    assert "vae_decoder/model.onnx.data" in done.stderr


@pytest.mark.parametrize("command", ["nano-generate", "nano-bench", "nano-bundle", "nano-export"])
def test_the_commands_are_installed(installed, command):
    done = installed.run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {command} ")
    assert done.stderr == ""
