"""Edits of a graph that keep what it computes: a pass says its pattern, edits the model in place, returns how often.

A pass that meets a case it does not understand raises instead of guessing.
"""

from __future__ import annotations

import ast

import numpy as np
import onnx_ir as ir

__all__ = ["TRACE_BATCH", "free_batch", "name_nodes"]

# The batch that graphs are traced with: a prime that is no other dimension of any Stable Diffusion graph, so that a
# shape that starts with it is known to be the batch.
TRACE_BATCH = 7
_FREE = "batch"


def name_nodes(model: ir.Model) -> int:
    """Name nodes after their module: ``node_linear_5`` --> ``down_blocks.0....attn2.to_q/MatMul``.

    Quantization plans and profiles address layers by these names. Constants of a layer are renamed alike, so that the
    weight of a linear layer keeps its name although the exporter transposed it.
    """
    taken: dict[str, int] = {}
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "['']"))
        module = scopes[-2] if len(scopes) > 1 else ""
        stem = f"{module.partition('.')[2]}/{node.op_type}".lstrip("/")
        count = taken[stem] = taken.get(stem, 0) + 1
        node.name = stem if count == 1 else f"{stem}.{count}"
        node.metadata_props.clear()
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is not None and weight.is_initializer() and len(weight.uses()) == 1:
            _rename_initializer(model.graph, weight, f"{node.name}.weight")
    return len(taken)


def free_batch(model: ir.Model, traced: int) -> int:
    """Free the batch: shapes ``[traced, ...]`` --> ``["batch", ...]``, Reshape targets likewise --> ``[0, ...]``.

    In a Reshape target 0 means "copy this dimension of the input", which is right exactly where the input starts with
    the batch too. A folded constant with one equal row per sample, such as a causal mask, keeps one row and broadcasts.
    Any other constant that mentions the traced batch is an error.

    Raises:
        ValueError: a constant shape depends on the batch in another way.
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
        if traced not in shape:
            continue
        source = node.inputs[0]
        starts_with_batch = source is not None and source.shape is not None and source.shape[0] == traced
        if node.op_type != "Reshape" or not starts_with_batch or list(shape).index(traced) != 0 or traced in shape[1:]:
            raise ValueError(f"{node.name}: the batch is baked into {node.op_type} {shape.tolist()}")
        node.replace_input_with(1, _batch_free_shape(graph, freed, shape))
        node.attributes.pop("allowzero", None)
    for value in _all_values(graph):
        if value.shape is not None and len(value.shape) > 0 and value.shape[0] == traced:
            value.shape = ir.Shape([_FREE, *list(value.shape)[1:]])
    return len(freed)


def _keep_one_row(value: ir.Value) -> None:
    """Shrink a constant [traced, ...] of equal rows to [1, ...]."""
    if value.const_value is None:
        raise ValueError(f"{value.name} has no value")
    rows = value.const_value.numpy()
    if not (rows == rows[:1]).all():
        raise ValueError(f"{value.name}: a constant differs between the samples of a batch")
    value.const_value = ir.Tensor(rows[:1].copy(), name=value.name)
    value.shape = value.const_value.shape


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
