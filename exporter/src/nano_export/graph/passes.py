"""Edits of a graph that do not change its results: a pass edits the model in place, and returns how often.

The docstring of a pass says which nodes it looks for and what it writes instead. A pass raises an error for a case that
it does not understand; it never guesses.
"""

from __future__ import annotations

import ast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = [
    "TRACE_BATCH",
    "TRACE_TOKENS",
    "dequantizer_of",
    "free_batch",
    "free_tokens",
    "fuse_depth_to_space",
    "initializer",
    "name_nodes",
]

# The batch that graphs are traced with: a prime that is no other dimension of any Stable Diffusion graph, so a shape
# that starts with it starts with the batch. The deepest feature maps are up to 16 wide, at 1024 pixels.
TRACE_BATCH = 17
# The length of the prompt, wherever it is free: another such prime.
TRACE_TOKENS = 19
_FREE, _FREE_TOKENS = "batch", "tokens"
_SHAPED = ("Reshape", "Expand", "ConstantOfShape", "Tile")
_BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Where"})


def name_nodes(model: ir.Model) -> int:
    """Name nodes after their module: ``node_linear_5`` --> ``down_blocks.0....attn2.to_q/MatMul``.

    Quantization plans and profiles address layers by these names. The weight of a linear layer is renamed like it,
    since torch's exporter transposed it and gave it a name of its own.
    """
    taken: dict[str, int] = {}
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "['']"))
        module = scopes[-2] if len(scopes) > 1 else ""
        _, _, inner = module.partition(".")  # the wrapper's attribute is left out, unless it is the layer
        stem = f"{inner or module}/{node.op_type}".lstrip("/")
        count = taken[stem] = taken.get(stem, 0) + 1
        node.name = stem if count == 1 else f"{stem}.{count}"
        node.metadata_props.clear()
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is not None and weight.is_initializer() and len(weight.uses()) == 1:
            _rename_initializer(model.graph, weight, f"{node.name}.weight")
    return len(taken)


def fuse_depth_to_space(model: ir.Model) -> int:
    """Reshape [B, 2, 2, C, h, w], Transpose (0, 3, 4, 1, 5, 2), Reshape [B, C, 2h, 2w] --> DepthToSpace (DCR).

    ONNX defines the operator like this. Engines have a fast kernel for it, and a slow one for transposes of six axes.
    The pass comes before ``free_batch``, while all shapes are numbers.
    """
    fused = 0
    for node in list(model.graph):
        perm = node.attributes.get("perm") if node.op_type == "Transpose" else None
        if perm is None or list(perm.as_ints()) != [0, 3, 4, 1, 5, 2]:
            continue
        before = None if node.inputs[0] is None else node.inputs[0].producer()
        after, *others = (use.node for use in node.outputs[0].uses())
        if before is None or before.op_type != "Reshape" or after.op_type != "Reshape" or others:
            raise ValueError(f"{node.name}: squares of pixels without the reshapes around them")
        batch, rows, columns, channels, height, width = _target_shape(before)
        if (rows, columns) != (2, 2) or [batch, channels, 2 * height, 2 * width] != _target_shape(after).tolist():
            raise ValueError(f"{node.name}: squares of pixels in another order")
        shuffle = ir.node("DepthToSpace", [before.inputs[0]], attributes={"blocksize": 2, "mode": "DCR"})
        shuffle.name = f"{node.name}.DepthToSpace"
        old, new = after.outputs[0], shuffle.outputs[0]
        new.name, new.shape, new.type = f"{shuffle.name}.out", old.shape, old.type
        model.graph.insert_after(after, shuffle)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        fused += 1
    return fused


