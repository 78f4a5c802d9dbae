"""An ONNX graph of another exporter: read without its weights, edited, and written with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass

from nano_export.adoption.tensors import Tensor
from nano_runtime.bundle.graph_files import ONNX
from nano_runtime.bundle.manifest import TensorSpec
from nano_runtime.bundle.wiring import LATENT_PARAMETERS

__all__ = ["OnnxGraph"]

_CONSTANT_BYTES = 1024  # smaller ones are shapes and scales
_RANDOM = ("RandomNormalLike", "RandomNormal")


class OnnxGraph:
    """See ``tensors.ForeignGraph``; weights stay in their files until ``write`` copies them."""

    def __init__(self, path: Path) -> None:
        self._model = ir.load(path)
        if self._model.functions:  # the runtime refuses local functions
            self._model = InlinePass()(self._model).model

    @property
    def inputs(self) -> Sequence[Tensor]:
        """The inputs without weights, which old exporters listed as inputs, too."""
        weights = self._model.graph.initializers
        return [_tensor(value) for value in self._model.graph.inputs if value.name not in weights]

    @property
    def outputs(self) -> Sequence[Tensor]:
        """See ``tensors.ForeignGraph``."""
        return [_tensor(value) for value in self._model.graph.outputs]

    @property
    def weight_bytes(self) -> Mapping[str, int]:
        """See ``tensors.ForeignGraph``; constants of nodes are counted, too."""
        found: dict[str, int] = {}
        tensors = [value.const_value for value in self._model.graph.initializers.values()]
        tensors += [node.attributes["value"].as_tensor() for node in self._model.graph if _is_constant(node)]
        for tensor in tensors:
            if tensor is not None and tensor.nbytes >= _CONSTANT_BYTES:
                kind = str(tensor.dtype.numpy())
                found[kind] = found.get(kind, 0) + tensor.nbytes
        return found

    def channels_into(self, tensor: str) -> int | None:
        """See ``tensors.ForeignGraph``."""
        value = self._input(tensor)
        for _ in range(3):  # a cast or two before it
            for use in value.uses():
                weight = use.node.inputs[1] if use.node.op_type == "Conv" else None
                if weight is not None and weight.shape is not None and isinstance(weight.shape[1], int):
                    return weight.shape[1]
            following = [use.node for use in value.uses() if use.node.op_type == "Cast"]
            if not following:
                return None
            value = following[0].outputs[0]
        return None

    def take_moments(self, output: str) -> bool:
        """See ``tensors.ForeignGraph``.

        ``DiagonalGaussianDistribution.sample`` adds the mean, which a Split or Slice cut out of the moments, to noise
        times the deviation.
        """
        graph = self._model.graph
        if not any(node.op_type in _RANDOM for node in graph):
            return True
        index = next(index for index, value in enumerate(graph.outputs) if value.name == output)
        add = graph.outputs[index].producer()
        if add is None or add.op_type != "Add":
            return False
        for term in add.inputs:
            cut = None if term is None else term.producer()
            if cut is not None and cut.op_type in ("Split", "Slice") and cut.inputs[0] is not None:
                moments = cut.inputs[0]
                moments.name, moments.type = LATENT_PARAMETERS, graph.outputs[index].type
                graph.outputs[index] = moments
                RemoveUnusedNodesPass()(self._model)
                return not any(node.op_type in _RANDOM for node in graph)
        return False

    def fix(self, inputs: Sequence[TensorSpec], output: TensorSpec) -> None:
        """See ``tensors.ForeignGraph``; inner shapes are left to the engine."""
        graph = self._model.graph
        for spec in inputs:
            self._input(spec.name).shape = ir.Shape(spec.shape)
        for node in graph:
            for value in node.outputs:
                value.shape = None
        kept = next(value for value in graph.outputs if value.name == output.name)
        kept.shape = ir.Shape(output.shape)
        graph.outputs[:] = [kept]
        RemoveUnusedNodesPass()(self._model)

    def write(self, folder: Path) -> None:
        """See ``tensors.ForeignGraph``."""
        model, weights = ONNX.files()
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(ValueError):  # a cycle: the reader of the bundle refuses it
            self._model.graph.sort()  # converters to half precision put their casts behind what reads them
        ir.save(self._model, folder / model, external_data=weights)

    def _input(self, name: str) -> ir.Value:
        return next(value for value in self._model.graph.inputs if value.name == name)


def _is_constant(node: ir.Node) -> bool:
    return node.op_type == "Constant" and "value" in node.attributes


def _tensor(value: ir.Value) -> Tensor:
    """Describe an input or output."""
    dtype = "unknown" if value.dtype is None else str(value.dtype.numpy())
    shape = () if value.shape is None else tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    return Tensor(str(value.name), dtype, shape)
