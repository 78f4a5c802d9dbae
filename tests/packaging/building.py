"""Builds the two packages from copies of their folders, and reads what a built wheel says of itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Literal

__all__ = ["ROOT", "build", "copied", "metadata", "names", "requirements"]

ROOT = Path(__file__).parents[2]


def copied(project: str, folder: Path) -> Path:
    """Copy one of the two projects into a folder, links followed and leftovers left out; return where it is."""
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    return Path(shutil.copytree(ROOT / project, folder / project, ignore=ignored))


def build(project: Path, out: Path, kind: Literal["wheel", "sdist"] = "wheel") -> Path:
    """Build a project with the build backend of this environment, without a network; return the file."""
    command: list[str | Path] = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", out, project]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def names(wheel: Path) -> set[str]:
    """Return the paths of all files in a wheel."""
    return set(zipfile.ZipFile(wheel).namelist())


def metadata(wheel: Path) -> Message:
    """Return a wheel's METADATA."""
    archive = zipfile.ZipFile(wheel)
    (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(archive.read(path).decode())


def requirements(wheel: Path) -> set[tuple[str, str]]:
    """Return every requirement's name with its marker; "" where it is always wanted."""
    found = set()
    for line in metadata(wheel).get_all("Requires-Dist", []):
        specification, _, marker = line.partition(";")
        name = re.split(r"[\s\[<>=!~(]", specification, maxsplit=1)[0]
        found.add((name.lower().replace("_", "-"), marker.strip()))
    return found
