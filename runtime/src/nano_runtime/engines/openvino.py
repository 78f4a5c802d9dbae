"""OpenVINO: the only file that imports openvino.

Its Python package reports every import to its maker, over the network, from a process of its own, and leaves a folder
``intel`` in the user's home. No environment variable forbids that. It reports nothing where the package
``openvino_telemetry`` cannot be imported, so that import is made to fail.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes the import fail

import numpy as np  # the line above must come before openvino
import openvino
from numpy.typing import NDArray

from nano_runtime.arrays import F32, Arrays
from nano_runtime.engines.base import Batch, CheckedGraph, EngineOptions, LayerTime, Precision
from nano_runtime.engines.pages import mapped_once
from nano_runtime.errors import EngineError, PrecisionError
from nano_runtime.errors.escaping import last_line
from nano_runtime.system.disk_cache import DiskCache
from nano_runtime.system.machine import instruction_sets
from nano_runtime.system.out_of_memory import is_out_of_memory

__all__ = ["OvSession", "open_graph"]

_NAME = "openvino"
_CAPABILITY = {"f32": "FP32", "bf16": "BF16"}

_Sizes = tuple[Batch, int]

_log = logging.getLogger(__name__)


class OvSession:
    """A graph compiled by OpenVINO's CPU plugin."""

    def __init__(self, compiled: openvino.CompiledModel, graph: CheckedGraph) -> None:
        self._compiled: openvino.CompiledModel | None = compiled
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self._model = graph.model
        self._weights = graph.weights
        self._packed = False
        self._bound: dict[str, NDArray[Any]] = {}
        self._outputs = [sorted(port.get_names()) for port in compiled.outputs]

    def run(self, feeds: Arrays) -> dict[str, F32]:
        """Compute all outputs; see ``Session.run``."""
        if self._request is None:
            raise RuntimeError(f"{self._model} was closed")
        try:
            self._bind(self._request, feeds)
            if self._packed:
                self._request.infer(share_outputs=True)
            else:  # the first call packs the weights that loading left in the file
                with mapped_once(self._weights):
                    self._request.infer(share_outputs=True)
                self._packed = True
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise EngineError(_NAME, "run", self._model, last_line(error)) from error
        # The request writes its next results into the same memory, hence the copies.
        return {
            name: np.array(self._request.get_output_tensor(index).data, copy=True)
            for index, names in enumerate(self._outputs)
            for name in names
        }

    def layer_times(self) -> list[LayerTime]:
        """Return the time of each operator, the mean over all calls; see ``Session.layer_times``."""
        if self._compiled is None:
            raise RuntimeError(f"{self._model} was closed")
        times = []
        for operator in self._compiled.get_runtime_model().get_ops():
            told = {key: str(value.astype(str)) for key, value in operator.get_rt_info().items()}
            if (microseconds := told["execTimeMcs"]).isdigit():  # "not_executed" otherwise
                kind = told["layerType"]
                if kind == "Subgraph" and "MatMul" in told["originalLayersNames"]:
                    kind = "Subgraph (MatMul)"  # fused attention; other fusions are called Subgraph too
                times.append(LayerTime(kind, tuple(operator.get_output_shape(0)), int(microseconds) / 1e3))
        return times

    def close(self) -> None:
        """Free the memory."""
        self._compiled = None
        self._request = None
        self._bound = {}

    def _bind(self, request: openvino.InferRequest, feeds: Arrays) -> None:
        """Point the engine at new arrays. Most are the same in every step, and pointing at one takes 25 us."""
        for name, array in feeds.items():
            if self._bound.get(name) is not array:
                # ``ascontiguousarray`` would make a tensor of one dimension of a scalar.
                self._bound[name] = array if array.flags.c_contiguous else np.ascontiguousarray(array)
                request.set_tensor(name, openvino.Tensor(self._bound[name], shared_memory=True))


def open_graph(graph: CheckedGraph, *, batch: Batch, tokens: int, options: EngineOptions) -> OvSession:
    """Load a graph with every free dimension fixed or bounded; see ``engines.open_session``."""
    sizes: _Sizes = (batch, tokens)
    # Two defaults depend on the processor: bf16 where it has it, and with VNNI, in products with INT8 weights alone,
    # activations that are rounded to 8 bits in groups of 32. Set here, both are the same everywhere.
    choices = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(options.threads),
        "INFERENCE_PRECISION_HINT": options.precision,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "PERF_COUNT": "YES" if options.profile else "NO",
    }
    try:
        core = _core(options.precision)
        with mapped_once(graph.weights):
            if options.cache is None:
                compiled = _compiled(core, graph, sizes, choices)
            else:
                compiled = _compiled_once(core, graph, sizes, choices, DiskCache(options.cache))
        return OvSession(compiled, graph)
    except PrecisionError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise EngineError(_NAME, "load", graph.model, last_line(error)) from error


def _core(precision: Precision) -> openvino.Core:
    """Load the engine's CPU plugin and return the engine; raise ``PrecisionError`` if it lacks this precision."""
    core = openvino.Core()
    if _CAPABILITY[precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise PrecisionError(_NAME, precision, "this processor has no such instructions")
    return core


def _compiled(
    core: openvino.Core, graph: CheckedGraph, sizes: _Sizes, choices: dict[str, str]
) -> openvino.CompiledModel:
    """Read and compile a graph; ``sizes`` are those of batch and prompt."""
    model = core.read_model(graph.model)
    model.reshape({port: _fixed(port.get_partial_shape(), sizes) for port in model.inputs})
    return core.compile_model(model, "CPU", choices)


def _compiled_once(
    core: openvino.Core, graph: CheckedGraph, sizes: _Sizes, choices: dict[str, str], cache: DiskCache
) -> openvino.CompiledModel:
    """Take a graph from the cache, or compile it and store it there.

    The full-size UNet takes ten seconds to compile, most of them for rewriting the graph. The cache holds the rewritten
    graph, a few megabytes; the engine maps its weights from the bundle. The key has everything that the compiled graph
    depends on, so no entry goes stale.
    """
    choices = {**choices, "CACHE_MODE": "OPTIMIZE_SIZE"}  # a blob without weights
    made_by = (openvino.get_version(), core.get_property("CPU", "FULL_DEVICE_NAME"), instruction_sets())
    key = repr((graph.digest, sizes, sorted(choices.items()), made_by))
    if (blob := cache.get(key)) is not None:
        weights = {} if graph.weights is None else {"WEIGHTS_PATH": str(graph.weights)}
        try:
            return core.import_model(blob, "CPU", {**choices, **weights})
        except RuntimeError as error:  # the engine may refuse it for a reason that is not in the key
            _log.info("the cached form of %s cannot be used: %s", graph.model, last_line(error))
            cache.drop(key)
    compiled = _compiled(core, graph, sizes, choices)
    cache.put(key, compiled.export_model().getvalue())
    return compiled


def _fixed(shape: openvino.PartialShape, sizes: _Sizes) -> openvino.PartialShape:
    """Return the shape with its free dimensions fixed or bounded: the first is the batch, others the prompt."""
    batch, tokens = sizes
    free = openvino.Dimension(batch) if isinstance(batch, int) else openvino.Dimension(*batch)
    return openvino.PartialShape(
        [
            size if size.is_static else free if axis == 0 else openvino.Dimension(tokens)
            for axis, size in enumerate(shape)
        ]
    )
