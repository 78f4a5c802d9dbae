"""ONNX Runtime: the only file that imports onnxruntime.

Official builds may report usage to their maker as soon as the library loads. Two environment variables forbid that;
they are set before the import, because no call could come in time.
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
from nano_runtime.errors import EngineError, PrecisionError, TamperedFileError
from nano_runtime.errors.escaping import first_line
from nano_runtime.system.out_of_memory import is_out_of_memory

__all__ = ["OrtSession", "open_graph"]

_NAME = "onnxruntime"
_LOG_FATAL = 4  # the least it can log; errors come as exceptions too

# This optimizer joins a linear layer's MatMul and bias into a Gemm before the integer kernels are chosen, and there is
# no integer kernel for a Gemm with a float result: with it, the INT8 UNet took three times as long (bench/LOG.md).
_DISABLED_OPTIMIZERS = ["MatMulAddFusion"]


class OrtSession:
    """A graph loaded into ONNX Runtime's CPU provider."""

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
        """Return the time of each operator; see ``Session.layer_times``."""
        if self._session is None or self._profile is None:
            raise RuntimeError(f"{self._model} was closed, or opened without a profile")
        events = json.loads(Path(self._session.end_profiling()).read_bytes())
        self._profile.cleanup()
        return _layer_times(events)

    def close(self) -> None:
        """Free the memory."""
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
    choices.log_severity_level = _LOG_FATAL
    choices.add_free_dimension_override_by_name("tokens", tokens)
    if isinstance(batch, int):  # a free batch computes the same, as quickly (bench/LOG.md)
        choices.add_free_dimension_override_by_name("batch", batch)
    # Off: a memory plan that puts all activations into one block. Calls are as quick without it, in 41 MB less.
    choices.enable_mem_pattern = False
    # Weights live as long as the session, so they are kept out of the arena, which rounds the sizes of blocks up.
    choices.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    # A MatMul with INT8 weights alone computes in f32, level 1. Level 4 is quicker (bench/LOG.md), but rounds
    # activations to 8 bits on some processors and in some releases only: pictures of one seed would be further apart.
    choices.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    # Threads that keep spinning after a call would slow down the next component's threads.
    choices.add_session_config_entry("session.force_spinning_stop", "1")
    # Without this, bytes that say so are read as a format of onnxruntime's own.
    choices.add_session_config_entry("session.load_model_format", "ONNX")
    if graph.weights is not None:
        folder = str(graph.model.parent.resolve())
        choices.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    profile = TemporaryDirectory(prefix="nano-profile-") if options.profile else None
    if profile is not None:
        choices.enable_profiling = True
        choices.profile_file_prefix = str(Path(profile.name) / "layers")
    try:
        _require_in_place(graph)  # onnxruntime maps weights by name only
        session = onnxruntime.InferenceSession(
            graph.content,
            choices,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_DISABLED_OPTIMIZERS,
            enable_fallback=0,  # it would print what went wrong, and try the same again
        )
        _require_in_place(graph)
    except TamperedFileError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise EngineError(_NAME, "load", graph.model, first_line(error)) from error
    return OrtSession(session, graph, profile)


def _require_in_place(graph: CheckedGraph) -> None:
    """Check that the file with the weights is the one that was compared."""
    if graph.weights is not None:
        graph.weights.require_in_place()


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
