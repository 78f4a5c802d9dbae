"""The child process of ``trial``: limits itself, then loads and runs everything in a bundle once.

Its arguments are the bundle, its digest, the engine, and the limits in seconds and bytes. It prints JSON lines: before
each trial the file, and at the end ``done`` or the error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend, Component
from nano_runtime.bundle.wiring import BATCH, TOKENS
from nano_runtime.drawing.neutral import with_plain_pictures
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import BundleError, LoaderDiedError, NanoError, NotEnoughMemoryError
from nano_runtime.networks.tokenizer import Tokenizer
from nano_runtime.options import DrawOptions
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.processors import usable_cores
from nano_runtime.verify.trial import REPORT_BYTES

__all__ = ["main"]

_BATCH = 2  # rows of one picture with guidance
_PROMPT = "a red fox"


def main(path: str, digest: str, backend: str, seconds: str, memory_bytes: str) -> int:
    """Try a bundle and return an exit code; the arguments are described above."""
    _limit(float(seconds), int(memory_bytes))
    folder = Path(path)
    try:
        _try(Bundle.open(folder, digest), cast("Backend", backend))
    except (MemoryError, NotEnoughMemoryError):
        return _report(LoaderDiedError(folder, "load and run", f"needed more than {int(memory_bytes) / 1e9:.1f} GB"))
    except NanoError as error:
        return _report(error)
    except Exception as error:  # noqa: BLE001 - a crafted bundle can raise anything
        why = f"it causes {type(error).__name__}: {error}"
        return _report(BundleError(f"{folder} cannot be used: {why}", "Do not use this bundle."))
    _say(done=True)
    return 0


def _try(bundle: Bundle, backend: Backend) -> None:
    """Load and run everything in a bundle, one thing at a time."""
    graphs = LoadedGraphs(bundle, backend, EngineOptions(threads=usable_cores(), precision="f32"))
    spec = bundle.manifest.tokenizer
    _say(file=spec.file)
    ids = Tokenizer.load(bundle.verified_file(spec.file), spec).encode(_PROMPT).ids
    _say(file=bundle.manifest.licence.file)
    pipeline = Pipeline(graphs, keep_loaded=False)
    options = DrawOptions(prompt=_PROMPT, num_inference_steps=1, scheduler=pipeline.own_scheduler)
    pipeline.plan(with_plain_pictures(options, bundle.manifest))  # makes the bundle's own sampler
    generator = np.random.default_rng(0)
    for name, component in bundle.manifest.components.items():
        if backend in component.graphs:
            _say(file=component.graphs[backend].model)
            graphs.run(name, _feeds(component, generator, ids), batch=_BATCH)
            graphs.close(name)


def _feeds(component: Component, generator: np.random.Generator, ids: NDArray[np.int64]) -> Arrays:
    """Return inputs of the manifest's shapes: unit normal numbers, or for int64 the ids of a prompt, or else ones.

    Args:
        component: the graph.
        generator: of the numbers.
        ids: of the prompt, int64 [1, length].
    """
    feeds: dict[str, F32 | NDArray[np.int64]] = {}
    free = {BATCH: _BATCH, TOKENS: ids.shape[1]}
    for tensor in component.inputs:
        shape = [free[size] if isinstance(size, str) else size for size in tensor.shape]
        if tensor.dtype == "int64":
            feeds[tensor.name] = (
                ids.repeat(_BATCH, axis=0) if shape == [_BATCH, ids.shape[1]] else np.ones(shape, np.int64)
            )
        else:
            feeds[tensor.name] = generator.standard_normal(shape, np.float32)
    return feeds


def _limit(seconds: float, memory_bytes: int) -> None:
    """Limit time, memory and output of this process, where the system can."""
    try:
        import resource  # noqa: PLC0415 - does not exist on Windows
    except ImportError:
        return
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: REPORT_BYTES,
        resource.RLIMIT_CPU: int(seconds * usable_cores()) + 1,  # in case the parent dies
        resource.RLIMIT_AS: memory_bytes,
    }
    for kind, most in bounds.items():
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _say(**words: object) -> None:
    """Print a line of the report."""
    print(json.dumps(words), flush=True)  # noqa: T201 - its standard output is the report


def _report(error: NanoError) -> int:
    """Print an error and return its exit code."""
    _say(what=error.what, hint=error.hint, code=error.exit_code)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
