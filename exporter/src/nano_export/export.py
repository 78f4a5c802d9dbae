"""The export from top to bottom: checkpoint -> pictures of the original -> graphs -> INT8 -> comparison -> bundle."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import onnx_ir as ir

from nano_export.bundle.publish import staged
from nano_export.bundle.writer import (
    Contents,
    component_entry,
    describe,
    ir_path,
    manifest_of,
    onnx_path,
    write_small_files,
)
from nano_export.choose.presets import choose_presets
from nano_export.choose.preview_matrix import fit_preview
from nano_export.choose.sampler import choose_default
from nano_export.graph.shallow_unet import write_shallow
from nano_export.graph.to_onnx import to_onnx
from nano_export.graph.to_openvino import write_ir
from nano_export.judge.fidelity import Scores, judge, require_parity
from nano_export.judge.original import Reference, draw_references
from nano_export.judge.prompts import Prompts, prompts_for
from nano_export.networks.graph_sources import GraphForm, GraphSource, graph_sources, latent_shape
from nano_export.quantize import (
    INT8_PLAN,
    Range,
    calibrate,
    join_attention,
    join_biases,
    lower_convolutions,
    quantize,
    tensors_to_calibrate,
    write_watching_graph,
)
from nano_export.source.checkpoint import open_checkpoint
from nano_export.source.lora import merge
from nano_export.source.lora_file import LoraFile, open_lora
from nano_export.source.needs import check_resources
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend, Component, Default, Manifest, Preset
from nano_runtime.bundle.reading import write_manifest
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.files import paths_below
from nano_runtime.system.machine import usable_cores

__all__ = ["Exported", "Options", "Progress", "export"]

_JUDGE_STEPS = 10
_CALIBRATION_STEPS = 4  # twice as many: the same ranges to 0.2 dB, in twice the time (bench/LOG.md)


@dataclass(frozen=True)
class Options:
    """What to export, complete.

    Attributes:
        model: built-in name, folder or Hub id.
        output: folder to create.
        precision: of the weights and activations.
        backends: engines the bundle must serve.
        graph: hoisted (faster) or standard (diffusers' and optimum's inputs).
        compact: OpenVINO reads the ONNX graph too, instead of a graph of its own that loads faster.
        size: width and height of the pictures in pixels.
        loras: to merge into the weights.
        revision: of a Hub model.
        force: replace an existing bundle.
    """

    model: str
    output: Path
    precision: Literal["fp32", "int8"]
    backends: tuple[Backend, ...]
    graph: GraphForm
    compact: bool
    size: int
    loras: tuple[LoraFile, ...]
    revision: str | None
    force: bool


@dataclass(frozen=True)
class Progress:
    """Something begins: its name, and how far the export is, from 0 to 1."""

    stage: str
    done: float


@dataclass(frozen=True)
class Exported:
    """The bundle is in place."""

    path: Path
    scores: dict[Backend, Scores]
    size_bytes: int


def export(options: Options) -> Iterator[Progress | Exported]:
    """Export a model into a bundle; the caller shows the progress, closing the iterator cancels.

    Raises:
        UsageError: the model or an option cannot be used; raised before anything is written.
        MachineError: disk or memory do not suffice.
        NetworkError: the Hub could not be reached.
        ParityError: the result does not compute what the original does; nothing is left behind.
    """
    loras = [open_lora(file) for file in options.loras]
    with staged(options.output, force=options.force) as folder:
        work = folder / "work"
        needs = check_resources(options.model, options.output, options.precision, len(options.backends))
        disk, memory = needs.disk_bytes / 1e9, needs.memory_bytes / 1e9
        yield Progress(f"needs about {disk:.1f} GB of disk and {memory:.1f} GB of memory", 0.0)

        yield Progress(f"loading {options.model}", 0.01)
        checkpoint = open_checkpoint(options.model, options.revision)
        merge(checkpoint, loras)
        merged = [{"name": lora.file.path.name, "sha256": lora.sha256, "scale": lora.file.scale} for lora in loras]
        del loras
        contents = describe(checkpoint, latent_shape(checkpoint, options.size), options.size)
        tokens = contents.tokenizer.length
        write_small_files(folder, checkpoint, options.graph)

        prompts = prompts_for(checkpoint.card)
        references: list[Reference] = []
        for prompt in prompts.judge:
            yield Progress(f"drawing “{prompt}” with the original", 0.05 + 0.1 * len(references))
            references += draw_references(checkpoint, [prompt], _JUDGE_STEPS, contents.guidance_scale, options.size)
        contents = replace(contents, preview=fit_preview(references))

        components: dict[str, Component] = {}
        for index, source in enumerate(graph_sources(checkpoint, options.graph, options.size)):
            yield Progress(f"tracing {source.component}", 0.25 + 0.03 * index)
            model = _traced(source, options.precision)
            components[source.component] = component_entry(model, options.precision, options.backends, tokens)
            _save(model, work / source.component)
            source.module.to("meta")  # its weights are on the disk now
            del source, model
        del checkpoint
        gc.collect()

        if options.precision == "int8":
            yield from _to_int8(work, folder, contents, components, prompts)
        else:
            for name in components:
                _move_files(work / name, folder / name)
        shutil.rmtree(work, ignore_errors=True)
        if options.graph == "hoisted":
            for name, model in zip(("unet", "unet_shallow"), write_shallow(folder / "unet"), strict=True):
                components[name] = component_entry(model, options.precision, options.backends, tokens)
        yield from _to_openvino(folder, components, options)
        _to_onnxruntime(folder, components, options)

        scores: dict[Backend, Scores] = {}
        asked = {name: getattr(options, name) for name in ("precision", "backends", "graph", "compact", "size")}
        asked["loras"] = merged
        write_manifest(folder, manifest_of(folder, contents, components, scores, asked))
        for index, backend in enumerate(options.backends):
            yield Progress(f"comparing {backend} with the original", 0.88 + 0.035 * index)
            scores[backend] = judge(folder, backend, references)
            require_parity(scores[backend], options.precision, backend)
        manifest = manifest_of(folder, contents, components, scores, asked)
        write_manifest(folder, manifest)
        yield from _with_choices(folder, manifest, prompts)
        yield Progress("putting the bundle in place", 0.99)
    yield Exported(options.output, scores, sum(entry.size for entry in manifest.files))


def _traced(source: GraphSource, precision: Literal["fp32", "int8"]) -> ir.Model:
    """Return a component's float graph, in the form that is going to be quantized if it is."""
    model = to_onnx(source.module, source.inputs, source.input_names, source.output_names)
    if precision == "int8":
        lower_convolutions(model, INT8_PLAN[source.component])
    return model


