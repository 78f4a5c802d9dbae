"""Changes graphs at random: fields, numbers and wire types of ONNX, lines and values of an IR.

The fields of ONNX are told by the onnx package's own description of its messages, not by ours.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import onnx

__all__ = ["changed_ir", "changed_onnx"]

DESCENDS = 0.9  # how often a change is made inside a message rather than to it
NUMBERS = (0, 1, 2, 3, 4, 6, 7, 8, 10, 77, 255, 4096, 1 << 16, 1 << 30, 1 << 31, 1 << 32, 1 << 62, 1 << 63)
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan"), 0.5, 8.0)
WIRES = (0, 1, 2, 3, 4, 5, 6, 7)
HIGHEST = 1 << 64
Message = Any  # a descriptor of protobuf
Part = tuple[int, int, bytes]  # number, wire type, content


def varint(number: int, longer: int = 0) -> bytes:
    """Encode a number, with some bytes more than it needs."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    for _ in range(longer):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def read_varint(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (raw[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if raw[at - 1] < 0x80:
            return number, at


def split(raw: bytes) -> list[Part]:
    """Return the fields of a message that nothing is wrong with."""
    parts, at = [], 0
    while at < len(raw):
        tag, at = read_varint(raw, at)
        begin = at
        if tag & 7 == 2:
            size, begin = read_varint(raw, at)
            at = begin + size
        elif tag & 7 == 5:
            at += 4
        else:
            _, at = read_varint(raw, at)
        parts.append((tag >> 3, tag & 7, raw[begin:at]))
    return parts


def encoded(part: Part, longer: tuple[int, int] = (0, 0)) -> bytes:
    number, wire, content = part
    size = varint(len(content), longer[1]) if wire == 2 else b""
    return varint(number << 3 | wire, longer[0]) + size + content


