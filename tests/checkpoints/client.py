"""Starts a warm exporter in a process of its own, and asks it about one checkpoint after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.checkpoints.outcome import Outcome

__all__ = ["Warm"]

_ROOT = Path(__file__).parents[2]


class Warm:
    """A warm exporter.

    Args:
        work: folder of traced and compiled graphs, which several may share; None makes each anew.
        log: file for what it prints by itself.
        quick: whether the exporter judges by one picture of four steps, and measures no samplers.
    """

    def __init__(self, work: Path | None, log: Path, *, quick: bool) -> None:
        command = [sys.executable, "-m", "tests.checkpoints.warm"]
        command += [] if work is None else ["--work", str(work)]
        command += ["--quick"] if quick else []
        self._log = log
        self._errors = log.open("w")
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def ask(self, request: dict[str, Any]) -> Outcome:
        """Export one checkpoint and compare its picture."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._line()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._errors.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return line
        raise RuntimeError(f"the warm exporter ended: {self._log.read_text()[-3000:]}")
