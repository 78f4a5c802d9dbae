"""The same sources make the same wheel and the same sdist, byte for byte, wherever and whenever they are built."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from tests.packaging.building import build, copied

OTHER_TIME = 1_000_000_000
"""Seconds since 1970; any time but that of the copies."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def aged(project: Path) -> Path:
    """Give all files of a project another time and other permissions."""
    for path in project.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (OTHER_TIME, OTHER_TIME))
    return project


@pytest.mark.parametrize("project", ["runtime", "exporter"])
def test_a_wheel_built_elsewhere_is_the_same(project, tmp_path, request):
    first = request.getfixturevalue(project)
    second = build(aged(copied(project, tmp_path / "elsewhere")), tmp_path / "dist")
    assert second.name == first.name
    assert sha256(second) == sha256(first)


@pytest.mark.slow
def test_an_sdist_built_elsewhere_is_the_same(tmp_path):
    first = build(copied("runtime", tmp_path / "one"), tmp_path / "first", "sdist")
    second = build(aged(copied("runtime", tmp_path / "two")), tmp_path / "second", "sdist")
    assert sha256(second) == sha256(first)


def test_one_changed_byte_makes_another_wheel(runtime, tmp_path):
    project = copied("runtime", tmp_path)
    with (project / "src" / "nano_runtime" / "arrays.py").open("ab") as source:
        source.write(b"\n")
    assert sha256(build(project, tmp_path / "dist")) != sha256(runtime)
