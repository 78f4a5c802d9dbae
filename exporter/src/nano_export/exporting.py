"""The export from top to bottom: checkpoint -> pictures of the original -> graphs -> INT8 -> comparison -> bundle.

The module is not called ``export``: the package has a function of that name.
"""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
from torch.onnx.errors import OnnxExporterError

from nano_export.bundle.contents import describe, write_small_files
from nano_export.bundle.facts import Contents
from nano_export.bundle.publish import staged
from nano_export.bundle.writer import BundleWriter, ir_path, onnx_path
from nano_export.choose.presets import PresetName, choose_presets
from nano_export.choose.preview_matrix import fit_preview
from nano_export.choose.sampler import choose_default
from nano_export.errors import QuantizerMissingError, UntraceableError
from nano_export.graph.inputs import take_scalar
from nano_export.graph.shallow_unet import write_shallow
from nano_export.graph.to_onnx import to_onnx
from nano_export.graph.to_openvino import write_ir
from nano_export.judge.fidelity import (
    Scores,
    goals_for,
    judge,
    require_goal,
    require_parity,
    require_resemblance,
)
from nano_export.judge.original import Reference, draw_references, preview_probe
from nano_export.judge.pictures import calls_for
from nano_export.judge.prompts import prompts_for
from nano_export.judge.sensitivity import Sensitivity, sensitivities
from nano_export.networks.graph_sources import GraphSource, UNetForm, graph_sources, preview_source, unet_form
from nano_export.options import Options
from nano_export.progress import Progress, progress
from nano_export.quantize import PLANS, join_attention, join_biases, lower_convolutions, nncf_is_installed
from nano_export.quantizing import quantize_graphs, quantize_graphs_with_nncf
from nano_export.source.adapters.embedding import Embedding, add_embeddings, open_embedding, words_of_one_vector
from nano_export.source.adapters.lora import merge
from nano_export.source.adapters.lora_file import Lora, open_loras
from nano_export.source.autoencoders import Autoencoder
from nano_export.source.checkpoint import Checkpoint, load, preview_autoencoder, with_autoencoder
from nano_export.source.needs import check_resources
from nano_export.source.place import Place, fetched, find_model
from nano_export.source.scheduler import JUDGE_STEPS, check_whole_timesteps
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend, Change, Default, Preset
from nano_runtime.bundle.wiring import PREVIEW_DECODER, TIMESTEP, UNET, UNET_SHALLOW, WIRING
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors.escaping import escaped, first_line
from nano_runtime.options import DrawOptions
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.files import paths_below
from nano_runtime.system.processors import usable_cores

