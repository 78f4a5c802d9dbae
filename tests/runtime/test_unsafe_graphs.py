"""What a graph can say to make an engine look elsewhere, hang or die is seen before the engine sees it.

The protobuf here is written by hand, field by field: a library would not write what an attacker would.
"""

from __future__ import annotations

import pytest

from nano_runtime.bundle.unsafe_ir import fault_of_ir
from nano_runtime.bundle.unsafe_onnx import fault_of_onnx
from nano_runtime.engines.onnx_in_memory import with_weights_at

WEIGHTS, SIZE = "model.onnx.data", 1000
OUT = b"/etc/passwd"


def varint(number: int, length: int = 1) -> bytes:
    """Encode a number in base 128, in more bytes than it needs if asked."""
    groups: list[int] = []
    while number or len(groups) < length:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups[:-1], groups[-1] & 0x7F])


def field(number: int, content: bytes, wide: int = 1) -> bytes:
    return varint(number << 3 | 2, wide) + varint(len(content), wide) + content


def number(field_number: int, value: int, wide: int = 1) -> bytes:
    return varint(field_number << 3) + varint(value, wide)


def entry(key: bytes, value: bytes, wide: int = 1) -> bytes:
    return field(1, key, wide) + field(2, value, wide)


def tensor(location: bytes, offset: bytes = b"0", length: bytes = b"10", more: bytes = b"", wide: int = 1) -> bytes:
    """Return ten bytes in a file."""
    pairs = ((b"location", location), (b"offset", offset), (b"length", length))
    entries = b"".join(field(13, entry(key, value, wide), wide) for key, value in pairs)
    return number(1, 10) + number(2, 2) + field(8, b"w") + entries + number(14, 1) + more


def inner(values: bytes, dims: tuple[int, ...] = (2,), kind: int = 1, name: bytes = b"w") -> bytes:
    """Return a tensor with its values beside it."""
    return b"".join(number(1, size) for size in dims) + number(2, kind) + field(8, name) + values


def node(
    operator: bytes = b"Add", takes: tuple[bytes, ...] = (b"x", b"w"), gives: bytes = b"y", more: bytes = b""
) -> bytes:
    inputs = b"".join(field(1, name) for name in takes)
    return field(1, inputs + field(2, gives) + field(4, operator) + more)


def info(name: bytes, more: bytes = b"") -> bytes:
    shape = field(2, field(1, number(1, 2)))
    return field(1, name) + field(2, field(1, number(1, 1) + shape)) + more


def model(initializer: bytes, nodes: bytes = b"", graph: bytes = b"", more: bytes = b"", wide: int = 1) -> bytes:
    """Return a model that adds a weight to its input."""
    content = (nodes or node()) + field(2, b"graph") + field(5, initializer, wide)
    content += field(11, info(b"x")) + field(12, info(b"y")) + graph
    return number(1, 10) + field(7, content, wide) + field(8, number(2, 20)) + more


def attribute(name: bytes, content: bytes, kind: int) -> bytes:
    return field(5, field(1, name) + content + number(20, kind))


def fault(raw: bytes) -> str | None:
    return fault_of_onnx(raw, WEIGHTS, SIZE)


GOOD = tensor(WEIGHTS.encode())
FLOATS = field(9, bytes(8))
CONV = node(b"Conv", more=attribute(b"group", number(3, 1), 2))


@pytest.mark.parametrize(
    "raw",
    [
        model(GOOD),
        model(tensor(WEIGHTS.encode(), b"990", b"10")),
        model(tensor(WEIGHTS.encode(), more=field(13, entry(b"checksum", b"x")))),
        model(inner(FLOATS)),
        model(inner(field(4, bytes(8)))),
        model(inner(field(7, varint(5) + varint(1 << 63)), kind=7)),
        model(inner(field(5, varint(1) + varint(300)), kind=6)),
        model(inner(b"", dims=(0, 3))),
        model(inner(FLOATS), CONV),
        model(inner(FLOATS), node(b"Transpose", (b"w",), more=attribute(b"perm", number(8, 0), 7))),
        model(inner(FLOATS, name=b"location"), node(takes=(b"x", b"location"))),
        model(inner(FLOATS), more=field(14, entry(b"key", OUT))),
        model(inner(FLOATS, name="\u00f6".encode()), node(takes=(b"x", "\u00f6".encode()))),
        model(inner(FLOATS), node() + node(b"Clip", (b"y", b"", b"w"), b"z")),
        model(inner(FLOATS), node(b"Resize", (b"x", b"", b"w"))),
        model(inner(FLOATS), node(b"Conv", (b"x", b"w", b""))),
    ],
)
def test_ordinary_graphs_pass(raw):
    assert fault(raw) is None


