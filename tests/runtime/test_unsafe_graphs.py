"""What an ONNX file or an IR can say to make an engine look elsewhere is seen before the engine sees it.

The protobuf here is written by hand, field by field: a library would not write what an attacker would.
"""

from __future__ import annotations

import pytest

from nano_runtime.bundle.unsafe_ir import fault_of_ir
from nano_runtime.bundle.unsafe_onnx import fault_of_onnx

WEIGHTS, SIZE = "model.onnx.data", 1000


def varint(number: int, length: int = 1) -> bytes:
    """Encode a number in base 128, in more bytes than it needs if asked."""
    groups: list[int] = []
    while number or len(groups) < length:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups[:-1], groups[-1] & 0x7F])


def field(number: int, content: bytes, wide: int = 1) -> bytes:
    return varint(number << 3 | 2, wide) + varint(len(content), wide) + content


def entry(key: bytes, value: bytes, wide: int = 1) -> bytes:
    return field(1, key, wide) + field(2, value, wide)


def tensor(location: bytes, offset: bytes = b"0", length: bytes = b"10", wide: int = 1) -> bytes:
    pairs = ((b"location", location), (b"offset", offset), (b"length", length))
    return b"".join(field(13, entry(key, value, wide), wide) for key, value in pairs)


def model(initializer: bytes, wide: int = 1) -> bytes:
    return b"\x08\x0a" + field(7, field(2, b"graph") + field(5, initializer, wide), wide)


def fault(raw: bytes) -> str | None:
    return fault_of_onnx(raw, WEIGHTS, SIZE)


GOOD = tensor(WEIGHTS.encode())
OUT = b"/etc/passwd"


def test_weights_in_the_listed_file_pass():
    assert fault(model(GOOD)) is None
    assert fault(model(tensor(WEIGHTS.encode(), b"990", b"10"))) is None
    assert fault(model(GOOD, wide=3)) is None
    assert fault_of_onnx(model(field(9, b"values in the file")), None, 0) is None
    assert fault(model(field(8, b"location"))) is None  # a tensor of that name


def attribute(number: int, content: bytes) -> bytes:
    return field(7, field(1, field(1, b"x") + field(5, field(1, b"a") + field(number, content))))


def nested(levels: int) -> bytes:
    graph = field(5, tensor(OUT))
    for _ in range(levels):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph)


@pytest.mark.parametrize(
    "raw",
    [
        model(tensor(OUT)),
        model(tensor(b"../model.onnx.data")),
        model(tensor(b"./model.onnx.data")),
        model(tensor(b"*/_ORT_MEM_ADDR_/*", b"140000000000000")),
        model(tensor(b"")),
        model(tensor(WEIGHTS.encode() + b"\0")),
        model(tensor(OUT, wide=3), wide=4),
        model(tensor(WEIGHTS.encode(), b"991", b"10")),
        model(tensor(WEIGHTS.encode(), b"-1")),
        model(tensor(WEIGHTS.encode(), b"0", b"18446744073709551615")),
        model(tensor(WEIGHTS.encode(), b"0x0")),
        model(GOOD + field(13, entry(b"location", OUT))),
        model(field(13, entry(b"location", WEIGHTS.encode()) + field(2, OUT))),
        model(field(13, field(2, OUT) + field(1, b"location"))),
        model(field(13, b"\x1a\x02j\x0f" + entry(b"location", WEIGHTS.encode()) + field(2, OUT))),
        model(GOOD + field(13, entry(b"basepath", b"/"))),
        model(GOOD) + model(tensor(OUT)),
        model(b"") + model(b""),
        attribute(5, tensor(OUT)),
        attribute(10, tensor(OUT)),
        attribute(6, field(5, tensor(OUT))),
        attribute(11, field(5, tensor(OUT))),
        attribute(22, field(1, tensor(OUT))),
        field(7, field(15, field(2, tensor(OUT)))),
        nested(3),
        nested(500),
        field(25, b"") + model(b""),
        field(20, b"") + model(b""),
        b"\x3b" + tensor(OUT) + b"\x3c",
        model(GOOD)[:-1],
        b"\xff" * 20,
        b"\x3a\xff\xff\xff\xff\x0f",
    ],
)
def test_weights_from_elsewhere_are_seen(raw):
    why = fault(raw)
    assert why is not None
    assert why.isprintable()


def test_a_graph_without_weights_may_name_none():
    assert fault_of_onnx(model(GOOD), None, 0) is not None


HEADER = b'<?xml version="1.0"?>\n<net name="a" version="11">'


def ir(inside: bytes, header: bytes = HEADER) -> bytes:
    return header + inside + b"</net>\n"


def constant(offset: object, size: object) -> bytes:
    return f'<data element_type="f32" shape="1" offset="{offset}" size="{size}" />'.encode()


def test_an_ordinary_ir_passes():
    assert fault_of_ir(ir(b'<layers><layer id="0">' + constant(996, 4) + b"</layer></layers>"), SIZE) is None
    assert fault_of_ir(ir(b"<a>" * 15 + b"</a>" * 15), SIZE) is None


@pytest.mark.parametrize(
    "raw",
    [
        ir(constant(997, 4)),
        ir(constant(10**18 - 1, 10**18 - 1)),
        ir(constant(1 << 64, 1)),
        ir(constant(-1, 1)),
        ir(b'<data offset="2000" size="4" />'),
        ir(b'<data element_type="f32" shape="1" offset = "2000" size="4" />'),
        ir(constant(0, 4).replace(b' size="4"', b' size="4" offset="2000"')),
        ir(b"<a>" * 16 + b"</a>" * 16),
        ir(b"<a>" * 100_000 + b"</a>" * 100_000),
        ir(b'<a b="/>/>/>/>">' * 30 + b"</a>" * 30),
        ir(b'<a b="</a></a>">' * 30 + b"</a>" * 30),
        ir(b"<a b='\"'/>" * 30),
        ir(b"<!-- </a></a> --><a>" * 30 + b"</a>" * 30),
        ir(b"<![CDATA[</a>]]><a>" * 30 + b"</a>" * 30),
        ir(b"<?x </a> ?><a>" * 30 + b"</a>" * 30),
        ir(b'"</a>" <a>' * 30 + b"</a>" * 30),
        ir(b"<a></a></net><net>"[:-5]),
        ir(b"<a>"),
        HEADER,
        b"",
        ir(b"", b'<?xml version="1.0"?>\n<!DOCTYPE net [<!ENTITY a "aa">]><net name="a">'),
        ir(b"", b'<?xml version="1.0" encoding="utf-16"?>\n<net name="a">'),
        ir(b"").decode().encode("utf-16"),
        ir(b"\0"),
    ],
)
def test_an_ir_that_hides_something_is_refused(raw):
    why = fault_of_ir(raw, SIZE)
    assert why is not None
    assert why.isprintable()
