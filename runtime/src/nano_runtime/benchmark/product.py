"""One matrix product as an ONNX file, so that engines can be timed on it: written byte by byte, for want of ``onnx``.

The engines have the only integer kernels of an installation, and read nothing but graphs. A graph this small needs a
dozen of ONNX's fields; their numbers are those of ``onnx.proto`` (ONNX IR version 8), their encoding that of protocol
buffers: a key (field number, wire type), then a varint, or a length and as many bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["product_graph"]

_IR_VERSION = 8
_OPSET = 17
_VARINT, _BYTES = 0, 2  # wire types
_TYPES = {"float32": 1, "uint8": 2, "int8": 3}  # TensorProto.DataType
_WEIGHT_LIMIT = 63  # as the exporter's: larger ones saturate on processors without VNNI


def product_graph(rows: int, depth: int, columns: int, arithmetic: Literal["int8", "f32"]) -> bytes:
    """Return a model that multiplies its input ``x``, float32 [rows, depth], by a constant [depth, columns] into ``y``.

    Args:
        rows: of the input.
        depth: products summed for one output.
        columns: of the constant and the output.
        arithmetic: ``"int8"`` quantizes as the exporter does: uint8 activations with one scale, int8 weights in
            [-63, 63] with a scale for each column.
    """
    rng = np.random.default_rng(0)
    if arithmetic == "f32":
        weights = [_tensor("w", rng.standard_normal((depth, columns), np.float32))]
        nodes = [_node("MatMul", ["x", "w"], "y")]
    else:
        weights = [
            _tensor("w", rng.integers(-_WEIGHT_LIMIT, _WEIGHT_LIMIT + 1, (depth, columns), np.int8)),
            _tensor("w.scale", np.full(columns, 0.01, np.float32)),
            _tensor("w.zero", np.zeros(columns, np.int8)),
            _tensor("x.scale", np.array(0.02, np.float32)),
            _tensor("x.zero", np.array(128, np.uint8)),
        ]
        nodes = [
            _node("QuantizeLinear", ["x", "x.scale", "x.zero"], "x.u8"),
            _node("DequantizeLinear", ["x.u8", "x.scale", "x.zero"], "x.dq"),
            _node("DequantizeLinear", ["w", "w.scale", "w.zero"], "w.dq"),  # along axis 1, the default
            _node("MatMul", ["x.dq", "w.dq"], "y"),
        ]
    graph = _join(
        *(_field(1, node) for node in nodes),
        _field(2, "product"),
        *(_field(5, weight) for weight in weights),
        _field(11, _value("x", (rows, depth))),
        _field(12, _value("y", (rows, columns))),
    )
    return _join(_field(1, _IR_VERSION), _field(7, graph), _field(8, _field(2, _OPSET)))


def _node(operator: str, inputs: Iterable[str], output: str) -> bytes:
    """Return a NodeProto."""
    return _join(*(_field(1, name) for name in inputs), _field(2, output), _field(3, output), _field(4, operator))


def _tensor(name: str, values: NDArray[np.generic]) -> bytes:
    """Return a TensorProto with raw little-endian data."""
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    kind = _field(2, _TYPES[values.dtype.name])
    return _join(*(_field(1, size) for size in values.shape), kind, _field(8, name), _field(9, raw))


def _value(name: str, shape: Iterable[int]) -> bytes:
    """Return a ValueInfoProto of a float32 tensor."""
    dimensions = _join(*(_field(1, _field(1, size)) for size in shape))
    return _join(_field(1, name), _field(2, _field(1, _join(_field(1, _TYPES["float32"]), _field(2, dimensions)))))


def _field(number: int, value: int | str | bytes) -> bytes:
    """Return one field of a protocol buffer message."""
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first, all but the last with the eighth bit set."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _join(*parts: bytes) -> bytes:
    return b"".join(parts)