def nested(levels: int) -> bytes:
    body = field(5, tensor(OUT))
    for _ in range(levels):
        body = node(b"If", more=attribute(b"then_branch", field(6, body), 5))
    return model(inner(FLOATS), body)


ELSEWHERE = [
    *(
        model(tensor(place))
        for place in (OUT, b"../model.onnx.data", b"./model.onnx.data", b"", WEIGHTS.encode() + b"\0")
    ),
    model(tensor(b"*/_ORT_MEM_ADDR_/*", b"140000000000000")),
    model(tensor(WEIGHTS.encode(), b"991")),
    *(model(tensor(WEIGHTS.encode(), place)) for place in (b"-1", b"0x0", b"00", b"", b" 1", b"18446744073709551616")),
    *(model(tensor(WEIGHTS.encode(), b"0", size)) for size in (b"9", b"11", b"", b"18446744073709551626")),
    model(tensor(WEIGHTS.encode(), more=field(13, entry(b"location", OUT)))),
    model(tensor(WEIGHTS.encode(), more=field(13, entry(b"basepath", b"/")))),
    model(GOOD.replace(entry(b"location", WEIGHTS.encode()), field(2, OUT) + field(1, b"location"))),
    model(GOOD + FLOATS),
    model(GOOD.replace(number(14, 1), b"")),
    model(GOOD.replace(number(14, 1), number(14, 2))),
    model(inner(FLOATS + number(14, 1))),
    model(inner(FLOATS), node(b"Constant", (), more=attribute(b"value", field(5, GOOD), 4))),
    model(inner(FLOATS), graph=field(15, field(1, GOOD))),
    model(inner(FLOATS), graph=varint((5 << 3 | 2) + (1 << 32)) + varint(len(tensor(OUT))) + tensor(OUT)),
]
SPELLED = [
    model(GOOD, wide=2),
    model(tensor(WEIGHTS.encode(), wide=2)),
    model(inner(FLOATS), CONV.replace(number(3, 1), number(3, 1, 2))),
    model(GOOD) + model(GOOD),
    model(GOOD) + field(2, b"a") + field(2, b"b"),
    model(GOOD) + field(30, b""),
    model(GOOD) + field(1000, b""),
    b"\x3b" + model(GOOD) + b"\x3c",
    model(GOOD) + field(2, b"a\xf7"),
    model(inner(FLOATS, name=b"w\xc3"), node(takes=(b"x", b"w\xc3"))),
    model(inner(FLOATS), node(takes=(b"x", b"w"), gives=b"\xed\xa0\x80")),
    model(GOOD)[:-1],
    model(GOOD) + b"\x08",
    model(GOOD) + b"\x10\x01",
    b"\xff" * 20,
    b"\x3a\xff\xff\xff\xff\x0f",
    b"",
    number(1, 10),
    model(inner(field(1, varint(2)) + FLOATS)),
    number(1, 10) + field(7, b""),
]
MEANT = [
    nested(1),
    nested(500),
    model(GOOD, more=field(25, b"")),
    model(GOOD, more=field(20, b"")),
    *(
        model(inner(FLOATS), node(name))
        for name in (b"Loop", b"Scan", b"If", b"RandomNormal", b"StringConcat", b"Shell", b"")
    ),
    model(inner(FLOATS), node(more=field(7, b"own"))),
    model(inner(FLOATS), node(more=field(7, b"com.microsoft"))),
    model(inner(FLOATS), more=field(8, field(1, b"own") + number(2, 1))),
    model(inner(FLOATS), more=field(8, number(2, 20))),
    model(inner(FLOATS), CONV.replace(number(3, 1), number(3, 0))),
    model(inner(FLOATS), CONV.replace(number(3, 1), number(3, (1 << 64) - 1))),
    model(inner(FLOATS), node(b"Conv", more=attribute(b"strides", number(8, 0), 7))),
    model(inner(FLOATS), node(b"Conv", more=attribute(b"groups", number(3, 1), 2))),
    model(inner(FLOATS), node(b"Conv", more=attribute(b"group", number(3, 1), 7))),
    model(inner(FLOATS), node(b"Conv", more=2 * attribute(b"group", number(3, 1), 2))),
    model(inner(FLOATS), node(b"Conv", more=attribute(b"auto_pad", field(4, OUT), 3))),
    model(inner(FLOATS), node(b"LayerNormalization", more=attribute(b"epsilon", b"\x15\x00\x00\xc0\x7f", 1))),
    *(
        model(inner(FLOATS), node(operator, takes))
        for operator, takes in (
            (b"Conv", (b"x",)),
            (b"Add", (b"x", b"w", b"w")),
            (b"Add", (b"x", b"")),
            (b"Relu", ()),
            (b"Unsqueeze", (b"x",)),
            (b"Resize", (b"x", b"w")),
            (b"Resize", (b"x", b"", b"", b"")),
            (b"Sum", (b"x", b"")),
            (b"Concat", ()),
            (b"LayerNormalization", (b"x", b"w", b"")),
        )
    ),
    model(inner(FLOATS), node(gives=b"")),
    model(inner(FLOATS), node(takes=(b"x", b"nobody"))),
    model(inner(FLOATS), node(takes=(b"x", b"y"))),
    model(inner(FLOATS), node(takes=(b"x", b"z"), gives=b"y") + node(takes=(b"y", b"w"), gives=b"z")),
    model(inner(FLOATS), 2 * node()),
    model(inner(FLOATS), node(gives=b"w")),
    model(inner(FLOATS), graph=field(5, inner(FLOATS))),
    model(inner(FLOATS), graph=field(13, field(1, b"y") + field(2, field(4, b"")))),
    model(inner(FLOATS), graph=field(13, field(1, b"y") + field(2, field(1, number(1, 8))))),
    model(inner(field(9, bytes(7)))),
    model(inner(field(4, bytes(4)))),
    model(inner(field(4, bytes(8)), kind=7)),
    model(inner(field(7, varint(5)), kind=7)),
    model(inner(field(7, b"\x05\x85"), kind=7)),
    model(inner(FLOATS + field(4, bytes(8)))),
    model(inner(b"")),
    model(inner(FLOATS, dims=(1 << 32, 1 << 32))),
    model(inner(FLOATS, dims=((1 << 64) - 2, (1 << 64) - 1))),
    model(inner(FLOATS, kind=8)),
    model(inner(field(6, b"text"), kind=8)),
]