__all__ = ["Exported", "export"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """The bundle is in place.

    Attributes:
        path: its folder.
        scores: distances to the original, on each engine.
        size_bytes: of all files but the manifest.
        changes: layers that this checkpoint needs in another scheme than the plan's.
    """

    path: Path
    scores: dict[Backend, Scores]
    size_bytes: int
    changes: Sequence[Change] = ()


def export(options: Options) -> Iterator[Progress | Exported]:
    """Export a model into a bundle; the caller shows the progress, and cancels by closing the iterator.

    Yields:
        Progress when a stage begins or goes on, and at the end the one Exported.

    Raises:
        UsageError: the model or an option cannot be used; nothing was written.
        MachineError: disk or memory do not suffice.
        NetworkError: the Hub could not be reached.
        ParityError: the bundle does not compute what the original computes; nothing is left behind.
        GoalError: INT8 falls short of its goal, and ``options.strict`` forbids that; nothing is left behind.
    """
    _require_quantizer(options)
    loras = [lora for given in options.loras for lora in open_loras(given)]
    embeddings = [open_embedding(given) for given in options.embeddings]
    with staged(options.output, force=options.force) as folder:
        checkpoint = yield from _load(options, loras, embeddings)
        preview = preview_autoencoder(checkpoint, options.preview_vae)
        contents = describe(checkpoint, options, loras, embeddings)
        form = unet_form(checkpoint, options.graph, contents.image_size[0])
        if options.graph == "standard":
            check_whole_timesteps(contents.scheduler)
        contents = replace(contents, not_hoisted=form.not_hoisted)
        del loras, embeddings
        work = folder / "work" if options.precision == "int8" else folder  # of the float graphs
        for place in dict.fromkeys((folder, work)):  # before drawing, which leaves its mark on the tokenizer
            write_small_files(place, checkpoint, options.graph)
        options = _with_form(options, form)

        prompts = prompts_for(checkpoint.card)
        references = yield from _draw_original(checkpoint, prompts.judge, contents)
        contents = replace(contents, preview=fit_preview(references))

        bundle = floats = BundleWriter(folder, contents, options)
        if options.precision == "int8":
            floats = BundleWriter(work, contents, options.of_floats())
        moves = yield from _sensitivities(checkpoint, references, options)
        yield from _trace(checkpoint, form, floats, options, contents.image_size[0])
        del checkpoint
        gc.collect()

        if options.precision == "int8":
            calls = calls_for(prompts.calibration, contents.task, contents.image_size[0])
            yield from _quantize(floats, bundle, calls, references, moves, options)
            shutil.rmtree(work, ignore_errors=True)
        if preview is not None:
            references = _add_preview(bundle, preview, contents, references)
        if options.graph == "hoisted" and options.quantizer == "nano":
            for name, model in zip((UNET, UNET_SHALLOW), write_shallow(folder / UNET), strict=True):
                bundle.describe(name, model)
        yield from _convert(bundle, options)

        bundle.write({})
        scores = yield from _compare(folder, references, options)
        manifest = bundle.write(scores)
        if contents.default is not None:
            manifest = bundle.write(scores, default=contents.default)
        elif UNET_SHALLOW in manifest.components:
            calls = calls_for(prompts.judge, contents.task, contents.image_size[0])
            default, presets = yield from _choose(folder, options.backends[0], calls)
            manifest = bundle.write(scores, default=default, presets=presets)
        yield progress("publish", "putting the bundle in place")
    changes = () if manifest.quantization is None else tuple(manifest.quantization.changes)
    yield Exported(options.output, scores, sum(entry.size for entry in manifest.files), changes)


def _require_quantizer(options: Options) -> None:
    """Refuse a quantizer that is not installed.

    Raises:
        QuantizerMissingError: see above.
    """
    if options.quantizer == "nncf" and not nncf_is_installed():
        raise QuantizerMissingError


def _load(
    options: Options, loras: Sequence[Lora], embeddings: Sequence[Embedding]
) -> Generator[Progress, None, Checkpoint]:
    """Find and load the model, with another autoencoder, LoRAs and words if they were asked for."""
    found = yield from _find(options)
    yield progress("load", f"loading {options.model}", 0.2)
    checkpoint = with_autoencoder(load(found), options.vae)
    merge(checkpoint, loras)
    checkpoint = add_embeddings(checkpoint, embeddings)
    for word, written in words_of_one_vector(checkpoint):
        text = f"only the first vector of {word!r} will be drawn, as diffusers does; name it {written!r} to draw all"
        yield progress("load", text, 0.9)
    return checkpoint


def _find(options: Options) -> Generator[Progress, None, Place]:
    """Find the model, fetch it if it is on the Hub, and say what the export needs, as early as that is known."""
    place = find_model(options.model, options.revision, options.variant, options.single_file, options.vae)
    yield progress("load", check_resources(place, options).text)
    if place.remote is not None:
        yield progress("load", f"fetching {options.model}", 0.1)
        place = fetched(place)
        yield progress("load", check_resources(place, options).text, 0.2)
    if place.note is not None:
        yield progress("load", place.note, 0.2)
    return place


def _draw_original(
    checkpoint: Checkpoint, prompts: Sequence[str], contents: Contents
) -> Generator[Progress, None, list[Reference]]:
    """Draw with the checkpoint, before it is taken apart; return the pictures."""
    steps = JUDGE_STEPS if contents.default is None else contents.default.steps
    references: list[Reference] = []
    for index, prompt in enumerate(prompts):
        yield progress("draw", f"drawing “{prompt}” with the original", index / len(prompts))
        references += draw_references(checkpoint, [prompt], steps, contents.guidance_scale, contents.image_size[0])
    return references


def _sensitivities(
    checkpoint: Checkpoint, references: Sequence[Reference], options: Options
) -> Generator[Progress, None, dict[str, Sensitivity]]:
    """Measure how far each network's output moves with each of its layers, where a plan will be fitted by that."""
    found: dict[str, Sensitivity] = {}
    if options.precision != "int8" or options.quantizer != "nano":
        return found
    for name, sensitivity in sensitivities(checkpoint, references):
        yield progress("draw", f"finding the layers that matter most in {name}", 1.0)
        found[name] = sensitivity
    return found


def _with_form(options: Options, form: UNetForm) -> Options:
    """Return the options with the form that the UNet has; say so if another one was asked for."""
    if form.not_hoisted is not None:
        _log.warning("the UNet has %s, so it is not hoisted: it runs as diffusers runs it", escaped(form.not_hoisted))
    return replace(options, graph=form.graph)


def _trace(
    checkpoint: Checkpoint, form: UNetForm, floats: BundleWriter, options: Options, size: int
) -> Iterator[Progress]:
    """Write the float graphs, in the form that will be quantized if they will be; give up the weights in memory."""
    for index, source in enumerate(graph_sources(checkpoint, form, size)):
        yield progress("trace", f"tracing {source.component}", index / len(WIRING[options.graph]))
        model = _graph_of(source)
        if options.precision == "int8":
            lower_convolutions(model, PLANS[options.plan][source.component])
        floats.add(source.component, model)
        source.module.to("meta")  # its weights are on the disk now
        del source, model


def _graph_of(source: GraphSource) -> ir.Model:
    """Trace one network.

    Raises:
        UntraceableError: it has a part that cannot be written as a graph.
    """
    try:
        return to_onnx(source.module, source.inputs, source.input_names, source.output_names)
    except (ValueError, OnnxExporterError) as error:
        raise UntraceableError(source.component, first_line(error)) from error


def _quantize(  # noqa: PLR0917 (see ``quantize_graphs``)
    floats: BundleWriter,
    bundle: BundleWriter,
    calls: Sequence[DrawOptions],
    references: Sequence[Reference],
    moves: Mapping[str, Sensitivity],
    options: Options,
) -> Iterator[Progress]:
    """Compare the float graphs with the original, and write INT8 graphs by the quantizer that was asked for."""
    yield progress("check", "comparing the float graphs with the original")
    floats.write({})
    require_parity(judge(floats.folder, "onnxruntime", references[:1]), "onnxruntime")
    if options.quantizer == "nano":
        yield from quantize_graphs(floats, bundle, calls, references, moves, options)
    else:
        yield from quantize_graphs_with_nncf(floats, bundle, calls, options)


def _add_preview(
    bundle: BundleWriter, autoencoder: Autoencoder, contents: Contents, references: Sequence[Reference]
) -> list[Reference]:
    """Add the decoder for previews, in fp32: it is small already. Return the references with its pictures, too."""
    watched = [replace(one, probes=[*one.probes, preview_probe(autoencoder, one)]) for one in references]
    bundle.add(PREVIEW_DECODER, _graph_of(preview_source(autoencoder, contents.latent_shape)), "fp32")
    return watched


def _compare(
    folder: Path, references: Sequence[Reference], options: Options
) -> Generator[Progress, None, dict[Backend, Scores]]:
    """Compare the bundle with the original on every engine; return the distances."""
    scores: dict[Backend, Scores] = {}
    for index, backend in enumerate(options.backends):
        yield progress("compare", f"comparing {backend} with the original", index / len(options.backends))
        scores[backend] = judge(folder, backend, references)
        if options.precision == "fp32":
            require_parity(scores[backend], backend)
    if options.precision == "int8":
        require_resemblance(scores)
        require_goal(scores, goals_for(options.min_psnr), strict=options.strict)
    return scores


def _convert(bundle: BundleWriter, options: Options) -> Iterator[Progress]:
    """Write OpenVINO's own graphs; write the ONNX graphs as onnxruntime runs them fastest, or remove them if unused."""
    shared = options.compact and "openvino" in options.backends  # openvino reads the ONNX graphs, too
    if "openvino" in options.backends and not shared:
        for index, name in enumerate(bundle.components):
            yield progress("convert", f"converting {name} for openvino", index / len(bundle.components))
            if not ir_path(bundle.folder, name).exists():  # nncf's graphs are there already
                write_ir(onnx_path(bundle.folder, name), ir_path(bundle.folder, name))
        if "onnxruntime" not in options.backends:
            for path in [path for path in paths_below(bundle.folder) if ".onnx" in path.suffixes]:
                path.unlink()
    if "onnxruntime" in options.backends and not shared:
        _finish_onnx(bundle, options)


def _finish_onnx(bundle: BundleWriter, options: Options) -> None:
    """Rewrite ONNX graphs that no other engine reads: as onnxruntime runs them fastest, and as optimum calls them."""
    for name in bundle.components:
        model = ir.load(onnx_path(bundle.folder, name))
        if options.precision == "int8":
            join_biases(model)
            join_attention(model)
        if options.graph == "standard" and name == UNET and take_scalar(model, TIMESTEP):
            bundle.describe_inputs(name, "onnxruntime", model)
        ir.save(model, onnx_path(bundle.folder, name))


def _choose(
    folder: Path, backend: Backend, calls: Sequence[DrawOptions]
) -> Generator[Progress, None, tuple[Default | None, dict[PresetName, Preset]]]:
    """Draw with the bundle; return the sampler and steps that it draws with by default, and its presets."""
    graphs = LoadedGraphs(Bundle.open(folder), backend, EngineOptions(threads=usable_cores(), precision="f32"))
    pipeline = Pipeline(graphs, keep_loaded=True)
    default: Default | None = None
    for done, measured in choose_default(pipeline, calls):
        yield progress("sampler", "measuring samplers", done)
        default = measured
    presets: dict[PresetName, Preset] = {}
    for done, chosen in choose_presets(pipeline, default, calls):
        yield progress("presets", "measuring cheaper steps", done)
        presets = chosen
    graphs.close()
    return default, presets
