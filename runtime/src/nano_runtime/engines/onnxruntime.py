"""ONNX Runtime: the only file that imports onnxruntime.

Official builds may report usage to their maker from the moment the library loads, before any call could forbid it, so
the two variables that forbid it are set before the import.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["ORT_TELEMETRY_DISABLED"] = "1"

import onnxruntime

from nano_runtime.arrays import F32, Arrays
from nano_runtime.engines.base import Batch, CheckedGraph, EngineOptions, LayerTime
from nano_runtime.errors import EngineError, PrecisionError
from nano_runtime.errors.escaping import first_line
from nano_runtime.system.out_of_memory import is_out_of_memory

__all__ = ["OrtSession", "open_graph"]

_NAME = "onnxruntime"
_LOG_NOTHING = 4  # but what ends the process: errors come as exceptions, and are told in our words

# It would join a linear layer's MatMul and bias into a Gemm before the integer kernels are chosen, and a Gemm with a
# float result has none: the INT8 UNet took three times as long (bench/LOG.md).
_DISABLED_OPTIMIZERS = ["MatMulAddFusion"]


class OrtSession:
    """A graph in ONNX Runtime's CPU provider."""

    def __init__(
        self, session: onnxruntime.InferenceSession, graph: CheckedGraph, profile: TemporaryDirectory[str] | None
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._model = graph.model
        self._profile = profile
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, feeds: Arrays) -> dict[str, F32]:
        """Compute all outputs; see ``Session.run``."""
        if self._session is None:
            raise RuntimeError(f"{self._model} was closed")
        try:
            outputs = self._session.run(self._outputs, dict(feeds))
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise EngineError(_NAME, "run", self._model, first_line(error)) from error
        return dict(zip(self._outputs, outputs, strict=True))

    def layer_times(self) -> list[LayerTime]:
        """Return what each operator took; see ``Session.layer_times``."""
        if self._session is None or self._profile is None:
            raise RuntimeError(f"{self._model} was closed, or opened without a profile")
        events = json.loads(Path(self._session.end_profiling()).read_bytes())
        self._profile.cleanup()
        return _layer_times(events)

    def close(self) -> None:
        """Give the memory back."""
        self._session = None


def open_graph(graph: CheckedGraph, *, batch: Batch, tokens: int, options: EngineOptions) -> OrtSession:
    """Load a graph with the dimension ``tokens`` fixed, and ``batch`` if it has one size; see ``open_session``."""
    if options.precision != "f32":
        raise PrecisionError(_NAME, options.precision, "its CPU kernels compute in f32")
    choices = onnxruntime.SessionOptions()
    choices.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    choices.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    choices.intra_op_num_threads = options.threads
    choices.inter_op_num_threads = 1
    choices.log_severity_level = _LOG_NOTHING
    choices.add_free_dimension_override_by_name("tokens", tokens)
    if isinstance(batch, int):  # a free batch computes the same, as quickly (bench/LOG.md)
        choices.add_free_dimension_override_by_name("batch", batch)
    # A plan of all activations in one block saves nothing here: without it calls are as quick, in 41 MB less.
    choices.enable_mem_pattern = False
    # Weights live as long as the session: the arena would round their blocks up and keep the slack.
    choices.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    # A MatMul with INT8 weights alone rounds its activations too, 32 by 32, which adds a tenth to its weights' error.
    # In f32, level 1, it would unpack its weights in every call, and take 2.4 times as long.
    choices.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
    # Threads that spin after a call, in hope of another, would be in the way of the next component's.
    choices.add_session_config_entry("session.force_spinning_stop", "1")
    profile = TemporaryDirectory(prefix="nano-profile-") if options.profile else None
    if profile is not None:
        choices.enable_profiling = True
        choices.profile_file_prefix = str(Path(profile.name) / "layers")
    try:
        session = onnxruntime.InferenceSession(
            str(graph.model), choices, providers=["CPUExecutionProvider"], disabled_optimizers=_DISABLED_OPTIMIZERS
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise EngineError(_NAME, "load", graph.model, first_line(error)) from error
    return OrtSession(session, graph, profile)


def _layer_times(events: list[dict[str, Any]]) -> list[LayerTime]:
    """Return the median of each node's durations from the trace events that ONNX Runtime writes, in microseconds."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["cat"] == "Node":
            runs[event["args"]["node_index"]].append(event)
    times = []
    for run in runs.values():
        node = run[0]["args"]
        (shape,) = node["output_type_shape"][0].values()  # {"float": [2, 256, 32]}
        times.append(LayerTime(node["op_name"], tuple(shape), median(event["dur"] for event in run) / 1e3))
    return times
