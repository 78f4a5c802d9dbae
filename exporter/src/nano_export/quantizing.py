"""From float graphs to INT8 graphs: watch them draw, choose scales and ranges, fit the plan, write, measure."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx_ir as ir

from nano_export.bundle.writer import BundleWriter, ir_path, onnx_path
from nano_export.errors import ParityError
from nano_export.graph.shallow_unet import FEATURE, write_shallow
from nano_export.graph.to_openvino import cut_ir, save_ir
from nano_export.judge.fidelity import goals_for, judge_components
from nano_export.judge.original import Reference
from nano_export.judge.sensitivity import Sensitivity
from nano_export.options import Options
from nano_export.progress import Progress, progress
from nano_export.quantize import (
    PLANS,
    Change,
    Recorder,
    Rule,
    Seen,
    calibrate,
    candidates,
    divide_output,
    draw,
    first_fault,
    fit,
    macs_of_layers,
    prepare,
    quantize,
    quantize_with_nncf,
    recipe_for,
    schemes_of,
    tensors_to_calibrate,
    with_changes,
    write_watching_graph,
)
from nano_export.quantize.recipe import Recipe
from nano_export.quantize.search import Candidate, factor_of
from nano_runtime.arrays import F32
from nano_runtime.bundle import manifest
from nano_runtime.bundle.wiring import TEXT_ENCODER, UNET, UNET_PROMPT, UNET_SHALLOW
from nano_runtime.options import DrawOptions

__all__ = ["quantize_graphs", "quantize_graphs_with_nncf"]

_CALIBRATION_STEPS = 4  # twice as many: the same ranges to 0.2 dB, in twice the time (bench/LOG.md)
_PLAIN = "plain.onnx"  # the float graph, while a watching graph has its name
_PRICES = {TEXT_ENCODER: 0.1}  # of arithmetic: it runs once, and its error stays in every step
_ROUNDS = 3  # of writing and measuring; a plan that still falls short then is kept, and the user is told
_SPARE_DB = 3.0  # above a goal: float layers that may be quantized are worth another try


@dataclass
class _Component:
    """One graph on its way to INT8.

    Attributes:
        rules: of the plan.
        recipe: scales and ranges.
        layers: that the search may move; none without a goal.
        changes: that it made.
        safe: changes with which the goal was met, while others that cost less are tried.
        factor: of the plan that was tried last, and whether that met the goal.
        inputs: scales by which other graphs have to divide their outputs for this one.
        scalings: activations that were divided.
    """

    rules: tuple[Rule, ...]
    recipe: Recipe
    layers: Sequence[Candidate] = ()
    changes: list[Change] = field(default_factory=list)
    safe: list[Change] | None = None
    factor: tuple[float, bool] | None = None
    inputs: Mapping[str, F32] = field(default_factory=dict)
    scalings: int = 0


def quantize_graphs(  # noqa: PLR0917 (both bundles, and all that is known of the original)
    floats: BundleWriter,
    bundle: BundleWriter,
    calls: Sequence[DrawOptions],
    references: Sequence[Reference],
    sensitivities: Mapping[str, Sensitivity],
    options: Options,
) -> Iterator[Progress]:
    """Write INT8 graphs into a bundle, by a plan that fits this checkpoint.

    Args:
        floats: the bundle of float graphs, which were compared with the original; used up.
        bundle: to write into.
        calls: that calibration draws.
        references: pictures of the original, with what went in and out of each network.
        sensitivities: of each network.
        options: plan and goals.

    Raises:
        ParityError: a graph is not its float graph on other grids.
    """
    plan, goals = PLANS[options.plan], goals_for(options.min_psnr)
    seen: Mapping[str, Mapping[str, Seen]] = {}
    watched = _watch(floats, {name: plan[name] for name in floats.components})
    pictures = sum(len(call.prompt) for call in calls)
    for done, so_far in calibrate(floats.folder, watched, calls, _CALIBRATION_STEPS):
        yield progress("calibrate", f"calibrating on {pictures} pictures", done)
        seen = so_far

    names = sorted(floats.components, key=[UNET].count, reverse=True)  # the UNet says what unet_prompt has to divide
    parts: dict[str, _Component] = {}
    for index, name in enumerate(names):
        yield progress("quantize", f"choosing scales of {name}", 0.4 * index / len(names))
        model = ir.load(_plain(floats, name))
        parts[name] = part = _Component(plan[name], recipe_for(model, plan[name], seen[name]))
        if name in sensitivities and name in goals:
            macs, by = macs_of_layers(model, part.rules), sensitivities[name]
            part.layers = candidates(part.rules, part.recipe.errors, macs, by.squares, by.size)
            part.changes = fit(part.layers, goals[name], by.peak, price=_PRICES.get(name, 1.0))
        del model
        gc.collect()

    begun, stale, reached = 0.0, names, dict[str, float]()
    for turn in range(_ROUNDS):
        for index, name in enumerate(stale):
            yield progress("quantize", f"quantizing {name}", 0.4 + (0.5 if turn == 0 else 0.1) * index / len(stale))
            _write(floats, bundle, name, parts)
        begun = perf_counter() if turn == 0 else begun
        bundle.for_engines(("onnxruntime",)).write({})  # whatever the bundle will serve: its graphs are ONNX so far
        reached = judge_components(bundle.folder, "onnxruntime", references)
        if turn == _ROUNDS - 1:
            break
        stale = [name for name in names if _improve(parts[name], name, reached, goals, sensitivities)]
        if not stale:
            break
        if UNET in stale and UNET_PROMPT in parts:
            stale.append(UNET_PROMPT)
    for name in (name for name in names if _went_too_far(parts[name], name, reached, goals)):
        _write(floats, bundle, name, parts)
    _record(bundle, parts, perf_counter() - begun)


def quantize_graphs_with_nncf(
    floats: BundleWriter, bundle: BundleWriter, calls: Sequence[DrawOptions], options: Options
) -> Iterator[Progress]:
    """Write NNCF's INT8 graphs into a bundle, in OpenVINO's form.

    Args:
        floats: the bundle of float graphs, which were compared with the original; used up.
        bundle: to write into.
        calls: that calibration draws.
        options: the plan: layers that it keeps float stay float.
    """
    plan = PLANS[options.plan]
    manifest = floats.write({})
    recorder = Recorder({name: component.inputs for name, component in manifest.components.items()})
    for done in draw(floats.folder, calls, _CALIBRATION_STEPS, recorder.recording):
        yield progress("calibrate", f"recording {sum(len(call.prompt) for call in calls)} pictures", done)
    shallow = write_shallow(floats.folder / UNET)[1] if manifest.graph == "hoisted" else None
    for index, name in enumerate(floats.components):
        yield progress("quantize", f"quantizing {name} with nncf", index / len(floats.components))
        path = onnx_path(floats.folder, name)
        model = quantize_with_nncf(path, plan[name], recorder.kept.pop(name))
        _add_ir(bundle, name, model, ir.load(path))
        if name == UNET and shallow is not None:
            inputs = [str(value.name) for value in shallow.graph.inputs]
            _add_ir(bundle, UNET_SHALLOW, cut_ir(model, FEATURE, inputs), shallow)


def _watch(floats: BundleWriter, plan: Mapping[str, tuple[Rule, ...]]) -> dict[str, list[str]]:
    """Put watching graphs in the place of the float graphs; return the tensors that they watch."""
    watched: dict[str, list[str]] = {}
    for name, rules in plan.items():
        path = onnx_path(floats.folder, name)
        watched[name] = tensors_to_calibrate(ir.load(path), rules)
        write_watching_graph(path.rename(_plain(floats, name)), watched[name], path)
        floats.changed(path)
    floats.write({})
    return watched


def _write(floats: BundleWriter, bundle: BundleWriter, name: str, parts: Mapping[str, _Component]) -> None:
    """Write one INT8 graph.

    Raises:
        ParityError: a weight or an activation is elsewhere than the float graph and its ranges say.
    """
    part = parts[name]
    rules = with_changes(part.rules, part.changes)
    model, exact = (ir.load(_plain(floats, name)) for _ in range(2))
    for graph in (model, exact):
        if name == UNET_PROMPT:
            for output, scale in parts[UNET].inputs.items():
                divide_output(graph, output, scale)
        made = prepare(graph, part.rules, rules, part.recipe)
    quantize(model, rules, made.ranges, made.divided, made.multiplied)
    bundle.add(name, model)
    part.inputs, part.scalings = made.inputs, made.scalings
    del model
    fault = first_fault(ir.load(onnx_path(bundle.folder, name)), exact, made.ranges, made.divided, made.multiplied)
    if fault is not None:
        raise ParityError(f"the int8 {name}", fault, "its weights and ranges")
    del exact
    gc.collect()  # a graph is a web of references: it keeps its mapped weights until the collector finds it


def _improve(
    part: _Component,
    name: str,
    reached: Mapping[str, float],
    goals: Mapping[str, float],
    sensitivities: Mapping[str, Sensitivity],
) -> bool:
    """Fit the plan again where what was reached falls short or has much to spare; return whether it changed."""
    if not part.layers:
        return False
    met = reached[name] >= goals[name]
    moved = {change.layer for change in part.changes}
    if met and (
        reached[name] < goals[name] + _SPARE_DB
        or all(layer.scheme == "w8a8" or layer.layer in moved for layer in part.layers)
    ):
        return False
    peak = sensitivities[name].peak
    factor = factor_of(part.layers, part.changes, peak, reached[name])
    if part.factor is not None and part.factor[1] != met:  # one plan went too far, the other not far enough
        factor = (factor * part.factor[0]) ** 0.5
    part.factor = factor, met
    changes = fit(part.layers, goals[name], peak, factor, _PRICES.get(name, 1.0))
    if changes == part.changes:
        return False
    part.safe = part.changes if met else part.safe
    part.changes = changes
    return True


def _went_too_far(part: _Component, name: str, reached: Mapping[str, float], goals: Mapping[str, float]) -> bool:
    """Take changes back that lost the goal, if it was met with others; return whether that was so."""
    if part.safe is None or reached[name] >= goals[name]:
        return False
    part.changes = part.safe
    return True


def _record(bundle: BundleWriter, parts: Mapping[str, _Component], seconds: float) -> None:
    """Tell the bundle what was done."""
    changes = [
        manifest.Change(
            component=name, layer=change.layer, scheme=change.scheme, reason=change.reason, share=round(change.share, 6)
        )
        for name, part in parts.items()
        for change in part.changes
    ]
    bundle.record_search(changes, equalized=sum(part.scalings for part in parts.values()), seconds=seconds)


def _plain(floats: BundleWriter, name: str) -> Path:
    return onnx_path(floats.folder, name).with_name(_PLAIN)


def _add_ir(bundle: BundleWriter, name: str, model: Any, floats: ir.Model) -> None:  # noqa: ANN401 - openvino's
    """Write a quantized graph in OpenVINO's form, and describe it by its float graph."""
    path = ir_path(bundle.folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_ir(model, path)
    bundle.describe(name, floats, schemes=schemes_of(model, floats))
