"""Runs on one processor, often an emulated one: draws a bundle's pictures, or runs graphs on given inputs.

    python bench/processors/worker.py draw BUNDLE COUNT OUT.npz
    python bench/processors/worker.py graphs BUNDLE CALLS.npz OUT.npz
    python bench/processors/worker.py apart GRAPH.onnx FEEDS.npz OUT.npz

It imports the runtime and nothing else, so that an emulated interpreter needs few packages.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines.base import Batch, EngineOptions, Runner
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.pipeline import Pipeline

__all__ = ["PROMPTS", "Arguments", "calls_of", "session_options"]

PROMPTS = (
    "a grapes on a pink background",
    "a cookie on a green background",
    "a basketball on a orange background",
    "a panda on a yellow background",
    "an umbrella on a pink background",
    "a watermelon on a purple background",
    "a cow on a green background",
    "a crab on a white background",
    "a butterfly on a orange background",
    "a cactus on a brown background",
    "a camera on a yellow background",
    "a watermelon on a red background",
)
"""Sentences that the demo model was trained on, drawn with seeds 0, 1, 2, ..."""
_ENGINE: Backend = "onnxruntime"
_OPTIONS = EngineOptions(threads=1, precision="f32")
Arguments = dict[str, np.ndarray]


class _Recorder:
    """A ``Runner`` that keeps what went in and out of every graph, as ``number|component|in or out|name``."""

    def __init__(self, runner: Runner, kept: Arguments) -> None:
        self._runner = runner
        self._kept = kept
        self._calls = 0

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        outputs = self._runner.run(component, feeds, batch=batch)
        for way, arrays in (("in", feeds), ("out", outputs)):
            for name, values in arrays.items():
                self._kept[f"{self._calls}|{component}|{way}|{name}"] = np.array(values)
        self._calls += 1
        return outputs


def calls_of(kept: Arguments, way: str) -> dict[tuple[str, str], Arguments]:
    """Return the arrays that went ``in`` or ``out``, by the number of the call and the component."""
    calls: dict[tuple[str, str], Arguments] = {}
    for key, values in kept.items():
        number, component, this, name = key.split("|")
        if this == way:
            calls.setdefault((number, component), {})[name] = values
    return calls


def session_options(level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.SessionOptions:
    """Return options that compute as the runtime's do."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _draw(bundle: str, count: str, target: str) -> None:
    """Write the latents of the first prompts, and the calls of all graphs for the first one."""
    latents: Arguments = {}
    calls: Arguments = {}
    graphs = LoadedGraphs(Bundle.open(bundle), _ENGINE, _OPTIONS)
    first = Pipeline(graphs, keep_loaded=True, around=lambda runner: _Recorder(runner, calls))
    other = Pipeline(graphs, keep_loaded=True)
    for seed, prompt in enumerate(PROMPTS[: int(count)]):
        if seed == 0:
            first(prompt, seed=seed, output_type="np")  # with the decoder
        latents[f"latents|{seed}"] = np.asarray(other(prompt, seed=seed, output_type="latent").images)
    np.savez(target, **latents, **calls)  # type: ignore[arg-type] # its options have other names


def _graphs(bundle: str, calls: str, target: str) -> None:
    """Run the graphs on what went into them elsewhere, and write what comes out."""
    graphs = LoadedGraphs(Bundle.open(bundle), _ENGINE, _OPTIONS)
    outputs: Arguments = {}
    with np.load(calls) as kept:
        given = {key: kept[key] for key in kept.files if key.count("|") > 1}
    for (number, component), feeds in calls_of(given, "in").items():
        batch = len(next(iter(feeds.values())))
        for name, values in graphs.run(component, feeds, batch=batch).items():
            outputs[f"{number}|{component}|out|{name}"] = values
    np.savez(target, **outputs)  # type: ignore[arg-type]


def _apart(graph: str, feeds: str, target: str) -> None:
    """Run a graph whose operators have their own inputs and outputs each; see ``operators``."""
    options = session_options(onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with np.load(feeds) as given:
        outputs = session.run(names, {name: given[name] for name in given.files})
    np.savez(target, **dict(zip(names, outputs, strict=True)))


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    Path(arguments[-1]).parent.mkdir(parents=True, exist_ok=True)
    {"draw": _draw, "graphs": _graphs, "apart": _apart}[task](*arguments)
