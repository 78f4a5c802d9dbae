"""Graph passes on small traced modules: what the graphs compute afterwards, and what the passes refuse."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from nano_export.graph.passes import TRACE_BATCH, TRACE_TOKENS, free_batch, free_tokens, fuse_depth_to_space, name_nodes
from nano_export.graph.to_onnx import to_onnx

LENGTH, WIDTH, HEADS = 5, 8, 2
# Float32 sums of eight products, in another order.
TOLERANCE = 1e-5


class Attention(nn.Module):
    """Everything that mentions the batch in a Stable Diffusion graph: reshapes to heads and back, and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(WIDTH, WIDTH)
        self.to_k = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.to_q(tokens).unflatten(2, (HEADS, -1)).transpose(1, 2)
        key = self.to_k(tokens).unflatten(2, (HEADS, -1)).permute(0, 2, 3, 1)
        mask = torch.full((len(tokens), 1, LENGTH, LENGTH), -1e4).triu(1)
        mixed = torch.softmax(query @ key + mask, -1) @ query
        return mixed.transpose(1, 2).flatten(2)


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Attention()
        self.second = nn.ModuleList([Attention()])

    def forward(self, tokens: Tensor) -> Tensor:
        return self.second[0](self.first(tokens))


class Wrapper(nn.Module):
    """Holds a network, and a layer beside it, as the exporter's modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Whole()
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last(self.network(tokens))


class NumbersRows(nn.Module):
    """Treats the samples of a batch differently."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + torch.arange(float(len(tokens)))[:, None, None]


class MixesRows(nn.Module):
    """Reshapes samples into each other."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(LENGTH, len(tokens), WIDTH) * 2


class Prepends(nn.Module):
    """Gives each sample the same first token: constant rows that do not broadcast."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([torch.ones(len(tokens), 1, WIDTH), tokens], 1)


class Repeats(nn.Module):
    """Writes a computed row once for each sample."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(0, keepdim=True).repeat(len(tokens), 1, 1)


class Spreads(nn.Module):
    """Expands one number to the batch, as diffusers does with the timestep."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens.mean((0, 1, 2), keepdim=True).expand(len(tokens), LENGTH, 1), tokens], 2)


class Attends(nn.Module):
    """Attention of a few positions to a prompt of any length, as in a standard UNet."""

    def __init__(self) -> None:
        super().__init__()
        self.to_k = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        query = tokens.unflatten(2, (HEADS, -1)).transpose(1, 2)
        key = self.to_k(prompt).view(*prompt.shape[:2], HEADS, -1).transpose(1, 2)
        mixed = torch.softmax(query @ key.transpose(2, 3), -1) @ key
        return mixed.transpose(1, 2).flatten(2)