def _to_int8(
    work: Path, folder: Path, contents: Contents, components: dict[str, Component], prompts: Prompts
) -> Iterator[Progress]:
    """Watch the float graphs draw, then write the INT8 graphs."""
    watched: dict[str, list[str]] = {}
    for name in components:
        path = work / name / "model.onnx"
        watched[name] = tensors_to_calibrate(ir.load(path), INT8_PLAN[name])
        plain = path.rename(work / name / "plain.onnx")
        write_watching_graph(plain, watched[name], path)
    for path in (folder / "tokenizer", folder / "LICENSE"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, work / path.name)
    tokens = contents.tokenizer.length
    float_components = {
        name: component_entry(ir.load(work / name / "plain.onnx"), "fp32", ("onnxruntime",), tokens)
        for name in components
    }
    write_manifest(work, manifest_of(work, contents, float_components, {}, {}))
    ranges: dict[str, dict[str, Range]] = {}
    for done, so_far in calibrate(work, watched, prompts.calibration, _CALIBRATION_STEPS):
        yield Progress(f"calibrating on {len(prompts.calibration)} pictures", 0.45 + 0.2 * done)
        ranges = so_far
    for index, name in enumerate(components):
        yield Progress(f"quantizing {name}", 0.65 + 0.015 * index)
        model = ir.load(work / name / "plain.onnx")
        quantize(model, INT8_PLAN[name], ranges[name])
        backends = tuple(components[name].graphs)
        components[name] = component_entry(model, "int8", backends, tokens)  # its work is int8 now
        _save(model, folder / name)
        del model
        gc.collect()  # a graph is a web of references, and holds its mapped weights until it is found


def _to_openvino(folder: Path, components: Iterable[str], options: Options) -> Iterator[Progress]:
    """Convert the graphs if OpenVINO is to have its own, and remove the ONNX form if nobody else reads it."""
    if "openvino" not in options.backends or options.compact:
        return
    for index, name in enumerate(components):
        yield Progress(f"converting {name} for openvino", 0.75 + 0.018 * index)
        write_ir(onnx_path(folder, name), ir_path(folder, name))
    if options.backends == ("openvino",):
        for path in [path for path in paths_below(folder) if ".onnx" in path.suffixes]:
            path.unlink()


def _to_onnxruntime(folder: Path, components: Iterable[str], options: Options) -> None:
    """Write the INT8 graphs as onnxruntime runs them best, if nobody else reads the ONNX form."""
    shared = options.compact and "openvino" in options.backends
    if options.precision == "int8" and "onnxruntime" in options.backends and not shared:
        for name in components:
            model = ir.load(onnx_path(folder, name))
            join_biases(model)
            join_attention(model)
            ir.save(model, onnx_path(folder, name))


def _with_choices(folder: Path, manifest: Manifest, prompts: Prompts) -> Iterator[Progress]:
    """Measure samplers and cheaper steps on this checkpoint's pictures, and write the manifest again with the best."""
    if "unet_shallow" not in manifest.components:
        return
    stages = LoadedGraphs(
        Bundle.open(folder), manifest.backends[0], EngineOptions(threads=usable_cores(), precision="f32")
    )
    pipeline = Pipeline(stages, keep_loaded=True)
    default: Default | None = None
    for done, measured in choose_default(pipeline, prompts.judge):
        yield Progress("measuring samplers", 0.95 + 0.02 * done)
        default = measured
    presets: dict[Literal["balanced", "fast"], Preset] = {}
    for done, chosen in choose_presets(pipeline, default, prompts.judge):
        yield Progress("measuring cheaper steps", 0.97 + 0.02 * done)
        presets = chosen
    stages.close()
    write_manifest(folder, msgspec.structs.replace(manifest, default=default, presets=presets))


def _move_files(source: Path, target: Path) -> None:
    """Move files into a folder, where in the standard form the network's config lies already."""
    target.mkdir(exist_ok=True)
    for path in source.iterdir():
        path.rename(target / path.name)


def _save(model: ir.Model, folder: Path) -> None:
    """Write ``model.onnx`` and one external data file."""
    folder.mkdir(parents=True, exist_ok=True)
    ir.save(model, folder / "model.onnx", external_data="model.onnx.data")
