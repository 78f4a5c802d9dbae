"""The lists of operators and layers have all that the exporter writes."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from diffusers.models.activations import ACT2CLS as OF_DIFFUSERS
from torch import Tensor, nn
from transformers.activations import ACT2CLS, ACT2FN

from nano_export.graph.passes import TRACE_BATCH
from nano_export.graph.to_onnx import to_onnx
from nano_export.graph.to_openvino import write_ir
from nano_runtime.bundle.folder import DEMO
from nano_runtime.bundle.ir_layers import NANO_LAYERS
from nano_runtime.bundle.onnx_arity import ARITIES, arity_of
from nano_runtime.bundle.onnx_operators import NANO, allowed_attributes

_LAYER = re.compile(r'<layer [^>]* type="(\w+)" version="(\w+)"[^>]*>(?:\s*<data ([^>]*)/>)?')


class Activations(nn.Module):
    """Every activation that a config of a text encoder or a UNet may name."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList([*map(ACT2FN.__getitem__, ACT2CLS), *(kind() for kind in OF_DIFFUSERS.values())])

    def forward(self, values: Tensor) -> Tensor:
        return torch.cat([activation(values) for activation in self.each], -1)


def found_in(folder: Path) -> tuple[set[tuple[str, str, str]], set[tuple[str, str]]]:
    """Return the ONNX operators (domain, name, attribute) and OpenVINO layers (kind, attribute) of a folder."""
    operators, layers = set(), set()
    for path in folder.rglob("*.onnx"):
        for node in onnx.load(path, load_external_data=False).graph.node:
            operators |= {(node.domain, node.op_type, name) for name in ("", *(one.name for one in node.attribute))}
    for path in folder.rglob("openvino_[ms]*.xml"):
        for kind, operators_of, data in _LAYER.findall(path.read_text(encoding="utf-8")):
            layers |= {(f"{kind} {operators_of}", name) for name in ("", *re.findall(r'(\w+)="', data))}
    return operators, layers


def strangers(operators: set[tuple[str, str, str]], layers: set[tuple[str, str]]) -> set[tuple[str, ...]]:
    """Return what is not on the first lists."""
    return (
        {one for one in operators if one[2] not in ("", *NANO[one[0]].get(one[1], "").split())}
        | {one for one in operators if one[1] not in NANO[one[0]]}
        | {
            one
            for one in layers
            if one[1] not in ("", *NANO_LAYERS.get(one[0], "").split()) or one[0] not in NANO_LAYERS
        }
    )


@pytest.fixture
def nncf(exported) -> Path:
    """A bundle by the other quantizer, for OpenVINO alone."""
    pytest.importorskip("nncf", reason="an extra")
    return Path(exported("nncf", "tiny", "--int8", "--quantizer", "nncf", "--backend", "openvino"))


@pytest.mark.parametrize("bundle", ["fp32", "int8", "sd1", "demo", pytest.param("nncf", marks=pytest.mark.slow)])
def test_what_the_exporter_writes_is_on_the_first_list(bundle, request):
    operators, layers = found_in(DEMO if bundle == "demo" else request.getfixturevalue(bundle))
    assert bool(operators) == (bundle != "nncf")
    assert bool(layers) == (bundle != "demo")
    assert strangers(operators, layers) == set()


def test_every_activation_that_a_config_may_name_is_on_the_first_list(tmp_path):
    model = to_onnx(Activations().eval(), [torch.randn(TRACE_BATCH, 7)], ["values"], ["activated"])
    ir.save(model, tmp_path / "model.onnx")
    write_ir(tmp_path / "model.onnx", tmp_path / "openvino_model.xml")
    operators, layers = found_in(tmp_path)
    assert len(operators) > 10
    assert layers
    assert strangers(operators, layers) == set()


def test_a_stranger_would_be_found():
    assert strangers({("", "If", "")}, set()) == {("", "If", "")}
    assert strangers({("", "Conv", "own")}, {("If opset8", ""), ("Concat opset1", "own")}) == {
        ("", "Conv", "own"), ("If opset8", ""), ("Concat opset1", "own"),
    }  # fmt: skip


OLDEST = 11  # of ONNX's versions: what older ones had in attributes, graphs of today have as inputs
FACTOR_OR_SIZE = {"Resize"}  # one of two inputs is needed, which the definition cannot say


def test_operators_take_and_give_what_their_definitions_say():
    names = {domain: {name for of, name in allowed_attributes() if of == domain} for domain in ("", "com.microsoft")}
    assert ARITIES.keys() == names[""] | names["com.microsoft"]
    seen = set()
    for version in range(OLDEST, onnx.defs.onnx_opset_version() + 1):
        for name in names[""]:
            with suppress(onnx.defs.SchemaError):  # there was none yet
                schema = onnx.defs.get_schema(name, version, "")
                arity = arity_of(name, version)
                assert arity.least == schema.min_input or name in FACTOR_OR_SIZE, (name, version)
                assert schema.max_input <= arity.most, (name, version)
                assert schema.max_output <= arity.gives, (name, version)
                seen.add(name)
    assert seen == names[""]
