"""No command and no process that one starts imports modules of the folder that it is run in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nano_runtime.system import children

STRANGERS = ("json.py", "numpy.py", "runpy.py", "pickle.py", "multiprocessing/__init__.py", "nano_runtime/__init__.py")


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A folder with modules that leave a file when they are imported."""
    folder = tmp_path / "bundle"
    for name in STRANGERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("safe_path", [True, False] if sys.version_info >= (3, 11) else [False])
def test_a_module_that_is_run_finds_its_own(hostile, safe_path, monkeypatch):
    monkeypatch.setattr(children, "_HAS_SAFE_PATH", safe_path)
    done = run(hostile, *children.module_command("nano_runtime.cli.bundle"), "--version")
    assert done.stdout.startswith("nano-bundle "), done.stderr
    assert not (hostile.parent / "ran").exists()


def test_python_alone_imports_what_lies_there(hostile):
    """The control."""
    run(hostile, sys.executable, "-m", "nano_runtime.cli.bundle", "--version")
    assert (hostile.parent / "ran").exists()


@pytest.mark.parametrize("command", ["nano-generate", "nano-bench", "nano-bundle"])
def test_the_commands_find_their_own(hostile, command):
    script = Path(sys.executable).with_name(command)
    if not script.exists():
        pytest.skip("the commands are not installed beside this Python")
    done = run(hostile, str(script), "--version")
    assert done.stdout.startswith(f"{command} "), done.stderr
    assert not (hostile.parent / "ran").exists()


def test_every_process_is_started_in_one_of_these_ways():
    """Whoever starts one goes through ``system/children.py``."""
    import nano_runtime  # noqa: PLC0415

    for path in Path(nano_runtime.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "children.py":
            assert "sys.executable" not in text, path
            assert ("subprocess." in text) <= ("module_command(" in text), path
            assert "multiprocessing" not in text, path