@pytest.mark.parametrize("raw", [*ELSEWHERE, *SPELLED, *MEANT])
def test_what_no_exporter_writes_is_refused(raw):
    why = fault(raw)
    assert why is not None
    assert why.isprintable()


def test_many_messages_are_read_as_few_are():
    """Twelve and more messages are read side by side, fewer one by one: the same is refused."""
    many = b"".join(node(takes=(b"x", b"w"), gives=b"v%d" % index) for index in range(40))
    assert fault(model(inner(FLOATS), many)) is None
    spelled = (
        field(1, b"x", 2), field(30, b""), b"\x0a\xff\xff\xff\xff\x7f", b"\x0a", b"\x0d", b"\x08\x01", field(4, b"Add"),
        b"\xff" * 12, b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
    )  # fmt: skip
    for more in spelled:
        assert fault(model(inner(FLOATS), many + node(gives=b"z", more=more))) is not None


def test_a_graph_without_weights_may_name_none():
    assert fault_of_onnx(model(GOOD), None, 0) is not None


def test_weights_in_memory_are_those_of_the_file():
    """For OpenVINO, which would look for the file in the current folder; the reader refuses what comes of it."""
    raw = model(tensor(WEIGHTS.encode(), b"300"), graph=field(5, inner(FLOATS, name=b"v")))
    moved = with_weights_at(raw, 4096 * 1000)
    there = tensor(b"*/_ORT_MEM_ADDR_/*", b"4096300")
    expected = [entry(b"location", b"*/_ORT_MEM_ADDR_/*"), entry(b"offset", b"4096300"), entry(b"length", b"10")]
    assert all(part in moved for part in expected)
    assert (len(moved), OUT in moved) == (len(model(there, graph=field(5, inner(FLOATS, name=b"v")))), False)
    assert "not in the listed file" in str(fault(moved))


