"""Rewrites an ONNX graph so that its weights lie at an address in this process, not in a file.

OpenVINO looks for the weights of a graph that it gets as bytes in the current folder of the process. It also knows the
notation that onnxruntime has for weights in memory, which is used here: nothing is copied, and no file is looked for.
The notation is refused in graphs of bundles (``bundle/unsafe_onnx.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from nano_runtime.bundle.protobuf import Field, Fields, Ints, Source, fields_of
from nano_runtime.bundle.unsafe_onnx import ENTRY, EXTERNAL_DATA, GRAPH, GRAPH_OF_MODEL, INITIALIZER, MODEL, TENSOR

__all__ = ["with_weights_at"]

_IN_MEMORY: Final = b"*/_ORT_MEM_ADDR_/*"
_BYTES_WIRE: Final = 2
_LOW: Final = 0x7F

_Place: TypeAlias = tuple[int, int]  # where the content of a field begins and ends


def with_weights_at(raw: bytes, address: int) -> bytes:
    """Return a model whose weights lie in memory.

    Args:
        raw: a model that ``bundle/unsafe_onnx.py`` accepts.
        address: where the content of its file of weights begins.
    """
    source = Source.of(raw)
    (graph,) = _places(source, [(0, len(raw))], MODEL, GRAPH_OF_MODEL)
    tensors = _places(source, [graph], GRAPH, INITIALIZER)
    entries = fields_of(source, *_columns(tensors), TENSOR).of(EXTERNAL_DATA)
    cut: dict[int, dict[_Place, bytes | None]] = {}
    for owner, left, right in entries.ranges():
        cut.setdefault(owner, {})[left, right] = None
    moved: dict[_Place, bytes | None] = {
        tensors[owner]: _replaced(raw, tensors[owner], cut[owner]) + _entries(address + offset, length)
        for owner, (offset, length) in _extents(source, entries).items()
    }
    return _replaced(raw, (0, len(raw)), {graph: _replaced(raw, graph, moved)})


def _places(source: Source, messages: Sequence[_Place], kind: Mapping[int, Field], number: int) -> list[_Place]:
    """Return where all fields of one number are, in their order in the file."""
    found = fields_of(source, *_columns(messages), kind).of(number)
    return sorted((left, right) for _, left, right in found.ranges())


def _columns(places: Sequence[_Place]) -> tuple[Ints, Ints]:
    """Return all begins, and all ends."""
    begins, ends = np.array(places, np.int64).reshape(-1, 2).T
    return begins, ends


def _extents(source: Source, entries: Fields) -> dict[int, tuple[int, int]]:
    """Return where in the file each tensor begins that lies there, and its length, by the number of the tensor."""
    told: dict[tuple[int, int], bytes] = {}
    fields = fields_of(source, entries.left, entries.right, ENTRY)
    for number, (owner, left, right) in zip(fields.number.tolist(), fields.ranges(), strict=True):
        told[owner, number] = source.raw[left:right]
    extents: dict[int, dict[bytes, bytes]] = {owner: {} for owner in entries.owner.tolist()}
    for index, owner in enumerate(entries.owner.tolist()):
        extents[owner][told.get((index, 1), b"")] = told.get((index, 2), b"")
    return {owner: (int(said.get(b"offset", b"0")), int(said[b"length"])) for owner, said in extents.items()}


def _entries(address: int, length: int) -> bytes:
    """Return the fields of a tensor that say where in memory it lies."""
    pairs = ((b"location", _IN_MEMORY), (b"offset", b"%d" % address), (b"length", b"%d" % length))
    return b"".join(_field(EXTERNAL_DATA, _field(1, key) + _field(2, value)) for key, value in pairs)


def _replaced(raw: bytes, message: _Place, contents: Mapping[_Place, bytes | None]) -> bytes:
    """Return a message with other contents in some of its fields, whose numbers are below 16; None leaves one out."""
    pieces, (at, end) = [], message
    for (left, right), content in sorted(contents.items()):
        begin = left - len(_number(right - left))
        pieces.append(raw[at : begin - (content is None)])
        if content is not None:
            pieces += [_number(len(content)), content]
        at = right
    return b"".join([*pieces, raw[at:end]])


def _field(number: int, content: bytes) -> bytes:
    """Encode a field of bytes, with a number below 16."""
    return bytes([number << 3 | _BYTES_WIRE]) + _number(len(content)) + content


def _number(value: int) -> bytes:
    """Encode a number in base 128."""
    groups = b""
    while value > _LOW:
        groups, value = groups + bytes([value & _LOW | (_LOW + 1)]), value >> 7
    return groups + bytes([value])
