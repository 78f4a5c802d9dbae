"""The lists of operators and layers have all that the exporter writes."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from nano_runtime.bundle.folder import DEMO
from nano_runtime.bundle.ir_layers import NANO_LAYERS
from nano_runtime.bundle.onnx_operators import NANO

_LAYER = re.compile(r'<layer [^>]* type="(\w+)" version="(\w+)"[^>]*>(?:\s*<data ([^>]*)/>)?')


@pytest.mark.parametrize("bundle", ["fp32", "int8", "sd1", "demo"])
def test_what_the_exporter_writes_is_on_the_first_list(bundle, request):
    folder: Path = DEMO if bundle == "demo" else request.getfixturevalue(bundle)
    operators, layers = set(), set()
    for path in folder.rglob("*.onnx"):
        for node in onnx.load(path, load_external_data=False).graph.node:
            operators |= {(node.domain, node.op_type, name) for name in ("", *(one.name for one in node.attribute))}
    for path in folder.rglob("openvino_[ms]*.xml"):
        for kind, operators_of, data in _LAYER.findall(path.read_text(encoding="utf-8")):
            layers |= {(f"{kind} {operators_of}", name) for name in ("", *re.findall(r'(\w+)="', data))}
    assert operators
    assert bool(layers) == (bundle != "demo")
    assert {one for one in operators if one[2] not in ("", *NANO[one[0]].get(one[1], "no such").split())} == set()
    assert {one for one in operators if one[1] not in NANO[one[0]]} == set()
    assert {one for one in layers if one[0] not in NANO_LAYERS} == set()
    assert {one for one in layers if one[1] not in ("", *NANO_LAYERS[one[0]].split())} == set()
