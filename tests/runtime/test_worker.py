"""The process that ``nano-bench`` loads a bundle in: confined, and believed only what can be."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nano_runtime.benchmark import Case, Settings
from nano_runtime.benchmark.worker import Worker, answer_of
from nano_runtime.bundle.folder import DEMO
from nano_runtime.errors import BundleError, MachineError, OutOfMemoryError, UsageError, WorkerDiedError
from nano_runtime.errors.told import told
from nano_runtime.system.landlock import landlock_version
from nano_runtime.system.messages import Channel
from nano_runtime.system.spawned import SpawnedChild

SETTINGS = Settings("a fox", 1, None, None, 1, 0, profile=False)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_draws_and_is_confined():
    pytest.importorskip("onnxruntime")
    before = children()
    worker = Worker(Case(DEMO, "onnxruntime", "f32", 1, 1, "exact"), SETTINGS)
    (process,) = children() - before
    status = Path(f"/proc/{process}/status").read_text()
    assert "\nNoNewPrivs:\t1\n" in status or landlock_version() == 0
    assert worker.about.rows["unet"] in {1, 2}
    assert worker.draw(0) > worker.drawn[0].run_ms["unet"][0] > 0
    worker.draw(1)
    worker.finish()
    assert worker.end.peak_rss_bytes is not None
    worker.stop()
    assert children() == before
    with pytest.raises(WorkerDiedError):
        worker.draw(2)


def test_its_errors_are_those_of_a_pipeline():
    pytest.importorskip("onnxruntime")
    worker = Worker(Case(DEMO, "onnxruntime", "bf16", 1, 1, "exact"), SETTINGS)
    with pytest.raises(UsageError, match="bf16"):
        worker.draw(0)
    with pytest.raises(WorkerDiedError):
        worker.draw(0)


@pytest.mark.parametrize(
    "answer",
    [{}, {"rows": 1}, {"rows": {"unet": "x"}}, {"rows": {"unet": None}}, {"rows": {"unet": 1e999}}],
    ids=str,
)
def test_an_answer_that_cannot_be_is_no_answer(answer):
    with pytest.raises(WorkerDiedError, match="the process for a test"):
        answered(answer, lambda found: int(found["rows"]["unet"]))


def test_errors_are_told_by_their_words():
    with pytest.raises(OutOfMemoryError, match="drawing"):
        answered(told(MemoryError("memory ran out while drawing")), dict)
    with pytest.raises(MachineError, match="a test"):
        answered(told(WorkerDiedError("a test", 1)), dict)
    with pytest.raises(BundleError, match="what"):
        answered({"error": "SystemExit", "what": "what"}, dict)


def answered(answer: dict[str, Any], read: Any) -> Any:
    """Have a channel answer."""
    near, far = os.pipe(), os.pipe()
    with closing(Channel(near[0], far[1])) as here, closing(Channel(far[0], near[1])) as there:
        there.send(answer)
        return answer_of(cast("SpawnedChild", SimpleNamespace(channel=here)), "a test", None, read)


def children() -> set[int]:
    found = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return {int(one) for of in found for one in of}
