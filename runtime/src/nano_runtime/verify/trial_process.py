"""The child process of ``trial``: limits itself, then loads and runs everything in a bundle once.

Its arguments are the bundle, its digest, the engine, and the limits in seconds and bytes. It prints JSON lines: before
each trial the file, and at the end ``done`` or the error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend, Component
from nano_runtime.bundle.wiring import BATCH, TEXT_ENCODER, TOKENS, UNET, UNET_SHALLOW, UNET_TIME, Task
from nano_runtime.drawing.neutral import with_plain_pictures
from nano_runtime.engines import Batch, EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import BundleError, LoaderDiedError, NanoError, NotEnoughMemoryError
from nano_runtime.networks.tokenizer import Tokenizer
from nano_runtime.options import DrawOptions
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.arithmetic import arithmetic
from nano_runtime.sampling.denoise import denoise
from nano_runtime.sampling.samplers import make_sampler
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.system.confinement import limit
from nano_runtime.system.processors import usable_cores
from nano_runtime.verify.trial import REPORT_BYTES

__all__ = ["main"]

_PROMPTS = (
    "a red fox",
    "\u0440\u044b\u0436\u0430\u044f \u043b\u0438\u0441\u0430",
    "\u8d64\u3044\u72d0",
    "\u062b\u0639\u0644\u0628",
    "Caf\u00e9 \U0001f98a, 3",
    "",
)  # Latin, Cyrillic, Japanese, Arabic, and what else a prompt may have
_PICTURES = (1, 2, 4)  # at once
_WAYS = 2  # rows of a picture with guidance
_WAYS_OF_EDITS = 3


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
    tokenizer = Tokenizer.load(bundle.verified_file(spec.file), spec)
    prompts = [tokenizer.encode(prompt).ids for prompt in _PROMPTS]
    _say(file=bundle.manifest.licence.file)
    calls = _rehearse(Pipeline(graphs, keep_loaded=False))
    for name, component in bundle.manifest.components.items():
        if backend in component.graphs:
            _say(file=component.graphs[backend].model)
            for ids in prompts if name == TEXT_ENCODER else prompts[:1]:
                _run(graphs, name, _sizes(name, calls, bundle.manifest.task), ids)
            graphs.close(name)


def _run(graphs: LoadedGraphs, component: str, sizes: Sequence[tuple[Batch, int]], ids: NDArray[np.int64]) -> None:
    """Run a graph once in each size; in larger ones than the first, as far as there is memory, as drawings do."""
    generator = np.random.default_rng(0)
    for index, (batch, rows) in enumerate(sizes):
        feeds = _feeds(graphs.bundle.component(component), generator, ids, rows)
        with suppress(MemoryError) if index > 0 else nullcontext():
            graphs.run(component, feeds, batch=batch)


def _rehearse(pipeline: Pipeline) -> int:
    """Run the bundle's own sampler with its own number of steps, and a stand-in for the network.

    Returns:
        The number of calls of the network.

    Raises:
        BundleError: the sampler cannot be made of the noise schedule, or its numbers are not finite.
    """
    manifest, name = pipeline.bundle.manifest, pipeline.own_scheduler
    options = DrawOptions(prompt=_PROMPTS[0], scheduler=name)
    plan = pipeline.plan(with_plain_pictures(options, manifest))
    latents = np.full((1, 1, 2, 2), 0.5, np.float32)
    sampler = make_sampler(name, Schedule.from_config(manifest.scheduler), plan.steps, latents.copy)
    with arithmetic(name):
        latents *= np.float32(sampler.mixing.init_noise_sigma)
    for _ in denoise(lambda given, _: given * np.float32(0.5), sampler, latents):
        pass
    return len(sampler.timesteps)


def _sizes(component: str, calls: int, task: Task) -> list[tuple[Batch, int]]:
    """Return the sizes for which drawings load a graph, each with the rows of a call.

    The UNet gets all pictures of a group, and one row where guidance is left out. Other graphs get one row, or one for
    each call.
    """
    if component == UNET_TIME:
        return [(1, 1), (calls, calls)]
    if component not in (UNET, UNET_SHALLOW):
        return [(1, 1)]
    ways = _WAYS_OF_EDITS if task == "instruct-pix2pix" else _WAYS
    rows = [1, *(ways * pictures for pictures in _PICTURES)]
    return [((1, max(rows)), count) for count in rows]


def _feeds(component: Component, generator: np.random.Generator, ids: NDArray[np.int64], rows: int) -> Arrays:
    """Return inputs of the manifest's shapes: unit normal numbers, or for int64 the ids of a prompt, or else ones.

    Args:
        component: the graph.
        generator: of the numbers.
        ids: of the prompt, int64 [1, length].
        rows: of the call.
    """
    feeds: dict[str, F32 | NDArray[np.int64]] = {}
    free = {BATCH: rows, TOKENS: ids.shape[1]}
    for tensor in component.inputs:
        shape = [free[size] if isinstance(size, str) else size for size in tensor.shape]
        if tensor.dtype == "int64":
            feeds[tensor.name] = ids.repeat(rows, axis=0) if shape == [rows, ids.shape[1]] else np.ones(shape, np.int64)
        else:
            feeds[tensor.name] = generator.standard_normal(shape, np.float32)
    return feeds


def _limit(seconds: float, memory_bytes: int) -> None:
    """Limit time, memory and output of this process, where the system can."""
    limit("FSIZE", REPORT_BYTES)
    limit("CPU", int(seconds * usable_cores()) + 1)  # in case the parent dies
    limit("AS", memory_bytes)


def _say(**words: object) -> None:
    """Print a line of the report."""
    print(json.dumps(words), flush=True)  # noqa: T201 - its standard output is the report


def _report(error: NanoError) -> int:
    """Print an error and return its exit code."""
    _say(what=error.what, hint=error.hint, code=error.exit_code)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
