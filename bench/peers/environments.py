"""One virtual environment per library, made from an exact list of versions and kept until the list changes.

The lists are complete (``pip freeze`` of an environment that works), and are installed without resolving dependencies:
optimum-intel asks for torchvision, which it does not need here and which would replace a CPU build of torch.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from bench.peers.commands import run_logged

__all__ = ["is_ready", "make_ready", "python_of", "requirements_of"]

_REQUIREMENTS = Path(__file__).parent / "requirements"
_READY = "ready.txt"
"""The list an environment was made from; written last, so an environment without it is half made."""


def requirements_of(name: str) -> str:
    """Return the text of a list of versions."""
    return (_REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")


def python_of(name: str | None, work: Path) -> Path:
    """Return the interpreter of an environment; of the driver's own for None."""
    return Path(sys.executable) if name is None else work / "environments" / name / "bin" / "python"


def is_ready(name: str, work: Path) -> bool:
    """Tell whether an environment is there, and was made from the list as it is now."""
    marker = work / "environments" / name / _READY
    return marker.is_file() and marker.read_text(encoding="utf-8") == requirements_of(name)


def make_ready(name: str, work: Path) -> None:
    """Make an environment anew.

    Raises:
        PeerError: something cannot be installed.
    """
    folder = work / "environments" / name
    log = work / "logs" / f"environment-{name}.log"
    shutil.rmtree(folder, ignore_errors=True)
    run_logged([sys.executable, "-m", "venv", folder], log)
    install: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    listed = _REQUIREMENTS / f"{name}.txt"
    if re.search(r"^torch==", requirements_of(name), re.MULTILINE):
        # With dependencies: a CUDA build, which some indexes have, does not start without its libraries.
        run_logged([*install, "--constraint", listed, "torch"], log)
    run_logged([*install, "--no-deps", "--requirement", listed], log)
    (folder / _READY).write_text(requirements_of(name), encoding="utf-8")