class CountsTokens(nn.Module):
    """Divides by the length of the prompt."""

    def forward(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        return tokens + (prompt * torch.arange(float(prompt.shape[1]))[None, :, None]).sum(1, keepdim=True)


class RepeatsForTokens(nn.Module):
    """Writes a row once for each token of the prompt."""

    def forward(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        return torch.cat([tokens.mean(1, keepdim=True).expand(-1, prompt.shape[1], -1), prompt], 2)


class MovesTokens(nn.Module):
    """Reshapes what has the prompt in another place."""

    def forward(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        return tokens + prompt.transpose(1, 2).reshape(prompt.shape).mean(1, keepdim=True)


class Enlarges(nn.Module):
    """Enlarges to a size that is no multiple, as a UNet does whose levels halve with a rest."""

    def forward(self, picture: Tensor) -> Tensor:
        return nn.functional.interpolate(picture, size=(5, 9), mode="nearest")


def traced_with_prompt(module: nn.Module) -> ir.Model:
    inputs = torch.zeros(TRACE_BATCH, LENGTH, WIDTH), torch.zeros(TRACE_BATCH, TRACE_TOKENS, WIDTH)
    return to_onnx(module.eval(), inputs, ["tokens", "prompt"], ["mixed"])


def traced(module: nn.Module) -> ir.Model:
    return to_onnx(module.eval(), (torch.zeros(TRACE_BATCH, LENGTH, WIDTH),), ["tokens"], ["mixed"])


def compute(model: ir.Model, *inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in model.graph.inputs]
    return session.run(None, {name: one.numpy() for name, one in zip(names, inputs, strict=True)})[0]


@pytest.fixture(scope="module")
def module() -> Wrapper:
    torch.manual_seed(0)
    return Wrapper().eval()


@pytest.fixture(scope="module")
def model(module) -> ir.Model:
    return traced(module)


@pytest.mark.parametrize("batch", [1, 2, 5, TRACE_BATCH])
def test_any_batch_computes_what_torch_computes(module, model, batch):
    tokens = torch.randn(batch, LENGTH, WIDTH, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = module(tokens).numpy()
    np.testing.assert_allclose(compute(model, tokens), expected, rtol=0, atol=TOLERANCE)
    if batch > 1:  # negative control: the result depends on which sample is which
        assert np.abs(compute(model, tokens.flip(0)) - expected).max() > 100 * TOLERANCE


def test_an_expansion_follows_the_batch():
    model = traced(Spreads())
    for batch in (1, 5):
        tokens = torch.randn(batch, LENGTH, WIDTH, generator=torch.Generator().manual_seed(batch))
        expected = Spreads()(tokens).numpy()
        np.testing.assert_allclose(compute(model, tokens), expected, rtol=0, atol=TOLERANCE)


def test_a_picture_is_enlarged_in_any_batch():
    model = to_onnx(Enlarges(), (torch.zeros(TRACE_BATCH, 2, 3, 4),), ["picture"], ["larger"])
    for batch in (1, 5):
        picture = torch.randn(batch, 2, 3, 4, generator=torch.Generator().manual_seed(batch))
        np.testing.assert_array_equal(compute(model, picture), Enlarges()(picture).numpy())


def test_inputs_and_outputs_say_that_the_batch_is_free(model):
    (tokens,), (mixed,) = model.graph.inputs, model.graph.outputs
    assert [str(size) for size in tokens.shape] == [str(size) for size in mixed.shape] == ["batch", "5", "8"]
    assert all(value.shape[0] != TRACE_BATCH for node in model.graph for value in node.outputs if value.shape)
    assert free_batch(model, TRACE_BATCH) == 0  # nothing is left to free


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (NumbersRows(), "differs between the samples"),
        (MixesRows(), "baked into Reshape"),
        (Prepends(), "goes into Concat"),
        (Repeats(), "baked into Tile"),
    ],
)
def test_a_batch_that_is_baked_in_is_refused(module, why):
    with pytest.raises(ValueError, match=why):
        traced(module)


@pytest.fixture(scope="module")
def attends() -> tuple[Attends, ir.Model]:
    torch.manual_seed(1)
    module = Attends().eval()
    return module, traced_with_prompt(module)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 77), (5, 154), (TRACE_BATCH, TRACE_TOKENS)])
def test_any_prompt_computes_what_torch_computes(attends, batch, length):
    module, model = attends
    torch.manual_seed(2)
    tokens, prompt = torch.randn(batch, LENGTH, WIDTH), torch.randn(batch, length, WIDTH)
    with torch.no_grad():
        expected = module(tokens, prompt).numpy()
    actual = compute(model, tokens, prompt)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)
    if length > 1:  # negative control: the result depends on every token
        assert np.abs(compute(model, tokens, prompt[:, 1:]) - expected).max() > 100 * TOLERANCE


def test_the_prompts_length_has_a_name(attends):
    _, model = attends
    shapes = [() if value.shape is None else value.shape for value in model.graph.inputs]
    assert [[str(size) for size in shape] for shape in shapes] == [
        ["batch", "5", "8"],
        ["batch", "tokens", "8"],
    ]
    assert free_tokens(model, TRACE_TOKENS) == 0  # nothing is left to free


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (CountsTokens(), "a constant has the prompt's length"),
        (RepeatsForTokens(), "baked into Expand"),
        (MovesTokens(), "baked into Reshape"),
    ],
)
def test_a_length_that_is_baked_in_is_refused(module, why):
    with pytest.raises(ValueError, match=why):
        traced_with_prompt(module)


def test_nodes_are_named_after_their_modules(model):
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)
    for prefix in ("first", "second.0"):
        assert {f"{prefix}.to_q/MatMul", f"{prefix}.to_k/MatMul", f"{prefix}/Softmax"} <= set(names)
        assert {f"{prefix}/MatMul", f"{prefix}/MatMul.2"} <= set(names)  # the second of its kind in a module
    assert "last/MatMul" in names
    assert all(not node.metadata_props for node in model.graph)  # where it was traced is nobody's business


