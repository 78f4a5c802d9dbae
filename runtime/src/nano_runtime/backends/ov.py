"""OpenVINO: the only file that imports openvino."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from nano_runtime.backends.base import Arrays, EngineOptions
from nano_runtime.errors import EngineError, PrecisionError

__all__ = ["OvSession", "open_graph"]

_NAME = "openvino"
_CAPABILITY = {"f32": "FP32", "bf16": "BF16"}


class OvSession:
    """A graph compiled by OpenVINO's CPU plugin."""

    def __init__(self, compiled: openvino.CompiledModel, model: Path) -> None:
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self._model = model
        self._outputs = [sorted(port.get_names()) for port in compiled.outputs]

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.float32]]:
        """Compute all outputs; see ``Session.run``."""
        if self._request is None:
            raise RuntimeError(f"{self._model} was closed")
        contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            self._request.infer(contiguous, share_inputs=True)
        except Exception as error:
            raise EngineError(_NAME, "run", self._model, _cause(error)) from error
        # The request writes its next results into the same memory, hence the copies.
        return {
            name: np.array(self._request.get_output_tensor(index).data, copy=True)
            for index, names in enumerate(self._outputs)
            for name in names
        }

    def close(self) -> None:
        """Give the memory back."""
        self._request = None


def open_graph(model: Path, *, batch: int, options: EngineOptions) -> OvSession:
    """Load ``openvino_model.xml`` with every free dimension fixed; see ``backends.open_session``."""
    core = openvino.Core()
    if _CAPABILITY[options.precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise PrecisionError(_NAME, options.precision, "this processor has no such instructions")
    # The precision hint's default is bf16 on processors that have it: written out, a bundle computes alike everywhere.
    choices = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(options.threads),
        "INFERENCE_PRECISION_HINT": options.precision,
    }
    try:
        graph = core.read_model(str(model))
        graph.reshape({port: _fixed(port.get_partial_shape(), batch) for port in graph.inputs})
        compiled = core.compile_model(graph, "CPU", choices)
    except MemoryError:
        raise
    except Exception as error:
        raise EngineError(_NAME, "load", model, _cause(error)) from error
    return OvSession(compiled, model)


def _fixed(shape: openvino.PartialShape, batch: int) -> openvino.PartialShape:
    """Return the shape with ``batch`` in every free dimension."""
    return openvino.PartialShape([batch if size.is_dynamic else size.get_length() for size in shape])


def _cause(error: Exception) -> str:
    """Return what the engine said last: it prints where it is in its own source first, the cause last."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