def changed_onnx(raw: bytes, chance: random.Random) -> bytes:
    """Return an ONNX model with one to three changes."""
    if chance.random() < 0.1:
        return with_other_byte(raw, chance)
    words = words_of(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        with suppress(IndexError):  # an earlier change may have left something that cannot be split
            raw = changed_message(raw, onnx.ModelProto.DESCRIPTOR, words, chance)
    return raw


@lru_cache
def words_of(raw: bytes) -> list[bytes]:
    """Return names of values and operators to be put in each other's place, and some of our own."""
    graph = onnx.load_from_string(raw).graph
    names = {name for node in graph.node for name in (*node.output, *node.input, node.op_type)}
    own = ("If", "Loop", "Scan", "Gather", "Reshape", "MaxPool", "Resize", "TopK", "Tile", "Expand", "Range", "Pad")
    return [word.encode() for word in (*sorted(names), *own, "", "/etc/passwd", "../x", "axis", "value", "pads")]


def changed_message(raw: bytes, kind: Message, words: list[bytes], chance: random.Random) -> bytes:
    """Return a message with a change of one field, or of one inside of a message in it."""
    parts = split(raw)
    if not parts:
        return raw + encoded((chance.randrange(1, 20), 0, varint(chance.choice(NUMBERS))))
    weights = [20 if message_of(part, kind) is not None else 1 for part in parts]
    (index,) = chance.choices(range(len(parts)), weights)
    inner = message_of(parts[index], kind)
    written = [*map(encoded, parts)]
    if inner is not None and chance.random() < DESCENDS:
        number, wire, content = parts[index]
        written[index] = encoded((number, wire, changed_message(content, inner, words, chance)))
    elif chance.random() < 0.35:
        chance.choice(STRUCTURAL)(written, index, parts, chance)
    else:
        written[index] = encoded(other_content(parts[index], words, chance))
    return b"".join(written)


def message_of(part: Part, kind: Message) -> Message | None:
    field = kind.fields_by_number.get(part[0])
    return None if field is None or part[1] != 2 else field.message_type


def other_content(part: Part, words: list[bytes], chance: random.Random) -> Part:
    number, wire, content = part
    if wire == 0:
        value, _ = read_varint(content, 0)
        near = (value + 1, value - 1, value * 2, value // 2, value ^ 1 << chance.randrange(64), -value)
        return number, wire, varint(chance.choice((*near, *NUMBERS)) % HIGHEST)
    if wire == 5:
        return number, wire, struct.pack("<f", chance.choice(FLOATS))
    kinds = [lambda: chance.choice(words), lambda: content[: len(content) // 2], lambda: content + b"\0"]
    if content:
        kinds += [lambda: with_other_byte(content, chance), lambda: bytes(len(content)), lambda: content * 2]
    if content.isdigit():
        kinds += [lambda: str(chance.choice(NUMBERS)).encode(), lambda: str(int(content) + 1).encode()]
    return number, wire, chance.choice(kinds)()


def with_other_byte(raw: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(raw))
    return (
        raw[:at] + bytes([chance.choice((raw[at] ^ 1 << chance.randrange(8), chance.randrange(256)))]) + raw[at + 1 :]
    )


def dropped(written: list[bytes], index: int, _parts: list[Part], _chance: random.Random) -> None:
    del written[index]


def doubled(written: list[bytes], index: int, _parts: list[Part], chance: random.Random) -> None:
    written.insert(chance.randrange(len(written) + 1), written[index])


def swapped(written: list[bytes], index: int, _parts: list[Part], chance: random.Random) -> None:
    other = chance.randrange(len(written))
    written[index], written[other] = written[other], written[index]


def other_number(written: list[bytes], index: int, parts: list[Part], chance: random.Random) -> None:
    number = chance.choice((chance.randrange(1, 32), 1000, parts[index][0] + (1 << 29), parts[index][0] + (1 << 32)))
    written[index] = encoded((number, *parts[index][1:]))


def other_wire(written: list[bytes], index: int, parts: list[Part], chance: random.Random) -> None:
    number, _, content = parts[index]
    written[index] = varint(number << 3 | chance.choice(WIRES)) + content


def longer(written: list[bytes], index: int, parts: list[Part], chance: random.Random) -> None:
    written[index] = encoded(parts[index], chance.choice(((1, 0), (0, 1), (8, 0), (0, 8))))


def strange(written: list[bytes], index: int, _parts: list[Part], chance: random.Random) -> None:
    content = chance.choice((b"", b"x", b"\x08\x01", encoded((1, 2, b"x"))))
    written.insert(index, encoded((chance.randrange(1, 40), 2, content)))


STRUCTURAL: tuple[Callable[[list[bytes], int, list[Part], random.Random], None], ...] = (
    dropped, doubled, swapped, other_number, other_wire, longer, strange,
)  # fmt: skip

ATTRIBUTE = re.compile(rb' ([\w-]+)="([^"]*)"')
DIGITS = re.compile(rb"-?[0-9]+")
SAME_WIDTH = ((b"f32", b"i32", b"u32"), (b"i8", b"u8", b"boolean"), (b"i64", b"f64", b"u64"), (b"f16", b"bf16", b"i16"))
TEXTS = (
    b"", b"-1", b"0", b"1", b"2", b"9999999", b"4294967296", b"?", b"..", b"/etc/passwd", b"true", b"false", b"1,1",
    b"2, 3", b"NUMPY", b"none", b"valid", b"same_upper", b"explicit", b"linear_onnx", b"nearest", b"cubic", b"f32",
    b"i64", b"u4", b"&amp;", b"<", b"1e39", b"-0.5",
)  # fmt: skip
WRONG = (b"<!-- x -->", b"\t\t\t\t\t<dim>3</dim>", b"\t\t\t</body>", b"<?x ?>", b"\0", b"", b"\t\t<layer />", b"<a>")


def changed_ir(raw: bytes, chance: random.Random) -> bytes:
    """Return an IR with one to three changes."""
    if chance.random() < 0.05:
        return with_other_byte(raw, chance)
    lines = raw.split(b"\n")
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        index = chance.randrange(len(lines))
        chance.choices(CHANGES, WEIGHTS)[0](lines, index, chance)
    return b"\n".join(lines)


def other_digits(lines: list[bytes], index: int, chance: random.Random) -> None:
    places = [*DIGITS.finditer(lines[index])]
    if places:
        place = chance.choice(places)
        value = int(place[0])
        new = chance.choice((value + 1, value - 1, value * 2, value // 2, value + 4, -value, *NUMBERS))
        lines[index] = lines[index][: place.start()] + str(new).encode() + lines[index][place.end() :]


def other_value(lines: list[bytes], index: int, chance: random.Random) -> None:
    """Put another text into an attribute, or that of the same attribute of another line."""
    places = [*ATTRIBUTE.finditer(lines[index])]
    if places:
        place = chance.choice(places)
        begin = b" " + place[1] + b'="'
        found = [line for line in chance.sample(lines, min(60, len(lines))) if begin in line]
        text = chance.choice(TEXTS)
        if found and chance.random() < 0.6:
            text = chance.choice(found).partition(begin)[2].partition(b'"')[0]
        lines[index] = lines[index][: place.start(2)] + text + lines[index][place.end(2) :]


def other_constant(lines: list[bytes], _index: int, chance: random.Random) -> None:
    """Say of a constant that its bytes are of another type, or in another shape."""
    found = [at for at, line in enumerate(lines) if b" offset=" in line]
    if not found:
        return
    at = chance.choice(found)
    kinds = next((group for group in SAME_WIDTH if b'"' + group[0] + b'"' in lines[at]), None)
    shape = re.search(rb'shape="([^"]*)"', lines[at])
    if kinds is not None and chance.random() < 0.5:
        lines[at] = lines[at].replace(kinds[0], chance.choice(kinds[1:]), 1)
    elif shape is not None:
        sizes = shape[1].split(b", ")
        chance.shuffle(sizes)
        sizes = chance.choice((sizes, [*sizes, b"1"], [b"1", *sizes]))
        lines[at] = lines[at].replace(shape[0], b'shape="' + b", ".join(sizes) + b'"', 1)


def line_of_another_place(lines: list[bytes], index: int, chance: random.Random) -> None:
    lines[index] = chance.choice(lines)


def two_lines_swapped(lines: list[bytes], index: int, chance: random.Random) -> None:
    other = chance.randrange(len(lines))
    lines[index], lines[other] = lines[other], lines[index]


def no_line(lines: list[bytes], index: int, _chance: random.Random) -> None:
    if len(lines) > 1:
        del lines[index]


def strange_line(lines: list[bytes], index: int, chance: random.Random) -> None:
    lines.insert(index, chance.choice(WRONG))


def other_edge(lines: list[bytes], _index: int, chance: random.Random) -> None:
    """Have an edge begin, or end, where another one does."""
    edges = [at for at, line in enumerate(lines) if b"<edge " in line]
    if edges:
        one, other = chance.choice(edges), chance.choice(edges)
        names = chance.choice(((b"from-layer", b"from-port"), (b"to-layer", b"to-port"), (b"from-layer",)))
        for name in names:
            value = re.search(name + rb'="[^"]*"', lines[other])
            if value is not None:
                lines[one] = re.sub(name + rb'="[^"]*"', value[0], lines[one])


CHANGES = (
    other_digits, other_value, other_constant, other_edge, line_of_another_place, two_lines_swapped, no_line,
    strange_line,
)  # fmt: skip
WEIGHTS = (30, 25, 12, 12, 6, 3, 4, 4)