def test_weights_of_linear_layers_are_named_after_their_nodes(module, model):
    weight = model.graph.initializers["first.to_q/MatMul.weight"]
    np.testing.assert_array_equal(weight.const_value.numpy(), module.network.first.to_q.weight.detach().numpy().T)


def test_a_weight_that_two_layers_share_keeps_its_name():
    weight = ir.Value(name="shared", const_value=ir.tensor(np.eye(2, dtype=np.float32), name="shared"))
    tokens = ir.Value(name="tokens", shape=ir.Shape([1, 2]), type=ir.TensorType(ir.DataType.FLOAT))
    first = ir.node("MatMul", [tokens, weight])
    second = ir.node("MatMul", [first.outputs[0], weight])
    graph = ir.Graph([tokens], second.outputs, nodes=[first, second], initializers=[weight], opset_imports={"": 20})
    assert name_nodes(ir.Model(graph, ir_version=10)) == 1
    assert [node.name for node in graph] == ["MatMul", "MatMul.2"]
    assert list(graph.initializers) == ["shared"]


# Squares of pixels


class Shuffles(nn.Module):
    """Four feature maps become one of twice the size, or something else that looks like it."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, maps: Tensor) -> Tensor:
        batch, channels, height, width = maps.shape
        squares = maps.view(batch, 2, 2, channels // 4, height, width).permute(self.axes)
        return squares.reshape(batch, channels // 4, 2 * height, 2 * width) * 2


def test_squares_of_pixels_become_one_operator():
    shuffles = Shuffles((0, 3, 4, 1, 5, 2))
    model = to_onnx(shuffles, (torch.zeros(TRACE_BATCH, 12, 3, 5),), ["maps"], ["pixels"])
    assert [node.op_type for node in model.graph] == ["DepthToSpace", "Mul"]
    maps = torch.randn(2, 12, 3, 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(compute(model, maps), shuffles(maps).numpy())
    assert not np.array_equal(Shuffles((0, 3, 4, 2, 5, 1))(maps).numpy(), shuffles(maps).numpy())  # control


def test_other_orders_of_six_axes_are_left_alone():
    other = Shuffles((0, 3, 4, 2, 5, 1))
    model = to_onnx(other, (torch.zeros(TRACE_BATCH, 12, 3, 5),), ["maps"], ["pixels"])
    assert "DepthToSpace" not in {node.op_type for node in model.graph}


def test_mish_is_torchs_and_has_no_operator_of_its_own():
    """OpenVINO has that operator, and cannot compile it in every place."""
    values = torch.tensor([[-90.0, -20.0, -1.5, -0.3, 0.0, 0.7, 19.9, 20.1, 88.0, 3e38]]).repeat(TRACE_BATCH, 1)
    model = to_onnx(nn.Mish(), (values,), ["values"], ["activated"])
    assert not {node.op_type for node in model.graph} & {"Mish", "Softplus"}
    (mine,) = onnxruntime.InferenceSession(ir.serde.serialize_model(model).SerializeToString()).run(
        None, {"values": values.numpy()}
    )
    expected = nn.functional.mish(values.double()).numpy()
    np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=1e-30)
    assert not np.allclose(mine, nn.functional.silu(values), rtol=1e-6)


def test_squares_of_another_shape_are_refused():
    x = ir.Value(name="x", shape=ir.Shape([1, 12, 2, 2]), type=ir.TensorType(ir.DataType.FLOAT))
    shapes = [ir.Value(name=name, const_value=ir.tensor(np.array(shape), name=name)) for name, shape in
              (("before", [1, 2, 2, 3, 2, 2]), ("after", [1, 6, 4, 2]))]  # fmt: skip
    before = ir.node("Reshape", [x, shapes[0]])
    turned = ir.node("Transpose", before.outputs, attributes={"perm": [0, 3, 4, 1, 5, 2]}, name="turned")
    after = ir.node("Reshape", [turned.outputs[0], shapes[1]])
    graph = ir.Graph([x], after.outputs, nodes=[before, turned, after], initializers=shapes, opset_imports={"": 20})
    with pytest.raises(ValueError, match="another order"):
        fuse_depth_to_space(ir.Model(graph, ir_version=10))
