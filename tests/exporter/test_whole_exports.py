"""Whole exports, killed at random moments and failing at every operation: see the two programs that this runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nano_runtime.bundle.folder import DEMO, Bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks with torch loaded, and counts through /proc"),
]
ROOT = Path(__file__).parents[2]


def run(program: str, folder: Path, *options: object) -> list[dict[str, Any]]:
    """Run a program in a fresh process, where no library has started threads that a fork would lose."""
    command = [sys.executable, "-m", f"tests.exporter.{program}", str(folder), *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_killed_at_any_moment(tmp_path, full):
    count = 500 if full else 10
    *_, seen = run("killed", tmp_path, "--count", count)
    assert seen["kills"] == count
    assert seen["found something unfinished"] > count / 2


def test_every_operation_may_fail(tmp_path, full):
    kinds = run("faulty", tmp_path, *(() if full else ("--every", 90)))
    assert len(kinds) == 10  # five faults, once and lasting
    assert all(kind["next ones that succeeded"] > 0 for kind in kinds)
    assert all(kind["operations"] > 300 for kind in kinds if kind["error"] in {"ENOSPC", "EIO", "EACCES"})


def test_half_a_bundle_is_recognized_as_one(tmp_path):
    """The control for both: what they call whole has every byte."""
    from tests.exporter.whole import identity  # noqa: PLC0415 - imports torch

    copy = tmp_path / "bundle"
    for entry in Bundle.open(DEMO).manifest.files:
        (copy / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (copy / entry.path).write_bytes((DEMO / entry.path).read_bytes())
    (copy / "manifest.json").write_bytes((DEMO / "manifest.json").read_bytes())
    assert identity(copy) is not None
    largest = max(Bundle.open(DEMO).manifest.files, key=lambda entry: entry.size).path
    (copy / largest).write_bytes((copy / largest).read_bytes()[:-1])
    with pytest.raises(AssertionError):
        identity(copy)
    (copy / largest).unlink()
    with pytest.raises(AssertionError):
        identity(copy)
