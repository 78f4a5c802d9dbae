"""The recipe of one INT8 graph: scales and ranges, chosen by what was seen, and the divisions that they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from nano_export.quantize.calibration import Seen
from nano_export.quantize.equalize import can_shift, divide, leave_out, place_of, scale_columns, shift
from nano_export.quantize.grids import Range
from nano_export.quantize.layers import Layer, activation_of, bias_of, readers_together, scheme_of, weight_of
from nano_export.quantize.plan import Rule, looked_at
from nano_export.quantize.scales import WORTH_AN_OPERATOR, Choice, LayerError, Output, choose, choose_output
from nano_export.quantize.tables import even_out_tables
from nano_runtime.arrays import F32

__all__ = ["Prepared", "Recipe", "macs_of_layers", "prepare", "recipe_for"]

_FOR_NOTHING = 0.95  # share of the squared error that a constant may leave if nobody pays for it


@dataclass(frozen=True)
class Recipe:
    """How a component's activations are quantized.

    Attributes:
        choices: by name of the activation.
        outputs: of convolutions, by name: the layer, and how its output is quantized.
    """

    choices: Mapping[str, Choice]
    outputs: Mapping[str, tuple[str, Output]]

    @property
    def errors(self) -> dict[str, LayerError]:
        """What quantization adds to each layer's output, by name of the layer; its own rounding included."""
        found = {name: error for choice in self.choices.values() for name, error in choice.errors.items()}
        for layer, output in self.outputs.values():
            error = found[layer]
            found[layer] = replace(error, squared=error.squared + output.squared[error.columns])
        return found


@dataclass
class Prepared:
    """What ``qdq.quantize`` needs to know of a graph that was divided.

    Attributes:
        ranges: of all activations that are quantized.
        divided: by the quantizer itself, with a scale for each channel.
        multiplied: outputs that their layer divides, and that are multiplied with the scale when they are read.
        inputs: names of graph inputs that the graph which computes them has to divide, with the scale.
        scalings: activations that are divided or shifted, and tables that are evened out.
    """

    ranges: dict[str, Range] = field(default_factory=dict)
    divided: dict[str, F32] = field(default_factory=dict)
    multiplied: dict[str, F32] = field(default_factory=dict)
    inputs: dict[str, F32] = field(default_factory=dict)
    scalings: int = 0


def recipe_for(model: ir.Model, rules: tuple[Rule, ...], seen: Mapping[str, Seen]) -> Recipe:
    """Choose scale and range of each activation.

    Args:
        model: float.
        rules: of the component; layers that they quantize, or allow to be, are looked at.
        seen: of every tensor that ``tensors_to_calibrate`` names.
    """
    looked = looked_at(rules)
    outputs = _outputs(model, looked)
    choices: dict[str, Choice] = {}
    for layers in readers_together(model, looked):
        source, watched = layers[0].source, seen[str(layers[0].source.name)]
        rounded = any(scheme_of(layer.node, looked) == "w8a8" for layer in layers)
        scaled, shifted = str(source.name) not in outputs, 0.0
        if can_shift(source, layers, anywhere=scaled):
            # Weights alone are quantized in graphs that run once, where an operator costs nothing.
            biased = can_shift(source, layers) and all(bias_of(layer.node) is not None for layer in layers)
            shifted = _FOR_NOTHING if biased or not rounded else WORTH_AN_OPERATOR
        choice = choose(watched, layers, scaled=scaled, shifted=shifted, rounded=rounded)
        least = -10 * np.log10(WORTH_AN_OPERATOR)
        if rounded and place_of(source, layers) == "multiply" and 0 < choice.gain_db < least:
            choice = choose(watched, layers, scaled=False, shifted=shifted)
        choices[str(source.name)] = choice
    kept = {str(value.name) for value in model.graph.outputs} | set(choices)  # read by more than float operators
    return Recipe(
        choices,
        {name: (str(node.name), choose_output(seen[name], scaled=name not in kept)) for name, node in outputs.items()},
    )


def prepare(model: ir.Model, plan: tuple[Rule, ...], rules: tuple[Rule, ...], recipe: Recipe) -> Prepared:
    """Divide the activations of a float graph in place; return what is needed to quantize it.

    Args:
        model: float; its results stay the same but for activations that their quantizer divides.
        plan: the rules that the recipe was chosen by.
        rules: the plan with its changes.
        recipe: for it.
    """
    made = Prepared(scalings=even_out_tables(model, rules))
    for name, node in _outputs(model, rules).items():
        output = recipe.outputs[name][1]
        made.ranges[name] = output.range
        if output.offset is not None:
            leave_out(model.graph, node, output.offset)
        if output.scale is not None:
            scale_columns(model.graph, node, np.reciprocal(output.scale))
            made.multiplied[name] = output.scale
        made.scalings += output.scale is not None or output.offset is not None
    for readers in readers_together(model, looked_at(plan)):
        schemes = {layer.name: scheme_of(layer.node, rules) for layer in readers}
        source, layers = readers[0].source, [layer for layer in readers if schemes[layer.name] in {"w8a8", "w8"}]
        choice = recipe.choices[str(source.name)]
        if not layers:
            continue
        rounded = "w8a8" in schemes.values()
        made.scalings += choice.scale is not None or choice.offset is not None
        if place_of(source, readers) in {"norm", "affine", "product", "input"}:
            layers = list(readers)  # floats read the changed activation, too
        if choice.offset is not None:
            source = shift(model, source, layers, choice.offset)
        if rounded:
            made.ranges.setdefault(str(source.name), choice.range)
        _divide(model, source, layers, choice, made, rounded=rounded)
    return made


def _divide(
    model: ir.Model, source: ir.Value, layers: list[Layer], choice: Choice, made: Prepared, *, rounded: bool
) -> None:
    """Divide an activation, and note what others have to do for it."""
    if choice.scale is None:
        return
    place, of_input = divide(model, source, layers, choice.scale)
    if place == "quantizer":
        made.divided[str(source.name)] = choice.scale
    elif place == "multiply" and rounded:
        made.ranges[str(activation_of(layers[0].node).name)] = choice.range
    elif place == "input":
        made.inputs[of_input] = choice.scale


def macs_of_layers(model: ir.Model, rules: tuple[Rule, ...]) -> dict[str, int]:
    """Return the multiply-accumulates of one sample of each layer with a quantized activation."""
    macs = {}
    for layers in readers_together(model, looked_at(rules)):
        for layer in layers:
            weight = weight_of(layer.node).shape.numpy()
            output = layer.node.outputs[0].shape
            places = [] if output is None else list(output)[2:] if layer.node.op_type == "Conv" else list(output)[1:-1]
            numbers = [size for size in places if isinstance(size, int)]
            macs[layer.name] = int(np.prod(weight)) * int(np.prod(numbers))
    return macs


def _outputs(model: ir.Model, rules: tuple[Rule, ...]) -> dict[str, ir.Node]:
    """Return the quantized convolutions by the names of their outputs, which are quantized as well."""
    return {
        str(node.outputs[0].name): node
        for node in model.graph
        if node.op_type == "Conv" and scheme_of(node, rules) == "w8a8"
    }
