"""OpenVINO: the only file that imports openvino.

Its Python package reports every import to its maker, over the network, from a process of its own, and leaves a folder
``intel`` in the user's home. No environment variable forbids that. It reports nothing where the package
``openvino_telemetry`` cannot be imported, so that import is made to fail.
"""

from __future__ import annotations

import io
import logging
import mmap
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes the import fail

import numpy as np  # the line above must come before openvino
import openvino
import openvino.frontend
from numpy.typing import NDArray

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.graph_files import IR
from nano_runtime.engines.base import Batch, CheckedGraph, EngineOptions, LayerTime, Precision
from nano_runtime.engines.onnx_in_memory import with_weights_at
from nano_runtime.engines.pages import mapped_once
from nano_runtime.engines.sound_shapes import require_sound_shapes
from nano_runtime.errors import EngineError, PrecisionError, TamperedFileError
from nano_runtime.errors.escaping import last_line
from nano_runtime.system.disk_cache import DiskCache
from nano_runtime.system.machine import instruction_sets
from nano_runtime.system.out_of_memory import is_out_of_memory

__all__ = ["OvSession", "open_graph"]

_NAME = "openvino"
_CAPABILITY = {"f32": "FP32", "bf16": "BF16"}

_Sizes = tuple[Batch, int]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """A graph, and its weights as this process maps them; the mapping lives as long as what was compiled of it."""

    graph: CheckedGraph
    weights: mmap.mmap | None

    @property
    def is_ir(self) -> bool:
        return self.graph.model.suffix == IR.suffix


class OvSession:
    """A graph compiled by OpenVINO's CPU plugin."""

    def __init__(self, compiled: openvino.CompiledModel, source: _Source) -> None:
        self._compiled: openvino.CompiledModel | None = compiled
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self._source = source
        self._model = source.graph.model
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
                with _mapped_once(self._source):
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
        source = _Source(graph, None if graph.weights is None else graph.weights.map())
        with _mapped_once(source):
            if options.cache is None:
                compiled = _compiled(core, _read(core, source), sizes, choices)
            else:
                compiled = _compiled_once(core, source, sizes, choices, DiskCache(options.cache))
        return OvSession(compiled, source)
    except (PrecisionError, TamperedFileError):
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


def _mapped_once(source: _Source) -> AbstractContextManager[None]:
    """Give back the pages of a graph's weights; see ``pages.mapped_once``."""
    weights = source.graph.weights
    return mapped_once(None if weights is None else weights.path, source.weights)


@cache
def _onnx_reader() -> openvino.frontend.FrontEnd:
    """Return OpenVINO's reader of ONNX; without a name, it tries all its readers on a file."""
    return openvino.frontend.FrontEndManager().load_by_framework("onnx")


def _read(core: openvino.Core, source: _Source) -> openvino.Model:
    """Read the bytes of a graph that were checked; its weights stay where they are mapped."""
    content = source.graph.content
    weights = np.empty(0, np.uint8) if source.weights is None else np.frombuffer(source.weights, np.uint8)
    if source.is_ir:
        return core.read_model(content, openvino.Tensor(weights, shared_memory=True))
    if source.weights is not None:
        content = with_weights_at(content, weights.ctypes.data)
    return _onnx_reader().convert(_onnx_reader().load(io.BytesIO(content)))


def _read_for_cache(core: openvino.Core, source: _Source) -> openvino.Model:
    """Read a graph that is to be compiled for the cache.

    A compiled graph in the cache says where in the file its weights are. OpenVINO knows that of an IR that it got as
    bytes, but of an ONNX graph only if it read the file itself.
    """
    weights = source.graph.weights
    if source.is_ir or weights is None:
        return _read(core, source)
    weights.require_in_place()
    model = _onnx_reader().convert(_onnx_reader().load(str(source.graph.model)))
    weights.require_in_place()
    return model


def _compiled(
    core: openvino.Core, model: openvino.Model, sizes: _Sizes, choices: dict[str, str]
) -> openvino.CompiledModel:
    """Compile a graph; ``sizes`` are those of batch and prompt."""
    batch, tokens = sizes
    free = {port: port.get_partial_shape() for port in model.inputs}
    for rows in (batch,) if isinstance(batch, int) else batch:
        model.reshape({port: _fixed(shape, (rows, tokens)) for port, shape in free.items()})
        require_sound_shapes(model)
    if not isinstance(batch, int):
        model.reshape({port: _fixed(shape, sizes) for port, shape in free.items()})
    return core.compile_model(model, "CPU", choices)


def _compiled_once(
    core: openvino.Core, source: _Source, sizes: _Sizes, choices: dict[str, str], cache: DiskCache
) -> openvino.CompiledModel:
    """Take a graph from the cache, or compile it and store it there.

    The full-size UNet takes ten seconds to compile, most of them for rewriting the graph. The cache holds the rewritten
    graph, a few megabytes; the engine maps its weights from the bundle. The key has everything that the compiled graph
    depends on, so no entry goes stale.
    """
    choices = {**choices, "CACHE_MODE": "OPTIMIZE_SIZE"}  # a blob without weights
    graph = source.graph
    made_by = (openvino.get_version(), core.get_property("CPU", "FULL_DEVICE_NAME"), instruction_sets())
    key = repr((graph.digest, sizes, sorted(choices.items()), made_by))
    if (blob := cache.get(key)) is not None:
        weights = {} if graph.weights is None else {"WEIGHTS_PATH": str(graph.weights.open_path)}
        try:
            return core.import_model(blob, "CPU", {**choices, **weights})
        except RuntimeError as error:  # the engine may refuse it for a reason that is not in the key
            _log.info("the cached form of %s cannot be used: %s", graph.model, last_line(error))
            cache.drop(key)
    compiled = _compiled(core, _read_for_cache(core, source), sizes, choices)
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
