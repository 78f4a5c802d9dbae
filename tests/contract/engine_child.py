"""Loads and runs changed graphs in a process of its own, one after the other, as the runtime would.

The parent sends for each graph a line of JSON (file, weights, inputs, bytes to come) and then the bytes. The child says
how it ended in a line; what ends the child, or takes it more than ``SECONDS``, the parent learns from its exit status.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from nano_runtime.bundle.checksums import HeldFile
from nano_runtime.engines import CheckedGraph, EngineOptions, open_session
from nano_runtime.errors import NanoError
from nano_runtime.system.files import open_plain

if TYPE_CHECKING:
    from nano_runtime.bundle.manifest import Backend

ROWS, TOKENS = 2, 8  # sizes of free dimensions: the first, and all others
SECONDS = 10  # of processor time; of the clock sixty times as many, because other processes may be at work
MEMORY = 6 << 30
READY = "ready"


def outcome(
    backend: Backend, model: str, weights: str | None, inputs: list[tuple[str, str, list[int]]], raw: bytes
) -> str:
    """Load and run a graph; return how that ended."""
    held = None if weights is None else HeldFile(Path(weights), open_plain(Path(weights)))
    checked = CheckedGraph(Path(model), raw, "", held)
    try:
        session = open_session(
            backend, checked, batch=ROWS, tokens=TOKENS, options=EngineOptions(threads=1, precision="f32")
        )
    except NanoError as error:
        return f"loading: {type(error).__name__}"
    try:
        session.run({name: np.ones(shape, kind) for name, kind, shape in inputs})
    except (NanoError, MemoryError) as error:
        return f"running: {type(error).__name__}"
    finally:
        session.close()
    return "ran"


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main(backend: str) -> None:
    """Answer until there is no more to read."""
    for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    while line := sys.stdin.buffer.readline():
        model, weights, inputs, size = json.loads(line)
        if model == READY:
            with suppress(OSError):
                open_plain(Path("/", READY))  # there is none, but a trace shows that it was looked for
            say(READY)
            continue
        raw = sys.stdin.buffer.read(size)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(60 * SECONDS)
        say(outcome(cast("Backend", backend), model, weights, inputs, raw))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