HEADER = '<?xml version="1.0"?>\n<net name="a&amp;b" version="11">\n'
LAYER = """\t\t<layer id="0" name="x" type="Parameter" version="opset1">
\t\t\t<data shape="?,4" element_type="f32" />
\t\t\t<output>
\t\t\t\t<port id="0" precision="FP32" names="x">
\t\t\t\t\t<dim>-1</dim>
\t\t\t\t\t<dim>4</dim>
\t\t\t\t</port>
\t\t\t</output>
\t\t</layer>
"""
CONSTANT = """\t\t<layer id="1" name="w" type="Const" version="opset1">
\t\t\t<data element_type="f32" shape="1, 1" offset="996" size="4" />
\t\t\t<output>
\t\t\t\t<port id="0" precision="FP32">
\t\t\t\t\t<dim>1</dim>
\t\t\t\t\t<dim>1</dim>
\t\t\t\t</port>
\t\t\t</output>
\t\t</layer>
"""
ADD = """\t\t<layer id="2" name="y" type="Add" version="opset1">
\t\t\t<data auto_broadcast="numpy" />
\t\t\t<input>
\t\t\t\t<port id="0" precision="FP32">
\t\t\t\t\t<dim>4</dim>
\t\t\t\t</port>
\t\t\t\t<port id="1" precision="FP32" />
\t\t\t</input>
\t\t\t<output>
\t\t\t\t<port id="2" precision="FP32" names="y,z" />
\t\t\t</output>
\t\t</layer>
\t\t<layer id="3" name="r" type="Result" version="opset1" output_names="y">
\t\t\t<input>
\t\t\t\t<port id="0" precision="FP32" />
\t\t\t</input>
\t\t</layer>
"""
EDGES = "".join(
    f'\t\t<edge from-layer="{begin}" from-port="0" to-layer="{end}" to-port="{port}" />\n'
    for begin, end, port in ((0, 2, 0), (1, 2, 1), (2, 3, 0))
)
INFORMATION = """\t<rt_info>
\t\t<info name="OpenVINO Runtime" value="2026.4.1" />
\t\t<nncf>
\t\t\t<version value="3" />
\t\t</nncf>
\t</rt_info>
"""
IR = f"{HEADER}\t<layers>\n{LAYER}{CONSTANT}{ADD}\t</layers>\n\t<edges>\n{EDGES}\t</edges>\n{INFORMATION}</net>\n"


def changed(before: str, after: str, count: int = 1) -> str:
    assert before in IR
    return IR.replace(before, after, count)


@pytest.mark.parametrize("text", [IR, changed(INFORMATION, ""), changed(INFORMATION, "\t<rt_info />\n")])
def test_an_ordinary_ir_passes(text):
    assert fault_of_ir(text.encode(), SIZE) is None


