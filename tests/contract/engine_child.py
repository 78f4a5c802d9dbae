"""Loads and runs changed graphs in a process of its own, one after the other, as the runtime would.

The parent sends for each graph a line of JSON (component, bytes to come) and then the bytes. The child says how it
ended in a line; what ends the child, or takes it more than ``SECONDS``, the parent learns from its exit status.
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
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import BATCH, TOKENS
from nano_runtime.engines import CheckedGraph, EngineOptions, open_session
from nano_runtime.errors import NanoError
from nano_runtime.system.files import open_plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nano_runtime.arrays import Arrays
    from nano_runtime.bundle.manifest import Backend

ROWS = 2
SECONDS = 10  # of processor time; of the clock sixty times as many, because other processes may be at work
MEMORY = 6 << 30
READY = "ready"


def ones(shape: list[int], dtype: str) -> NDArray[np.int64] | NDArray[np.float32]:
    """Return ones in the type of a tensor."""
    return np.ones(shape, np.int64) if dtype == "int64" else np.ones(shape, np.float32)


def feeds_of(bundle: Bundle, component: str) -> Arrays:
    """Return inputs of the manifest's shapes and types."""
    free = {BATCH: ROWS, TOKENS: bundle.manifest.tokenizer.length}
    return {
        tensor.name: ones([free[size] if isinstance(size, str) else size for size in tensor.shape], tensor.dtype)
        for tensor in bundle.manifest.components[component].inputs
    }


def outcome(bundle: Bundle, backend: Backend, component: str, raw: bytes) -> str:
    """Load and run a graph; return how that ended."""
    graph = bundle.manifest.components[component].graphs[backend]
    weights = None
    if graph.weights is not None:
        path = bundle.path / graph.weights
        weights = HeldFile(path, open_plain(path))
    checked = CheckedGraph(bundle.path / graph.model, raw, "", weights)
    tokens = bundle.manifest.tokenizer.length
    try:
        session = open_session(
            backend, checked, batch=ROWS, tokens=tokens, options=EngineOptions(threads=1, precision="f32")
        )
    except NanoError as error:
        return f"loading: {type(error).__name__}"
    try:
        session.run(feeds_of(bundle, component))
    except (NanoError, MemoryError) as error:
        return f"running: {type(error).__name__}"
    finally:
        session.close()
    return "ran"


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main(folder: str, backend: str, *components: str) -> None:
    """Answer until there is no more to read."""
    for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    bundle, engine = Bundle.open(Path(folder)), cast("Backend", backend)
    for component in components:  # all libraries are loaded before anything is changed
        graph = bundle.manifest.components[component].graphs[engine]
        assert outcome(bundle, engine, component, (bundle.path / graph.model).read_bytes()) == "ran"
    with suppress(OSError):
        open_plain(Path("/", READY))  # there is none, but a trace shows that it was looked for
    say(READY)
    while line := sys.stdin.buffer.readline():
        component, size = json.loads(line)
        raw = sys.stdin.buffer.read(size)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(60 * SECONDS)
        say(outcome(bundle, engine, component, raw))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
