"""A whole export of ``tiny`` that is killed, or whose disk fails, leaves the old bundle, and the next run succeeds.

Every export is a process forked from this one, which has imported what it needs: that alone would take longer.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from tests.faults import ERRORS, failing

from nano_export import cli, export  # noqa: F401 - the second is imported here, before the forks
from nano_runtime.bundle import Bundle

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")
SEED = 4
SECONDS = 12.0  # an export takes about so long here; a kill that comes too late finds the new bundle
OPERATIONS = 600  # that an export makes in Python's own layers, about


def run_export(target: Path, log: Path, fault: tuple[int, int, bool] | None, most_bytes: int | None) -> None:
    """Export, and leave with the command's exit code; what it says goes to a file elsewhere.

    Args:
        target: the bundle.
        log: the file.
        fault: number of the operation beside or below the target that fails, errno, and whether all later ones do.
        most_bytes: that a file may have, for the kernel: native code meets this limit, too.
    """
    with log.open("w") as sys.stderr, log.with_suffix(".out").open("w") as sys.stdout:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        with nullcontext() if fault is None else failing(target.parent, *fault[:2], lasting=fault[2]):
            code = cli.main(["tiny", "-o", str(target), "--force", "--backend", "openvino"])  # the old one has both
        sys.stderr.flush()
        os._exit(code)


class Place:
    """A folder with a bundle, and exports into it."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.target = folder / "place" / "bundle"
        self.log = folder / "log"
        self.target.parent.mkdir()
        for path in sorted(bundle.rglob("*")):
            if path.is_file():
                copy = self.target / path.relative_to(bundle)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        self.old = Bundle.open(self.target).digest

    def start(self, fault: tuple[int, int, bool] | None = None, most_bytes: int | None = None) -> FORK.Process:
        child = FORK.Process(target=run_export, args=(self.target, self.log, fault, most_bytes))
        child.start()
        return child

    def digest(self) -> str:
        """Return which bundle is there, after comparing all of it."""
        bundle = Bundle.open(self.target)
        assert list(bundle.faults()) == []
        return bundle.digest

    def names(self) -> list[str]:
        return sorted(path.name for path in self.target.parent.iterdir())

    def exports(self) -> None:
        """Export without harm, and see that nothing else is left."""
        child = self.start()
        child.join(120)
        assert child.exitcode == 0, self.log.read_text()
        self.digest()
        assert self.names() == ["bundle"]


@pytest.fixture
def place(tmp_path, fp32) -> Place:
    return Place(tmp_path, fp32)


def test_killed_at_any_moment(place):
    dice, unfinished = np.random.default_rng(SEED), 0
    for _ in range(15):
        child = place.start()
        time.sleep(dice.uniform(0, SECONDS))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        place.digest()
        unfinished += place.names() != ["bundle"]
    assert unfinished > 10
    place.exports()


@pytest.mark.parametrize("trial", range(10))
def test_failing_at_any_operation(place, trial):
    dice = np.random.default_rng([SEED, trial])
    error, lasting = ERRORS[trial % len(ERRORS)], bool(trial % 2)
    child = place.start((int(dice.integers(1, OPERATIONS)), error, lasting))
    child.join(120)
    said = place.log.read_text()
    assert child.exitcode in {0, 4}, said
    assert "Traceback" not in said
    assert (place.digest() == place.old) == (child.exitcode == 4)
    assert child.exitcode == 0 or os.strerror(error) in said


@pytest.mark.parametrize("most_bytes", [1000, 100_000, 1_000_000, 3_000_000])
def test_no_file_may_be_larger(place, most_bytes):
    """The kernel refuses, so that engines and tokenizers meet it when they write by themselves."""
    child = place.start(most_bytes=most_bytes)
    child.join(120)
    said = place.log.read_text()
    assert child.exitcode == 4, said
    assert "Traceback" not in said
    assert os.strerror(errno.EFBIG) in said or "openvino could not write it" in said
    assert place.digest() == place.old
    assert place.names() == ["bundle"]