def free_batch(model: ir.Model, traced: int) -> int:
    """Free the batch: shapes ``[traced, ...]`` --> ``["batch", ...]``, and the constants that mention it.

    Reshape targets ``[traced, ...]`` --> ``[0, ...]``: 0 means "copy this dimension of the input", which is right
    exactly where the input starts with the batch too. Expand targets ``[traced, ...]`` --> the first dimension of a
    graph input, joined with the rest. Resize targets ``[traced, channels, h, w]`` --> ``[h, w]``, on the last two axes.
    A folded constant with one equal row per sample, such as a causal mask, keeps one row and broadcasts. Any other
    constant that mentions the traced batch is an error.

    Raises:
        ValueError: a constant depends on the batch in another way.
    """
    graph = model.graph
    freed: dict[str, ir.Value] = {}
    for value in list(graph.initializers.values()):
        if value.shape is not None and len(value.shape) > 1 and value.shape[0] == traced:
            _keep_one_row(value)
    for node in list(graph):
        shape = _target_shape(node)
        if traced in shape:
            node.replace_input_with(1, _free_target(graph, freed, node, shape, traced))
            node.attributes.pop("allowzero", None)
        if node.op_type == "Resize":
            _free_resize(graph, freed, node, traced)
    for value in _all_values(graph):
        if value.shape is not None and len(value.shape) > 0 and value.shape[0] == traced:
            value.shape = ir.Shape([_FREE, *list(value.shape)[1:]])
    return len(freed)


def free_tokens(model: ir.Model, traced: int) -> int:
    """Free the length of the prompt: shapes ``[..., traced, ...]`` --> ``[..., "tokens", ...]``, and their constants.

    The prompt is never the first dimension, which is the batch. Reshape targets ``[n, traced, ...]`` become
    ``[n, 0, ...]`` where the input is ``[n, traced, ...]``, too. Any other constant that mentions the traced length is
    an error. The pass comes before ``free_batch``, while all shapes are numbers.

    Raises:
        ValueError: a constant depends on the length in another way.
    """
    graph = model.graph
    for constant in graph.initializers.values():
        if constant.shape is not None and len(constant.shape) > 1 and traced in constant.shape:
            raise ValueError(f"{constant.name}: a constant has the prompt's length")
    freed: dict[str, ir.Value] = {}
    for node in graph:
        shape = _target_shape(node)
        if traced not in shape:
            continue
        if node.op_type != "Reshape" or not _same_until(traced, node.inputs[0], shape):
            raise ValueError(f"{node.name}: the prompt's length is baked into {node.op_type} {shape.tolist()}")
        node.replace_input_with(1, _shape_constant(graph, freed, np.where(shape == traced, 0, shape)))
        node.attributes.pop("allowzero", None)
    for value in _all_values(graph):
        if value.shape is not None and traced in list(value.shape)[1:]:
            value.shape = ir.Shape([_FREE_TOKENS if size == traced else size for size in value.shape])
    return len(freed)


