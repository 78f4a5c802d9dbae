"""Crafted bundles: what somebody who wants to end, fill or mislead the process that loads a bundle could publish.

Each function takes the folder of a copy of a small bundle and replaces parts of it; checksums are made right by the
caller. All attack the text encoder or the tokenizer, which a drawing touches first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from tests.contract.sealed import rewrite

__all__ = ["IR", "ONNX", "TOKENIZER"]

GRAPH, XML, BIN = "text_encoder/model.onnx", "text_encoder/openvino_model.xml", "text_encoder/openvino_model.bin"
WEIGHTS = "model.onnx.data"
HUGE = 10**12
OUTPUT, WIDTH = "last_hidden_state", 48


def graph(*nodes: onnx.NodeProto, initializers: Sequence[onnx.TensorProto] = (), **extra: object) -> onnx.ModelProto:
    """Wrap nodes, whose result is ``result``, in a graph with the text encoder's input and output."""
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "hostile",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", 77])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 77, WIDTH])],
            list(initializers),
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
        **extra,
    )


def ints(name: str, *values: int) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.array(values, np.int64), name)


def sized(name: str, dims: list[int], location: str | None = None, **entries: object) -> onnx.TensorProto:
    """A float tensor that says it is larger than it is."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
    if location is not None:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def reduced(name: str = "x") -> list[onnx.NodeProto]:
    """Nodes that make something of the right shape out of a float tensor of any shape."""
    return [
        helper.make_node("ReduceSum", [name], ["sum"], keepdims=0),
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ids", "last"], ["ids3"]),
        helper.make_node("Add", ["ids3", "sum"], ["added"]),
        helper.make_node("Expand", ["added", "wide"], [OUTPUT]),
    ]


REST = (ints("last", 2), ints("wide", 1, 1, WIDTH))


def with_tensor(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return graph(*reduced(tensor.name), initializers=(tensor, *REST))


def with_nodes(*nodes: onnx.NodeProto, initializers: Sequence[onnx.TensorProto] = ()) -> onnx.ModelProto:
    """A graph whose nodes make ``x``."""
    return graph(*nodes, *reduced(), initializers=(*REST, *initializers))


def functions(depth: int) -> onnx.ModelProto:
    """Local functions, each of which calls the next."""
    model = graph(helper.make_node("f0", ["input_ids"], ["x"], domain="own"), *reduced(), initializers=REST)
    model.opset_import.append(helper.make_opsetid("own", 1))
    for index in range(depth):
        last = index == depth - 1
        body = (
            helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT)
            if last
            else helper.make_node(f"f{index + 1}", ["a"], ["b"], domain="own")
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"f{index}", ["a"], ["b"], [body], opsets))
    return model


def branches(depth: int) -> bytes:
    """If inside of If, deeper than the protobuf package writes: a node's attribute holds a graph that holds a node."""

    def field(number: int, content: bytes) -> bytes:
        size, groups = len(content), b""
        while size > 0x7F:
            groups, size = groups + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([(number << 3 | 2) & 0x7F]) + groups + bytes([size]) + content

    inner = b""
    for _ in range(depth):
        inner = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + b"\xa0\x01\x05" + field(6, inner)))
    return b"\x08\x0a" + field(7, inner)


