"""OpenVINO: the only file that imports openvino."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from nano_runtime.backends.base import Arrays, Batch, CheckedGraph, EngineOptions, LayerTime
from nano_runtime.backends.blobs import Blobs
from nano_runtime.errors import EngineError, PrecisionError
from nano_runtime.machine import instruction_sets

__all__ = ["OvSession", "open_graph"]

_NAME = "openvino"
_CAPABILITY = {"f32": "FP32", "bf16": "BF16"}

_log = logging.getLogger(__name__)


class OvSession:
    """A graph compiled by OpenVINO's CPU plugin."""

    def __init__(self, compiled: openvino.CompiledModel, graph: CheckedGraph) -> None:
        self._compiled: openvino.CompiledModel | None = compiled
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self._model = graph.model
        self._bound: dict[str, NDArray[Any]] = {}
        self._outputs = [sorted(port.get_names()) for port in compiled.outputs]

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.float32]]:
        """Compute all outputs; see ``Session.run``."""
        if self._request is None:
            raise RuntimeError(f"{self._model} was closed")
        try:
            self._bind(self._request, feeds)
            self._request.infer(share_outputs=True)
        except Exception as error:
            raise EngineError(_NAME, "run", self._model, _cause(error)) from error
        # The request writes its next results into the same memory, hence the copies.
        return {
            name: np.array(self._request.get_output_tensor(index).data, copy=True)
            for index, names in enumerate(self._outputs)
            for name in names
        }

    def layer_times(self) -> list[LayerTime]:
        """Return what each operator took; see ``Session.layer_times``. OpenVINO tells the mean over all calls."""
        if self._compiled is None:
            raise RuntimeError(f"{self._model} was closed")
        times = []
        for operator in self._compiled.get_runtime_model().get_ops():
            told = {key: str(value.astype(str)) for key, value in operator.get_rt_info().items()}
            if (microseconds := told["execTimeMcs"]).isdigit():  # "not_executed" otherwise
                kind = told["layerType"]
                if kind == "Subgraph" and "MatMul" in told["originalLayersNames"]:
                    kind = "Subgraph (MatMul)"  # fused attention, one of the many things that are called Subgraph
                times.append(LayerTime(kind, tuple(operator.get_output_shape(0)), int(microseconds) / 1e3))
        return times

    def close(self) -> None:
        """Give the memory back."""
        self._compiled = None
        self._request = None
        self._bound = {}

    def _bind(self, request: openvino.InferRequest, feeds: Arrays) -> None:
        """Point the engine at arrays it does not know yet: most are the same in every step, and each costs 25 us."""
        for name, array in feeds.items():
            if self._bound.get(name) is not array:
                self._bound[name] = np.ascontiguousarray(array)  # the same array if it can be
                request.set_tensor(name, openvino.Tensor(self._bound[name], shared_memory=True))


def open_graph(graph: CheckedGraph, *, batch: Batch, options: EngineOptions) -> OvSession:
    """Load a graph with every free dimension fixed or bounded; see ``backends.open_session``."""
    core = openvino.Core()
    if _CAPABILITY[options.precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise PrecisionError(_NAME, options.precision, "this processor has no such instructions")
    # The precision hint's default is bf16 on processors that have it: written out, a bundle computes alike everywhere.
    choices = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(options.threads),
        "INFERENCE_PRECISION_HINT": options.precision,
        "PERF_COUNT": "YES" if options.profile else "NO",
    }
    try:
        if options.cache is None:
            compiled = _compiled(core, graph, batch, choices)
        else:
            compiled = _compiled_once(core, graph, batch, choices, Blobs(options.cache))
    except MemoryError:
        raise
    except Exception as error:
        raise EngineError(_NAME, "load", graph.model, _cause(error)) from error
    return OvSession(compiled, graph)


def _compiled(
    core: openvino.Core, graph: CheckedGraph, batch: Batch, choices: dict[str, str]
) -> openvino.CompiledModel:
    """Read and compile a graph."""
    model = core.read_model(graph.model)
    model.reshape({port: _fixed(port.get_partial_shape(), batch) for port in model.inputs})
    return core.compile_model(model, "CPU", choices)


def _compiled_once(
    core: openvino.Core, graph: CheckedGraph, batch: Batch, choices: dict[str, str], blobs: Blobs
) -> openvino.CompiledModel:
    """Take a graph from the cache, or compile it and put it there.

    Of ten seconds that the full-size UNet takes, most go into rewriting the graph, and that is what the cache keeps: a
    few megabytes without weights, which the engine maps from the bundle. So nothing in it goes stale by itself; what
    the compiled graph depends on is in its key.
    """
    choices = {**choices, "CACHE_MODE": "OPTIMIZE_SIZE"}  # a blob without weights
    made_by = (openvino.get_version(), core.get_property("CPU", "FULL_DEVICE_NAME"), instruction_sets())
    key = repr((graph.digest, batch, sorted(choices.items()), made_by))
    if (blob := blobs.get(key)) is not None:
        weights = {"WEIGHTS_PATH": str(graph.model.with_suffix(".bin"))}
        try:
            return core.import_model(blob, "CPU", {**choices, **weights})
        except RuntimeError as error:  # the engine knows a reason that the key does not
            _log.info("the cached form of %s cannot be used: %s", graph.model, _cause(error))
            blobs.drop(key)
    compiled = _compiled(core, graph, batch, choices)
    blobs.put(key, compiled.export_model().getvalue())
    return compiled


def _fixed(shape: openvino.PartialShape, batch: Batch) -> openvino.PartialShape:
    """Return the shape with ``batch`` in every free dimension."""
    free = openvino.Dimension(batch) if isinstance(batch, int) else openvino.Dimension(*batch)
    return openvino.PartialShape([free if size.is_dynamic else size for size in shape])


def _cause(error: Exception) -> str:
    """Return what the engine said last: it prints where it is in its own source first, the cause last."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