@pytest.mark.parametrize(
    "text",
    [
        *(changed('offset="996"', f'offset="{place}"') for place in (997, 1 << 64, -1, "", "0996", "0x1")),
        *(changed('size="4"', more) for more in ('size="8"', 'size="4" size="4"', 'size="4" offset="0"', "")),
        *(
            changed('shape="1, 1"', f'shape="{shape}"')
            for shape in ("1, 2", "-1, -1", "4294967296, 4294967296", "?", "1,,1")
        ),
        *(
            changed('type="Add"', f'type="{kind}"')
            for kind in ("If", "Loop", "TensorIterator", "ReadValue", "Shell", "add")
        ),
        *(changed('"Add" version="opset1"', f'"Add" version="{version}"') for version in ("opset2", "extension", "")),
        changed('auto_broadcast="numpy"', 'auto_broadcast="numpy" axis="0"'),
        changed('auto_broadcast="numpy"', 'auto_broadcast="../x"'),
        changed('element_type="f32"', 'element_type="string"'),
        changed('layer id="2"', 'layer id="1"'),
        changed('layer id="2"', 'layer id="99999999999999999999"'),
        changed('to-layer="2"', 'to-layer="0"'),
        changed('to-layer="2"', 'to-layer="4"'),
        changed('to-layer="2"', 'to-layer=""'),
        changed('to-layer="2"', 'to-layer="-1"'),
        changed('to-layer="2"', 'to-layer="999999999999999"'),
        changed("\t\t<edge ", "\t\t<ed1ge "),
        changed(ADD, ADD.replace("\t\t\t<input>", "\t\t\t<body>").replace("\t\t\t</input>", "\t\t\t</body>")),
        changed("<dim>4</dim>", "<dim>4\1 5</dim>"),
        changed("<dim>4</dim>", "<dim>four</dim>"),
        changed("<dim>4</dim>", "<dim></dim>"),
        changed("\t\t\t\t\t<dim>4</dim>\n", 20 * "\t\t\t\t\t<dim>4</dim>\n"),
        changed("</port>\n", "</port>\n<!-- x -->\n"),
        changed("</port>\n", "</port>\n<?x ?>\n"),
        changed("</port>\n", "</port>\n<![CDATA[x]]>\n"),
        changed("</port>\n", "</port>\n\n"),
        changed("\t\t</layer>\n", ""),
        changed("\t\t</layer>\n", "\t\t\t</layer>\n"),
        changed("\t\t\t</input>\n\t\t</layer>", "\t\t</layer>"),  # an input that is not closed
        changed("\t\t\t</output>\n\t\t</layer>", "\t\t\t</output></layer>"),
        changed(" />\n\t\t\t<input>", " />\t\t</layer>\n\t\t\t<input>"),
        changed('name="x"', 'name="x&e;"'),
        changed('name="x"', 'name="x&#27;"'),
        changed('name="x"', 'name="<x"'),
        changed('name="x"', "name='x'"),
        changed('name="x"', 'name="x\x1b"'),
        changed('name="x"', 'name="x" name="y"'),
        changed("\t<edges>", '\t<!DOCTYPE net [<!ENTITY a "aa">]>\n\t<edges>'),
        changed('<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-16"?>'),
        changed('<?xml version="1.0"?>\n', '<?xml version="1.0"?>\n<!DOCTYPE net [<!ENTITY a "aa">]>\n'),
        changed("</net>\n", "</net>\n<net>\n"),
        changed("</net>\n", "</net>"),
        changed("\t\t</nncf>\n", ""),
        changed("\t\t</nncf>\n", "\t\t</other>\n"),
        changed("\t\t</nncf>\n", "\t\t</nncf>\n" + 50_000 * "\t\t<a>\n" + 50_000 * "\t\t</a>\n"),
        changed("\t\t</nncf>\n", "\t\t</nncf>\n" + 2_000 * "\t\t<a />\n"),
        changed("\n", "\r\n", -1),
        changed('"', '" ', -1),
        HEADER,
        "",
        IR[: len(IR) // 2],
    ],
)
def test_an_ir_that_openvino_would_not_write_is_refused(text):
    why = fault_of_ir(text.encode(), SIZE)
    assert why is not None
    assert why.isprintable()


@pytest.mark.parametrize("raw", [IR.encode("utf-16"), IR.encode() + b"\0", model(inner(FLOATS))])
def test_other_bytes_are_no_ir(raw):
    assert fault_of_ir(raw, SIZE) is not None
    assert fault_of_onnx(field(1, IR.encode()), None, 0) is not None
