"""Fits a plan to a checkpoint: moves layers to another scheme until the goal is met, at the least cost.

The starting point is the plan of ``plan.py``. What a layer adds to the error of the network's output is estimated from
two measurements: the error that quantizing adds to the layer's own output (``scales``), and how far the network's
output moves with it (``judge.sensitivity``). The few layers that add much and compute little become float in any case;
then, while the goal is not met, those that add most for their arithmetic. Layers that a rule keeps float, but allows to
be quantized, become INT8 if the goal is met with them. What was really reached is measured afterwards, and corrects the
estimate.

The cost of a layer is its share of the arithmetic, not its milliseconds: these depend on processor, engine and load,
and the same checkpoint would get another plan on another machine. An estimate from the rates of a large product was
up to 19 times too large for small layers, and had the wrong sign on one engine (bench/LOG.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nano_export.quantize.plan import Rule, Scheme, rule_for
from nano_export.quantize.scales import LayerError

__all__ = [
    "UNEXPLAINED",
    "Candidate",
    "Change",
    "Gradients",
    "candidates",
    "factor_of",
    "fit",
    "predicted_db",
    "with_changes",
]

Gradients: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Path of a module -> mean squared gradient of each of its output channels; see ``judge.sensitivity``."""

UNEXPLAINED = 2.5
"""Error that was measured over error that was predicted, on the demo (bench/LOG.md)."""
_MARGIN = 0.8  # of the error that the goal allows, to be used by the prediction
_LEAST_SHARE = 0.002  # of the error; a layer that adds less is not worth a change
_MOST_FLOAT = 0.06  # of the arithmetic that may become float, so that no network becomes slow without being asked
# A layer's share of the error over its share of the arithmetic: such layers become float in any case, until they do a
# share of the arithmetic. In a network that runs once, the error is what the layers before have left of it: with the
# error at first, a rotated demo (seed 31) had one layer less than the demo, whose share was 8 % instead of 9 %, and its
# text encoder was 1.8 dB worse (bench/LOG.md).
_BARGAIN = 20.0
_MOST_BARGAINS = 0.015


@dataclass(frozen=True)
class Candidate:
    """A layer that the search may move.

    Attributes:
        layer: its name.
        scheme: by the rules.
        error: mean squared error that its INT8 form adds to each number of the network's output.
        macs: multiply-accumulates of a call.
    """

    layer: str
    scheme: Scheme
    error: float
    macs: int


@dataclass(frozen=True)
class Change:
    """A layer that gets another scheme than the plan's.

    Attributes:
        layer: its name.
        scheme: the new one.
        reason: for people.
        share: of the network's arithmetic that the layer does, products of two activations left out.
    """

    layer: str
    scheme: Scheme
    reason: str
    share: float


def candidates(
    rules: tuple[Rule, ...], errors: Mapping[str, LayerError], macs: Mapping[str, int], gradients: Gradients, size: int
) -> list[Candidate]:
    """Return all layers that can be moved, with the error that each adds.

    Args:
        rules: of the component.
        errors: of each layer, if it is quantized.
        macs: of each layer.
        gradients: of the network's output.
        size: numbers in the output.
    """
    found = []
    for layer, error in errors.items():
        rule, squares = rule_for(rules, layer), _squares_of(layer, gradients)
        if rule is None or squares is None or (rule.scheme == "float" and not rule.movable):
            continue
        added = float((squares[error.columns] * error.squared).mean()) * len(squares) / size
        found.append(Candidate(layer, rule.scheme, added, macs[layer]))
    return found


def predicted_db(layers: Sequence[Candidate], changes: Sequence[Change], peak: float) -> float:
    """Return the predicted PSNR of the network's output, in dB.

    Args:
        layers: that can be moved.
        changes: to the plan.
        peak: range of the output.
    """
    moved = {change.layer: change.scheme for change in changes}
    noise = sum(layer.error for layer in layers if moved.get(layer.layer, layer.scheme) == "w8a8")
    return float(10 * np.log10(peak**2 / max(noise, 1e-30)))


def factor_of(layers: Sequence[Candidate], changes: Sequence[Change], peak: float, reached_db: float) -> float:
    """Return the error that was measured over the error that was predicted.

    Args:
        layers: that can be moved.
        changes: that were made.
        peak: range of the output.
        reached_db: PSNR that was measured with them.
    """
    return float(10 ** ((predicted_db(layers, changes, peak) - reached_db) / 10))


def fit(
    layers: Sequence[Candidate],
    goal_db: float,
    peak: float,
    factor: float = UNEXPLAINED,
    price: float = 1.0,
) -> list[Change]:
    """Return the changes to the plan that should reach a goal.

    Args:
        layers: that can be moved; their arithmetic is all that counts.
        goal_db: PSNR of the network's output.
        peak: range of the output.
        factor: error that is measured over error that is predicted; see ``factor_of``.
        price: of the arithmetic: 1 for a network that runs in every step, less for one that runs once.
    """
    allowed = _MARGIN * peak**2 / 10 ** (goal_db / 10) / max(factor, 1e-6)
    total = sum(layer.macs for layer in layers)
    noise = begun = sum(layer.error for layer in layers if layer.scheme == "w8a8")
    changes: list[Change] = []
    floats = 0
    for layer in sorted((one for one in layers if one.scheme == "w8a8"), key=lambda one: -one.error / max(one.macs, 1)):
        done = floats + layer.macs
        left = noise if price < 1 else begun
        bargain = layer.error * total > _BARGAIN * price * left * layer.macs and price * done <= _MOST_BARGAINS * total
        needed = noise > allowed and layer.error >= _LEAST_SHARE * noise and price * done <= _MOST_FLOAT * total
        if bargain or needed:
            reason = f"{100 * layer.error / begun:.0f} % of the network's error"
            changes.append(Change(layer.layer, "float", reason, layer.macs / total))
            noise -= layer.error
            floats = done
    spare = sorted((one for one in layers if one.scheme == "float"), key=lambda one: one.error / max(one.macs, 1))
    for layer in spare:
        if noise + layer.error <= allowed:
            noise += layer.error
            changes.append(Change(layer.layer, "w8a8", "the goal is met with it, too", layer.macs / total))
    return changes


def with_changes(rules: tuple[Rule, ...], changes: Sequence[Change]) -> tuple[Rule, ...]:
    """Return rules that try the changes first; how a layer is written as a product stays as it was."""
    moved = []
    for change in changes:
        rule = rule_for(rules, change.layer)
        moved.append(Rule(change.layer, change.scheme, change.reason, 0 if rule is None else rule.product_up_to))
    return (*moved, *rules)


def _squares_of(layer: str, gradients: Gradients) -> NDArray[np.float64] | None:
    """Return the gradients of a layer of the graph, which ``networks`` may have split; None for an unknown one."""
    path = layer.partition("/")[0]
    if path in gradients:
        return gradients[path]
    before, _, half = path.rpartition(".net.0.")
    if half in {"value", "gate"} and (both := gradients.get(f"{before}.net.0.proj")) is not None:
        return np.split(both, 2)[half == "gate"]
    before, found, _ = path.partition(".phases.")
    whole = gradients.get(f"{before}.conv")
    return whole / 4 if found and whole is not None else None  # a phase makes every fourth pixel
