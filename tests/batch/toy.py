"""``nano-batch`` with numpy formulas for an engine: a whole job in seconds, in this process or one of its own.

    python -m tests.batch.toy ROWS -o OUT --bundle FORMULAS

``FORMULAS`` is a bundle that ``fakes.make_bundle`` wrote. Everything but the graphs is the real thing.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from tests.runtime.fakes import FORMULAS, WORDS, FakeGraphs, pipeline_of

from nano_batch.cli import main
from nano_batch.job import lines_of
from nano_runtime import Bundle, Pipeline
from nano_runtime.bundle.manifest import Backend
from nano_runtime.errors import EngineDiedError, NonFiniteError

__all__ = [
    "DEADLY",
    "ENDLESS",
    "ROOT",
    "UNDRAWABLE",
    "begin",
    "lines",
    "outcomes",
    "toy_batch",
    "toy_pipeline",
    "write_rows",
]

ROOT = Path(__file__).parents[2]
UNDRAWABLE = "snow snow snow"
"""A prompt for which the text encoder computes nonsense."""

DEADLY = "snow snow snow snow"
"""A prompt that ends the process of the engine, as a fault in native code does."""

ENDLESS = "snow snow snow snow snow"
"""A prompt over which native code computes for hours."""


class _Forgetful(FakeGraphs):
    """Formulas that keep no runs: memory has to stay flat."""

    def _run(self, component: str, feeds: Mapping[str, Any], batch: Any) -> dict[str, Any]:
        self.runs.clear()
        self.log.clear()
        return super()._run(component, feeds, batch)


def _text_encoder(bundle: Path, input_ids: Any, *, isolated: bool) -> dict[str, Any]:
    counts = (np.asarray(input_ids) == WORDS["snow"]).sum(axis=-1)
    if ENDLESS.count("snow") in counts:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
    if UNDRAWABLE.count("snow") in counts:
        raise NonFiniteError("text_encoder", "output 'last_hidden_state'")
    if DEADLY.count("snow") in counts:
        if isolated:
            raise EngineDiedError(bundle, -signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return FORMULAS["hoisted"]["text_encoder"](input_ids)


def toy_pipeline(bundle: str | Path, **options: Any) -> Pipeline:
    """Open a bundle of formulas, with what ``Pipeline.from_pretrained`` takes."""
    opened = Bundle.open(bundle, options.get("expect_digest"))
    engine: Backend = "onnxruntime" if options.get("backend") is None else options["backend"]
    encode = partial(_text_encoder, opened.path, isolated=bool(options.get("isolated")))
    return pipeline_of(_Forgetful(opened, engine, instead={"text_encoder": encode}))


@contextmanager
def _drawing_with_formulas() -> Iterator[None]:
    """Have ``Draw`` open pipelines of formulas."""
    with patch.object(Pipeline, "from_pretrained", toy_pipeline):
        yield


def toy_batch(*words: object) -> int:
    """Run the command in this process, and return its exit code."""
    with _drawing_with_formulas():
        return main([str(word) for word in words])


def begin(module: str, *words: object) -> subprocess.Popen[bytes]:
    """Start a job in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects in a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def outcomes(out: Path) -> list[dict[str, Any]]:
    """Return what the log says that became of pictures; a torn line is none."""
    return [record for record in lines_of(out / "log" / "local.jsonl") if "done" in record]


if __name__ == "__main__":
    sys.exit(toy_batch(*sys.argv[1:]))