def dequantizer_of(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that a value comes from, or None."""
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def initializer(graph: ir.Graph, name: str, data: NDArray[np.generic] | ir.TensorProtocol) -> ir.Value:
    """Register a constant under a name, and return it; a name that exists is returned as it is, so layers share it."""
    if name in graph.initializers:
        return graph.initializers[name]
    tensor = ir.Tensor(data, name=name) if isinstance(data, np.ndarray) else data
    value = ir.Value(
        name=name, const_value=tensor, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype)
    )
    graph.register_initializer(value)
    return value


def _same_until(size: int, value: ir.Value | None, shape: NDArray[np.int64]) -> bool:
    """Return whether a value's shape begins as ``shape`` does, up to the only dimension of this size."""
    axis = int(np.argmax(shape == size))
    begins = (
        value is not None and value.shape is not None and list(value.shape)[: axis + 1] == shape[: axis + 1].tolist()
    )
    return begins and np.count_nonzero(shape == size) == 1


def _target_shape(node: ir.Node) -> NDArray[np.int64]:
    """Return the shape that an operator takes as a constant; an empty one for operators that take none."""
    if node.op_type not in _SHAPED:
        return np.zeros(0, np.int64)
    target = node.inputs[0 if node.op_type == "ConstantOfShape" else 1]
    if target is None or target.const_value is None:
        raise ValueError(f"{node.name}: the shape is not a constant")
    return target.const_value.numpy()


def _free_target(
    graph: ir.Graph, freed: dict[str, ir.Value], node: ir.Node, shape: np.ndarray, traced: int
) -> ir.Value:
    """Return the target shape of a node for any batch."""
    leads = shape[0] == traced and traced not in shape[1:]
    if leads and node.op_type == "Reshape" and _starts_with(node.inputs[0], traced):
        return _shape_constant(graph, freed, np.array([0, *shape[1:]]))
    if leads and node.op_type == "Expand":
        return _current_shape(graph, freed, shape, traced, before=node)
    raise ValueError(f"{node.name}: the batch is baked into {node.op_type} {shape.tolist()}")


def _free_resize(graph: ir.Graph, freed: dict[str, ir.Value], node: ir.Node, traced: int) -> None:
    """Resize height and width alone where the target is a shape of [batch, channels, height, width]."""
    sizes = node.inputs[3] if len(node.inputs) > 3 else None  # noqa: PLR2004 - X, roi, scales, sizes
    if sizes is None or sizes.const_value is None:
        return
    target = sizes.const_value.numpy()
    if list(target[:1]) == [traced] and len(target) == 4:  # noqa: PLR2004 - a picture
        node.replace_input_with(3, _shape_constant(graph, freed, target[2:]))
        node.attributes["axes"] = ir.AttrInt64s("axes", [2, 3])


def _starts_with(value: ir.Value | None, size: int) -> bool:
    """Return whether the first dimension is known to be ``size``."""
    return value is not None and value.shape is not None and len(value.shape) > 0 and value.shape[0] == size


def _keep_one_row(value: ir.Value) -> None:
    """Shrink a constant [traced, ...] of equal rows to [1, ...]."""
    if value.const_value is None:
        raise ValueError(f"{value.name} has no value")
    if others := sorted({use.node.op_type for use in value.uses()} - _BROADCASTING):
        raise ValueError(f"{value.name}: a constant with the batch's size goes into {others[0]}")
    rows = value.const_value.numpy()
    if not (rows == rows[:1]).all():
        raise ValueError(f"{value.name}: a constant differs between the samples of a batch")
    value.const_value = ir.Tensor(rows[:1].copy(), name=value.name)
    value.shape = value.const_value.shape


def _current_shape(
    graph: ir.Graph, freed: dict[str, ir.Value], shape: np.ndarray, traced: int, before: ir.Node
) -> ir.Value:
    """Insert nodes that compute ``[batch, *shape[1:]]``, the batch being that of a graph input."""
    like = next((value for value in graph.inputs if _starts_with(value, traced)), None)
    if like is None:
        raise ValueError(f"{before.name}: no input has the batch that goes into Expand {shape.tolist()}")
    batch = ir.node("Shape", [like], attributes={"start": 0, "end": 1}, name=f"{before.name}.batch")
    others = initializer(graph, f"{before.name}.rest", shape[1:].astype(np.int64))
    joined = ir.node("Concat", [batch.outputs[0], others], attributes={"axis": 0}, name=f"{before.name}.shape")
    for node in (batch, joined):
        node.outputs[0].name, node.outputs[0].type = f"{node.name}.out", ir.TensorType(ir.DataType.INT64)
    graph.insert_before(before, [batch, joined])
    freed[str(joined.name)] = joined.outputs[0]
    return joined.outputs[0]


def _shape_constant(graph: ir.Graph, freed: dict[str, ir.Value], shape: np.ndarray) -> ir.Value:
    """Return the initializer that readers of this shape share."""
    name = "shape_" + "_".join(str(size) for size in shape)
    if name not in freed:
        tensor = ir.Tensor(shape.astype(np.int64), name=name)
        value = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(ir.DataType.INT64))
        graph.register_initializer(value)
        freed[name] = value
    return freed[name]


def _all_values(graph: ir.Graph) -> list[ir.Value]:
    """Return the inputs and all node outputs, graph outputs included."""
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _rename_initializer(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Give an initializer another name."""
    if name in graph.initializers or value.name is None:
        return
    del graph.initializers[value.name]
    value.name = name
    if value.const_value is not None:
        value.const_value.name = name
    graph.register_initializer(value)
