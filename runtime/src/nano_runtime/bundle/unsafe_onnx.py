"""Checks an ONNX file before an engine parses it: no weights from outside of the bundle, no local functions.

A tensor in an ONNX file can name a file that has its values, and a byte at which they begin. It may name only the
weights that the manifest lists: no other file, and no address in memory, for which onnxruntime has a notation.

The check reads the protobuf encoding (protobuf.dev/programming-guides/encoding) of all messages that can hold such a
tensor, with the field numbers of onnx.proto (github.com/onnx/onnx, IR version 13). It skips messages without the word
``location``: protobuf has no way to write a key without its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["fault_of_onnx"]

_MAX_DEPTH: Final = 32
_MAX_VARINT_BYTES: Final = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_KEY: Final = b"location"

# Message -> field number -> (message inside, whether it may repeat). Protobuf merges the second of a field that may not
# repeat into the first; this check would see them apart, so it refuses the second.
_MESSAGES: Final[dict[str, dict[int, tuple[str, bool]]]] = {
    "model": {7: ("graph", False)},
    "graph": {1: ("node", True), 5: ("tensor", True), 15: ("sparse", True)},
    "node": {5: ("attribute", True)},
    "attribute": {
        5: ("tensor", False),
        6: ("graph", False),
        10: ("tensor", True),
        11: ("graph", True),
        22: ("sparse", False),
        23: ("sparse", True),
    },
    "sparse": {1: ("tensor", False), 2: ("tensor", False)},
    "tensor": {13: ("entry", True)},
}
_TRAINING_INFO, _FUNCTIONS = 20, 25  # fields of a model; the exporter writes neither, and deep ones can end an engine


def fault_of_onnx(raw: bytes, weights: str | None, weights_bytes: int) -> str | None:
    """Return the reason to refuse a file, as the end of a sentence, or None.

    Args:
        raw: the file.
        weights: name, without folder, of the only file that tensors may name; None if there is none.
        weights_bytes: size of that file.
    """
    try:
        for number, _, _, _ in _fields(raw, 0, len(raw)):
            if number in (_TRAINING_INFO, _FUNCTIONS):
                return "it has local functions or training information"
        for entries in _tensors(raw):
            if (fault := _fault_of_entries(entries, weights, weights_bytes)) is not None:
                return fault
    except ValueError as error:
        return f"it is not well-formed ONNX ({error})"
    return None


def _fault_of_entries(entries: list[tuple[bytes, bytes]], weights: str | None, weights_bytes: int) -> str | None:
    """Return the reason to refuse the external data of one tensor, or None."""
    keys = [key for key, _ in entries]
    if len(set(keys)) != len(keys) or not {*keys} <= {_KEY, b"offset", b"length", b"checksum"}:
        return "a tensor has external data with unknown or doubled keys"
    said = dict(entries)
    if weights is None or said[_KEY] != weights.encode():
        shown = said[_KEY][:80].decode(errors="backslashreplace")
        return f"a tensor is in {shown!r}, which is not the listed file {weights!r}"
    numbers = []
    for key in (b"offset", b"length"):
        value = said.get(key, b"0")
        if not value.isdigit() or len(value) > len(str(1 << 63)):
            return f"a tensor has the {key.decode()} {value[:40]!r}"
        numbers.append(int(value))
    if sum(numbers) > weights_bytes:
        return f"a tensor ends at byte {sum(numbers)} of {weights!r}, which has {weights_bytes}"
    return None


def _tensors(raw: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield the external-data entries (key, value) of every tensor that has a location."""
    waiting = [("model", 0, len(raw), 0)]
    while waiting:
        kind, start, end, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} levels")
        entries = []
        for message, left, right in _messages(raw, kind, start, end):
            if message == "entry":
                entries.append(_entry(raw, left, right))
            elif raw.find(_KEY, left, right) >= 0:
                waiting.append((message, left, right, depth + 1))
        if any(key == _KEY for key, _ in entries):
            yield entries


def _messages(raw: bytes, kind: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, start, end) of the messages directly inside one that can hold a tensor."""
    inside, seen = _MESSAGES[kind], set()
    for number, wire, left, right in _fields(raw, start, end):
        if number not in inside:
            continue
        message, repeated = inside[number]
        if wire != _BYTES:
            raise ValueError(f"field {number} of a {kind} is not a message")
        if number in seen and not repeated:
            raise ValueError(f"field {number} of a {kind} stands there twice")
        seen.add(number)
        yield message, left, right


def _entry(raw: bytes, start: int, end: int) -> tuple[bytes, bytes]:
    """Read a StringStringEntryProto: key and value, each once."""
    found: dict[int, bytes] = {}
    for number, wire, left, right in _fields(raw, start, end):
        if wire != _BYTES or number in found:
            raise ValueError("an entry of external data is not a key and a value")
        found[number] = raw[left:right]
    if set(found) - {1, 2}:
        raise ValueError("an entry of external data has more than a key and a value")
    return found.get(1, b""), found.get(2, b"")


def _fields(raw: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, wire type, start, end) of the content of each field in a message.

    Raises:
        ValueError: a field ends outside of the message, or has the wire type of a group, or one that does not exist.
    """
    at = start
    while at < end:
        tag = raw[at]
        at += 1
        if tag >= 0x80:  # noqa: PLR2004 - the bit for "more bytes follow"
            tag, at = _varint(raw, at - 1, end)
        wire = tag & 7
        if wire == _BYTES:
            size, at = _varint(raw, at, end)
            right = at + size
        elif wire == _VARINT:
            _, right = _varint(raw, at, end)
        elif wire in (_FIXED64, _FIXED32):
            right = at + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if right > end:
            raise ValueError(f"a field ends beyond its message at byte {at}")
        yield tag >> 3, wire, at, right
        at = right


def _varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    """Read a base-128 number; return it and where it ends."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= end:
            break
        byte = raw[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 - the last byte of the number
            return value, at + index + 1
    raise ValueError(f"a number without an end at byte {at}")