def endless() -> onnx.ModelProto:
    """A loop that ends in some years."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("Sin", ["value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    times = onnx.numpy_helper.from_array(np.array(1 << 60), "times")
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")  # noqa: FBT003
    start = onnx.numpy_helper.from_array(np.ones(1, np.float32), "start")
    loop = helper.make_node("Loop", ["times", "yes", "start"], ["x"], body=body)
    return with_nodes(loop, initializers=(times, yes, start))


def doubling(times: int) -> onnx.ModelProto:
    """Concat of a tensor with itself, over and over: a decompression bomb."""
    nodes = [helper.make_node("Cast", ["input_ids"], ["c0"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=1) for i in range(times)]
    return with_nodes(*nodes, helper.make_node("Identity", [f"c{times}"], ["x"]))


def chain(length: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Cast", ["input_ids"], ["c0"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Relu", [f"c{i}"], [f"c{i + 1}"]) for i in range(length)]
    return with_nodes(*nodes, helper.make_node("Identity", [f"c{length}"], ["x"]))


def patched(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    """A good graph, spoiled."""
    model = with_nodes(helper.make_node("Cast", ["input_ids"], ["x"], to=TensorProto.FLOAT))
    change(model)
    return model


def _sparse(model: onnx.ModelProto) -> None:
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    model.graph.sparse_initializer.add(values=values, indices=ints("", 5 * HUGE), dims=[HUGE])
    model.graph.node[0].CopyFrom(helper.make_node("Identity", ["sparse"], ["x"]))


def _self_calling(model: onnx.ModelProto) -> None:
    model.CopyFrom(functions(1))
    model.functions[0].node[0].CopyFrom(helper.make_node("f0", ["a"], ["b"], domain="own"))


# Name: a function that makes the model.
ONNX: dict[str, Callable[[], onnx.ModelProto | bytes]] = {
    "functions 3000 deep": lambda: functions(3000),
    "function that calls itself": lambda: patched(_self_calling),
    "weights at /etc/passwd": lambda: with_tensor(sized("x", [8], "/etc/passwd", offset=0, length=32)),
    "weights above the bundle": lambda: with_tensor(sized("x", [8], "../../../etc/passwd", offset=0, length=32)),
    "weights in another listed file": lambda: with_tensor(sized("x", [8], "../LICENSE", offset=0, length=32)),
    "weights at an address": lambda: with_tensor(sized("x", [8], "*/_ORT_MEM_ADDR_/*", offset=4096, length=32)),
    "weights beyond the file": lambda: with_tensor(sized("x", [8], WEIGHTS, offset=1 << 40, length=32)),
    "weights before the file": lambda: with_tensor(sized("x", [8], WEIGHTS, offset=-32, length=32)),
    "weights around 2**64": lambda: with_tensor(sized("x", [8], WEIGHTS, offset=(1 << 64) - 16, length=32)),
    "weights shorter than said": lambda: with_tensor(sized("x", [HUGE], WEIGHTS, offset=0, length=32)),
    "10**12 values, none there": lambda: with_tensor(sized("x", [HUGE])),
    "dimensions that overflow": lambda: with_tensor(sized("x", [1 << 32, 1 << 32])),
    "negative dimensions": lambda: with_tensor(sized("x", [-1, -4])),
    "constant of 10**12": lambda: with_nodes(
        helper.make_node("ConstantOfShape", ["n"], ["x"]), initializers=(ints("n", HUGE),)
    ),
    "expanded to 10**12": lambda: with_nodes(
        helper.make_node("Cast", ["input_ids"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Expand", ["c", "n"], ["x"]),
        initializers=(ints("n", HUGE // 77, 1, 77),),
    ),
    "range to 10**12": lambda: with_nodes(
        helper.make_node("Range", ["from", "to", "by"], ["r"]),
        helper.make_node("Cast", ["r"], ["x"], to=TensorProto.FLOAT),
        initializers=tuple(
            onnx.numpy_helper.from_array(np.array(value), name)
            for name, value in (("from", 0), ("to", HUGE), ("by", 1))
        ),
    ),
    "padded to 10**12": lambda: with_nodes(
        helper.make_node("Cast", ["input_ids"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Pad", ["c", "pads"], ["x"]),
        initializers=(ints("pads", 0, 0, 0, HUGE),),
    ),
    "doubled 40 times": lambda: doubling(40),
    "a loop without end": endless,
    "3000 branches deep": lambda: branches(3000),
    "100,000 nodes in a row": lambda: chain(100_000),
    "a cycle": lambda: graph(
        helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]), *reduced("a"),
        initializers=REST,
    ),
    "one name, two values": lambda: patched(lambda model: model.graph.node.append(model.graph.node[0])),
    "opset 10**9": lambda: patched(lambda model: setattr(model.opset_import[0], "version", 10**9)),
    "an unknown operator": lambda: patched(lambda model: setattr(model.graph.node[0], "op_type", "Shell")),
    "an unknown domain": lambda: patched(lambda model: setattr(model.graph.node[0], "domain", "evil")),
    "a sparse value far outside": lambda: patched(_sparse),
    "an unknown type": lambda: patched(lambda model: setattr(model.graph.node[0].attribute[0], "i", 9999)),
    "no graph": lambda: b"\x08\x0a",
    "zeros": lambda: bytes(100_000),
    "noise": lambda: np.random.default_rng(0).bytes(100_000),
}  # fmt: skip


def _inserted(xml: bytes, before: bytes, put: bytes) -> bytes:
    assert before in xml
    return xml.replace(before, put + before, 1)


def _nested_body(depth: int) -> bytes:
    """A TensorIterator in the body of a TensorIterator, as OpenVINO writes them."""
    start = b'<layer id="%d" name="t" type="TensorIterator" version="opset1"><body><layers>'
    return b"".join(start % (90_000 + i) for i in range(depth)) + b"</layers></body></layer>" * depth


def _entities() -> bytes:
    lines = [b'<!ENTITY e0 "aaaaaaaaaa">']
    lines += [b'<!ENTITY e%d "%s">' % (i + 1, b"&e%d;" % i * 10) for i in range(12)]
    return b"<!DOCTYPE net [" + b"".join(lines) + b"]>\n"


# Name: what becomes of the text encoder's .xml.
IR: dict[str, Callable[[bytes], bytes]] = {
    "information 50,000 deep": lambda xml: _inserted(xml, b"</rt_info>\n</net>", b"<a>" * 50_000 + b"</a>" * 50_000),
    "bodies 20,000 deep": lambda xml: _inserted(xml, b"</layers>", _nested_body(20_000)),
    "bodies 3 deep": lambda xml: _inserted(xml, b"</layers>", _nested_body(3)),
    "entities of 10**12 letters": lambda xml: _inserted(xml, b"<net", _entities()).replace(
        b'name="', b'name="&e11;', 1
    ),
    "a constant beyond the file": lambda xml: xml.replace(b'offset="0"', b'offset="99999999999"', 1),
    "a constant around 2**64": lambda xml: xml.replace(b'offset="0"', b'offset="18446744073709551608"', 1),
    "a constant of 10**12": lambda xml: re.sub(rb'shape="[^"]*" offset="0"', b'shape="1000000000000" offset="0"', xml),
    "dimensions that overflow": lambda xml: xml.replace(b'shape="?,77"', b'shape="4294967296,4294967296"', 1),
    "negative dimensions": lambda xml: xml.replace(b'shape="?,77"', b'shape="-5,-77"', 1),
    "an edge to nowhere": lambda xml: xml.replace(b'to-layer="', b'to-layer="99', 1),
    "an edge around": lambda xml: _inserted(
        xml, b"</edges>", b'<edge from-layer="5" from-port="0" to-layer="3" to-port="0" />'
    ),
    "a layer twice": lambda xml: xml.replace(b'layer id="1"', b'layer id="0"', 1),
    "a number that is none": lambda xml: xml.replace(b'layer id="1"', b'layer id="99999999999999999999"', 1),
    "version 999": lambda xml: xml.replace(b'version="11"', b'version="999"', 1),
    "an unknown layer": lambda xml: xml.replace(b'type="Const"', b'type="Shell"', 1),
    "half of it": lambda xml: xml[: len(xml) // 2],
    "nothing": lambda _: b"",
}


def _tokenizer(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def spoil(raw: bytes) -> bytes:
        document = json.loads(raw)
        change(document)
        return json.dumps(document).encode()

    return spoil


def _bomb() -> dict[str, Any]:
    steps = [{"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 1000} for _ in range(6)]
    return {"type": "Sequence", "normalizers": steps}


# Name: what becomes of the tokenizer.
TOKENIZER: dict[str, Callable[[bytes], bytes]] = {
    "lists 100,000 deep": lambda _: b"[" * 100_000 + b"]" * 100_000,
    "a prompt of 10**19 letters": _tokenizer(lambda document: document.update(normalizer=_bomb())),
    "ids beyond the vocabulary": _tokenizer(
        lambda document: document["model"]["vocab"].update(dict.fromkeys(document["model"]["vocab"], 10**6))
    ),
    "no vocabulary": _tokenizer(lambda document: document["model"].pop("vocab")),
    "merges of nothing": _tokenizer(lambda document: document["model"].update(merges=[["x", "no such"]])),
    "half of a tokenizer": lambda raw: raw[: len(raw) // 2],
}


def cases() -> Iterator[tuple[str, str, Callable[[Path], None]]]:
    """Yield (engine, name, what to do with the folder of a copy)."""
    for name, make in ONNX.items():
        yield "onnxruntime", name, _putting(make)
    for name, spoil in IR.items():
        yield "openvino", name, _changing(XML, spoil)
    for name, spoil in TOKENIZER.items():
        yield "onnxruntime", name, _changing("tokenizer/tokenizer.json", spoil)


def _putting(make: Callable[[], onnx.ModelProto | bytes]) -> Callable[[Path], None]:
    """Return what makes a graph and puts it into a folder."""

    def put(folder: Path) -> None:
        model = make()
        rewrite(folder / GRAPH, model if isinstance(model, bytes) else model.SerializeToString())

    return put


def _changing(name: str, spoil: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return what changes a file of a folder."""
    return lambda folder: _change(folder / name, spoil)


def _change(path: Path, spoil: Callable[[bytes], bytes]) -> None:
    before = path.read_bytes()
    after = spoil(before)
    assert after != before, "the bundle has nothing this attack could change"
    rewrite(path, after)
