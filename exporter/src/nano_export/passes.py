"""Edits of a graph that keep what it computes: a pass says its pattern, edits the model in place, returns how often.

A pass that meets a case it does not understand raises instead of guessing.
"""

from __future__ import annotations

import ast

import numpy as np
import onnx_ir as ir

__all__ = ["TRACE_BATCH", "free_batch", "name_nodes"]

# The batch that graphs are traced with: a prime that is no other dimension of any Stable Diffusion graph, so that a
# shape that starts with it is known to be the batch. The deepest feature maps are up to 16 wide, at 1024 pixels.
TRACE_BATCH = 17
_FREE = "batch"
_BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Where"})


def name_nodes(model: ir.Model) -> int:
    """Name nodes after their module: ``node_linear_5`` --> ``down_blocks.0....attn2.to_q/MatMul``.

    Quantization plans and profiles address layers by these names. Constants of a layer are renamed alike, so that the
    weight of a linear layer keeps its name although the exporter transposed it.
    """
    taken: dict[str, int] = {}
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "['']"))
        module = scopes[-2] if len(scopes) > 1 else ""
        _, _, inner = module.partition(".")  # the wrapper's own attribute says nothing, unless it is the layer
        stem = f"{inner or module}/{node.op_type}".lstrip("/")
        count = taken[stem] = taken.get(stem, 0) + 1
        node.name = stem if count == 1 else f"{stem}.{count}"
        node.metadata_props.clear()
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is not None and weight.is_initializer() and len(weight.uses()) == 1:
            _rename_initializer(model.graph, weight, f"{node.name}.weight")
    return len(taken)


def free_batch(model: ir.Model, traced: int) -> int:
    """Free the batch: shapes ``[traced, ...]`` --> ``["batch", ...]``, and the constants that mention it.

    Reshape targets ``[traced, ...]`` --> ``[0, ...]``: 0 means "copy this dimension of the input", which is right
    exactly where the input starts with the batch too. Expand targets ``[traced, ...]`` --> the first dimension of a
    graph input, joined with the rest. A folded constant with one equal row per sample, such as a causal mask, keeps one
    row and broadcasts. Any other constant that mentions the traced batch is an error.

    Raises:
        ValueError: a constant depends on the batch in another way.
    """
    graph = model.graph
    freed: dict[str, ir.Value] = {}
    for value in list(graph.initializers.values()):
        if value.shape is not None and len(value.shape) > 1 and value.shape[0] == traced:
            _keep_one_row(value)
    for node in list(graph):
        if node.op_type not in ("Reshape", "Expand", "ConstantOfShape", "Tile"):
            continue
        target = node.inputs[0 if node.op_type == "ConstantOfShape" else 1]
        if target is None or target.const_value is None:
            raise ValueError(f"{node.name}: the shape is not a constant")
        shape = target.const_value.numpy()
        if traced in shape:
            node.replace_input_with(1, _free_target(graph, freed, node, shape, traced))
            node.attributes.pop("allowzero", None)
    for value in _all_values(graph):
        if value.shape is not None and len(value.shape) > 0 and value.shape[0] == traced:
            value.shape = ir.Shape([_FREE, *list(value.shape)[1:]])
    return len(freed)


def _free_target(
    graph: ir.Graph, freed: dict[str, ir.Value], node: ir.Node, shape: np.ndarray, traced: int
) -> ir.Value:
    """Find what a node's target shape has to be for any batch."""
    leads = shape[0] == traced and traced not in shape[1:]
    if leads and node.op_type == "Reshape" and _starts_with(node.inputs[0], traced):
        return _batch_free_shape(graph, freed, shape)
    if leads and node.op_type == "Expand":
        return _current_shape(graph, freed, shape, traced, before=node)
    raise ValueError(f"{node.name}: the batch is baked into {node.op_type} {shape.tolist()}")


def _starts_with(value: ir.Value | None, size: int) -> bool:
    """Whether the first dimension is known to be ``size``."""
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
    rest = ir.tensor(shape[1:].astype(np.int64), name=f"{before.name}.rest")
    others = ir.Value(
        name=rest.name, const_value=rest, shape=ir.Shape([len(shape) - 1]), type=ir.TensorType(ir.DataType.INT64)
    )
    graph.register_initializer(others)
    joined = ir.node("Concat", [batch.outputs[0], others], attributes={"axis": 0}, name=f"{before.name}.shape")
    for node in (batch, joined):
        node.outputs[0].name, node.outputs[0].type = f"{node.name}.out", ir.TensorType(ir.DataType.INT64)
    graph.insert_before(before, [batch, joined])
    freed[str(joined.name)] = joined.outputs[0]
    return joined.outputs[0]


def _batch_free_shape(graph: ir.Graph, freed: dict[str, ir.Value], shape: np.ndarray) -> ir.Value:
    """The shared initializer ``[0, *shape[1:]]``."""
    name = "shape_0_" + "_".join(str(size) for size in shape[1:])
    if name not in freed:
        tensor = ir.Tensor(np.array([0, *shape[1:]], dtype=np.int64), name=name)
        value = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(ir.DataType.INT64))
        graph.register_initializer(value)
        freed[name] = value
    return freed[name]


def _all_values(graph: ir.Graph) -> list[ir.Value]:
    """Inputs and every node output, graph outputs included."""
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
