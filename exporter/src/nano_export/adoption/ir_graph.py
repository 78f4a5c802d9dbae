"""An OpenVINO graph of another exporter: read with its weights mapped, edited, and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nano_export.adoption.tensors import Tensor
from nano_export.graph.to_openvino import read_ir, save_ir
from nano_runtime.bundle.graph_files import IR
from nano_runtime.bundle.manifest import TensorSpec

__all__ = ["IrGraph"]

_CONSTANT_BYTES = 1024  # smaller ones are shapes and scales
_START_BYTES = 64


class IrGraph:
    """See ``tensors.ForeignGraph``."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            start = file.read(_START_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
        if not start.startswith((b"<?xml", b"<net ")):
            raise ValueError("it is no IR, whatever its name says")  # other readers of OpenVINO look for further files
        self._model = read_ir(path)

    @property
    def inputs(self) -> Sequence[Tensor]:
        """See ``tensors.ForeignGraph``."""
        return [_tensor(port) for port in self._model.inputs]

    @property
    def outputs(self) -> Sequence[Tensor]:
        """See ``tensors.ForeignGraph``."""
        return [_tensor(port) for port in self._model.outputs]

    @property
    def weight_bytes(self) -> Mapping[str, int]:
        """See ``tensors.ForeignGraph``."""
        found: dict[str, int] = {}
        for node in self._model.get_ops():
            if node.get_type_name() == "Constant" and node.get_byte_size() >= _CONSTANT_BYTES:
                kind = _name_of(node.get_element_type())
                found[kind] = found.get(kind, 0) + node.get_byte_size()
        return found

    def channels_into(self, tensor: str) -> int | None:  # noqa: ARG002 - optimum-intel keeps channels in the shape
        """See ``tensors.ForeignGraph``."""
        return None

    def take_moments(self, output: str) -> bool:  # noqa: ARG002
        """See ``tensors.ForeignGraph``; the random operators of OpenVINO are only looked for."""
        return not any(node.get_type_name().startswith("Random") for node in self._model.get_ops())

    def fix(self, inputs: Sequence[TensorSpec], output: TensorSpec) -> None:
        """See ``tensors.ForeignGraph``."""
        shapes = {spec.name: [size if isinstance(size, int) else -1 for size in spec.shape] for spec in inputs}
        try:
            self._model.reshape(shapes)
        except RuntimeError as error:
            raise ValueError(str(error).strip().splitlines()[-1]) from error
        for result in self._model.get_results():
            if output.name not in result.input_value(0).get_names() | result.output(0).get_names():
                self._model.remove_result(result)
        self._model.validate_nodes_and_infer_types()

    def write(self, folder: Path) -> None:
        """See ``tensors.ForeignGraph``."""
        folder.mkdir(parents=True, exist_ok=True)
        save_ir(self._model, folder / IR.files()[0])


def _tensor(port: Any) -> Tensor:  # noqa: ANN401 - openvino has no types
    """Describe an input or output; of several names, one that is a word."""
    names = sorted(port.get_names(), key=lambda name: (not name.isidentifier(), name))
    shape = port.get_partial_shape()
    sizes = tuple(dim.get_length() if dim.is_static else None for dim in shape) if shape.rank.is_static else ()
    return Tensor(names[0] if names else "", _name_of(port.get_element_type()), sizes)


def _name_of(kind: Any) -> str:  # noqa: ANN401
    """Return numpy's name of an element type: f32 --> float32; the engine's for types without one."""
    names = {
        "f16": "float16",
        "bf16": "bfloat16",
        "f32": "float32",
        "i8": "int8",
        "u8": "uint8",
        "i32": "int32",
        "i64": "int64",
    }
    name = str(kind.get_type_name())
    return names.get(name, name)
