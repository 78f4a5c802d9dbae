"""Reads protobuf messages strictly: known fields only, in the one encoding that writers use.

Readers of protobuf differ in what they do with unusual bytes: numbers written longer than needed, tags beyond 32 bits,
fields that they do not know, fields that stand there twice. A file that all readers understand alike has none of them.

Messages of one kind are read side by side: numpy reads the first field of all of them, then the second, and so on. That
takes a tenth of the time of a loop over the bytes. The encoding is that of protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Field", "Fields", "Ints", "Source", "fields_of"]

Ints = NDArray[np.int64]

_FEW: Final = 12  # messages below this number are read one by one
_MORE: Final = 0x80  # this bit of a byte says that more bytes of the number follow
_LOW: Final = 0x7F
_MAX_NUMBER_BYTES: Final = 10
_MAX_FIELD: Final = 31
_WIRES: Final = {"int": 0, "bytes": 2, "text": 2, "float": 5}
_PADDING: Final = bytes(16)  # so that reading ahead at the end stays inside


class Field(NamedTuple):
    """One field of a kind of message.

    Attributes:
        wire: how it is encoded; messages and packed numbers are ``bytes``, strings are ``text``, in UTF-8.
        repeated: whether it may stand there more than once.
    """

    wire: Literal["int", "bytes", "text", "float"]
    repeated: bool = False


class Source(NamedTuple):
    """The bytes that are read.

    Attributes:
        raw: all of them.
        view: the same for numpy, uint8, and some zeros behind.
        beyond: how many bytes up to each one, with it, are beyond ASCII; int64.
    """

    raw: bytes
    view: NDArray[np.uint8]
    beyond: Ints

    @classmethod
    def of(cls, raw: bytes) -> Source:
        """Return the source for some bytes."""
        view = np.frombuffer(raw + _PADDING, np.uint8)
        return cls(raw, view, np.cumsum(view >= _MORE, dtype=np.int64))


class Fields(NamedTuple):
    """Fields of messages of one kind, int64 [n] each; those of one message stand in their order.

    Attributes:
        owner: index of the message.
        number: of the field.
        left: where its content begins.
        right: where it ends.
        value: of an ``int``; 0 for other fields.
    """

    owner: Ints
    number: Ints
    left: Ints
    right: Ints
    value: Ints

    def of(self, number: int) -> Fields:
        """Return the fields of one number."""
        return self.where(self.number == number)

    def where(self, mask: NDArray[np.bool_]) -> Fields:
        """Return the fields where a mask is true."""
        return Fields(*(column[mask] for column in self))

    def ranges(self) -> Iterator[tuple[int, int, int]]:
        """Yield (owner, left, right) of each field."""
        return zip(self.owner.tolist(), self.left.tolist(), self.right.tolist(), strict=True)


def fields_of(source: Source, starts: Ints, ends: Ints, kind: Mapping[int, Field]) -> Fields:
    """Read the fields of messages.

    Args:
        source: the bytes.
        starts: where the messages begin, int64 [n].
        ends: where they end.
        kind: the fields that they may have, by number.

    Raises:
        ValueError: a field is unknown, has another encoding than its kind, stands there twice, or ends outside; or a
            text is not UTF-8, on which readers differ.
    """
    wires = [-1] * (_MAX_FIELD + 1)
    for number, field in kind.items():
        wires[number] = _WIRES[field.wire]
    parts: list[Fields] = []
    owner = np.flatnonzero(starts < ends)
    at, end = starts[owner], ends[owner]
    known = np.array(wires)
    while len(owner) >= _FEW:
        found, at = _next(source.view, owner, at, end, known)
        parts.append(found)
        going = at < end
        owner, at, end = owner[going], at[going], end[going]
    rows: list[tuple[int, int, int, int, int]] = []
    for message in zip(owner.tolist(), at.tolist(), end.tolist(), strict=True):
        _read(source.raw, message, wires, rows)
    if rows:
        parts.append(Fields(*np.array(rows, np.int64).T))
    empty = np.zeros(0, np.int64)
    columns = zip(*parts, strict=True) if parts else ()
    fields = Fields(*(np.concatenate(column) for column in columns)) if parts else Fields(*[empty] * 5)
    _refuse_doubles(fields, kind, len(starts))
    _refuse_other_text(source, fields, kind)
    return fields


def _next(view: NDArray[np.uint8], owner: Ints, at: Ints, end: Ints, wires: Ints) -> tuple[Fields, Ints]:
    """Read the next field of each message; return the fields, and where the next ones begin."""
    tag, left = _numbers(view, at)
    number = tag >> 3
    wire = tag & 7
    if ((number < 0) | (number > _MAX_FIELD)).any() or (wires[number] != wire).any():
        raise ValueError("a field is unknown, or not encoded as ONNX says")
    size, after = _numbers(view, np.where(wire == _WIRES["float"], at, left))
    is_bytes = wire == _WIRES["bytes"]
    if (is_bytes & ((size < 0) | (size > len(view)))).any():
        raise ValueError("a field ends beyond its message")
    left = np.where(is_bytes, after, left)
    right = np.where(is_bytes, after + size, np.where(wire == _WIRES["int"], after, left + 4))
    if (right > end).any():
        raise ValueError("a field ends beyond its message")
    return Fields(owner, number, left, right, np.where(wire == _WIRES["int"], size, 0)), right


def _numbers(view: NDArray[np.uint8], at: Ints) -> tuple[Ints, Ints]:
    """Read a base-128 number at each place; return them as int64, and where they end."""
    byte = view[at]
    value = (byte & _LOW).astype(np.uint64)
    after = at + 1
    going = np.flatnonzero(byte >= _MORE)
    for index in range(1, _MAX_NUMBER_BYTES):
        if not len(going):
            return value.view(np.int64), after
        byte = view[np.minimum(at[going] + index, len(view) - 1)]
        last = byte < _MORE
        if (last & ((byte == 0) | ((index == _MAX_NUMBER_BYTES - 1) & (byte > 1)))).any():
            break
        value[going] |= (byte & _LOW).astype(np.uint64) << np.uint64(7 * index)
        after[going] += 1
        going = going[~last]
    if not len(going):
        return value.view(np.int64), after
    raise ValueError("a number is written longer than it has to be, or without an end")


def _read(
    raw: bytes, message: tuple[int, int, int], wires: list[int], rows: list[tuple[int, int, int, int, int]]
) -> None:
    """Append the fields of one message, of which number, begin and end are given, to ``rows``."""
    owner, at, end = message
    while at < end:
        tag = raw[at]
        at += 1
        if tag >= _MORE:
            tag, at = _number(raw, at - 1, end)
        number, wire = tag >> 3, tag & 7
        if number > _MAX_FIELD or wires[number] != wire:
            raise ValueError(f"a field at byte {at} is unknown, or not encoded as ONNX says")
        value = 0
        if wire == _WIRES["float"]:
            left, right = at, at + 4
        else:
            value = raw[at] if at < end else 0
            left, after = at, at + 1
            if value >= _MORE or at >= end:
                value, after = _number(raw, at, end)
            if wire == _WIRES["bytes"]:
                left, right, value = after, after + value, 0
            else:
                right = after
        if right > end:
            raise ValueError(f"a field ends beyond its message at byte {at}")
        rows.append((owner, number, left, right, value - (1 << 64) if value >> 63 else value))
        at = right


def _number(raw: bytes, at: int, end: int) -> tuple[int, int]:
    """Read a base-128 number; return it, 0 to 2**64 - 1, and where it ends."""
    value = 0
    for index in range(min(_MAX_NUMBER_BYTES, end - at)):
        byte = raw[at + index]
        value |= (byte & _LOW) << 7 * index
        if byte < _MORE:
            if (byte == 0 and index) or value >> 64:
                break
            return value, at + index + 1
    raise ValueError(f"a number at byte {at} is written longer than it has to be, or without an end")


def _refuse_doubles(fields: Fields, kind: Mapping[int, Field], messages: int) -> None:
    """Refuse a second field of a number that may stand in a message once; readers differ in which of two they take."""
    once = np.array([number in kind and not kind[number].repeated for number in range(_MAX_FIELD + 1)])
    single = once[fields.number]
    counts = np.bincount(fields.owner[single] * (_MAX_FIELD + 1) + fields.number[single], minlength=messages)
    if counts.max(initial=0) > 1:
        raise ValueError("a field stands there twice")


def _refuse_other_text(source: Source, fields: Fields, kind: Mapping[int, Field]) -> None:
    """Refuse texts that are not UTF-8: engines print them, or fail on them in their own ways."""
    text = np.array([number in kind and kind[number].wire == "text" for number in range(_MAX_FIELD + 1)])
    found = fields.where(text[fields.number] & (fields.right > fields.left))
    for _, left, right in found.where(source.beyond[found.right - 1] > source.beyond[found.left - 1]).ranges():
        if not _is_utf8(source.raw[left:right]):
            raise ValueError(f"a text at byte {left} is not UTF-8")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
