"""Draws pictures, and comes to harm as a file says; a module of its own, so that processes on nodes can import it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.batch.toy import toy_pipeline

from nano_batch import Draw, Wanted
from nano_runtime import Pipeline

__all__ = ["LACKS", "Harmed"]

CHUNK_BYTES = 100 << 20
LACKS = "NANO_TEST_LACKS_THE_BUNDLE"


class Harmed(Draw):
    """Draws, writes down that it did, and does to itself what ``plan.json`` says of a row."""

    @cached_property
    def pipeline(self) -> Pipeline:
        """The real engine, or formulas."""
        if os.environ.get(LACKS):
            return Pipeline.from_pretrained(self.out / "nowhere")
        if not self._plan["toy"]:
            return Pipeline.from_pretrained(**self._opening)
        return toy_pipeline(self._opening["bundle"])

    @cached_property
    def _plan(self) -> dict[str, Any]:
        return json.loads((self.out.parent / "plan.json").read_text())

    def draw(self, pictures: Sequence[Wanted]) -> list[dict[str, Any]]:
        """Draw, or pretend to."""
        if not self._plan.get("idle"):
            return super().draw(pictures)
        by: dict[str, Any] = {
            "backend": "onnxruntime",
            "engine_version": "1",
            "precision": None,
            "version": "1",
            "instruction_sets": [],
        }
        record = {"done": True, "size": 20000, "blake3": 64 * "0", "seconds": 0.1, "drawn_by": by}
        return [{"key": one.key, "files": dict.fromkeys(one.files, 0), **record} for one in pictures]

    def _drawn(self, unit: Sequence[Wanted]) -> list[dict[str, Any]]:
        executed = self.out.parent / "executed.jsonl"
        for one in unit:
            row = Path(one.files[0]).stem
            harm = self._plan["harm"].get(row)
            again = harm == "kill once" and f'"{row}"' in executed.read_text()
            with executed.open("a") as file:
                file.write(json.dumps({"row": row, "pid": os.getpid()}) + "\n")
            if harm is not None and not again:
                _come_to(harm)
        time.sleep(self._plan["seconds"] * len(unit))
        return super()._drawn(unit)


def _come_to(harm: str) -> None:
    """Do harm to this process."""
    if harm == "raise":
        raise ValueError("this row raises")
    if harm == "end":
        os._exit(3)
    if harm == "kill once":
        os.kill(os.getpid(), signal.SIGKILL)
    if harm == "sleep":
        time.sleep(3600)
    taken = []
    while harm == "hog":
        taken.append(os.urandom(1) * CHUNK_BYTES)
        time.sleep(0.05)
