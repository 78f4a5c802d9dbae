"""The adoption from top to bottom: folder -> graphs fitted and written -> small files -> trial -> bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

from nano_export.adoption.fitting import Fitted, Sizes, fit, sizes_of, task_for
from nano_export.adoption.folder import GraphFolder, open_folder
from nano_export.adoption.ir_graph import IrGraph
from nano_export.adoption.onnx_graph import OnnxGraph
from nano_export.adoption.tensors import ForeignGraph
from nano_export.adoption.tokenizer import ClipTokenizer, clip_tokenizer
from nano_export.bundle.card import card_of
from nano_export.bundle.facts import LICENCE, ORIGINAL_CARD, Contents
from nano_export.bundle.publish import staged
from nano_export.errors import AdoptionError
from nano_export.judge.prompts import prompts_for
from nano_export.progress import Progress
from nano_export.source.card import parameter, read_card
from nano_export.source.licences import licence_of
from nano_export.source.scheduler import config_file, scheduler_of
from nano_runtime.bundle.checksums import entry_of
from nano_runtime.bundle.graph_files import IR, ONNX, GraphFormat
from nano_runtime.bundle.manifest import (
    FORMAT_VERSION,
    Backend,
    Component,
    Graph,
    Licence,
    Manifest,
    Source,
    TokenizerSpec,
)
from nano_runtime.bundle.reading import write_manifest
from nano_runtime.bundle.wiring import UNET, VAE_ENCODER
from nano_runtime.errors import BundleError, NanoError
from nano_runtime.errors.escaping import first_line
from nano_runtime.system.files import MACHINE_ERRNOS, paths_below
from nano_runtime.verify.checks import verify_bundle

__all__ = ["Adopted", "adopt"]

_GUIDANCE_SCALE, _SCALING_FACTOR = 7.5, 0.18215  # diffusers', where no card and no config names one
_ENGINES: Mapping[str, Backend] = {ONNX.tag: "onnxruntime", IR.tag: "openvino"}
_TOOLS: Mapping[GraphFormat, str] = {ONNX: "onnx-ir", IR: "openvino"}


@dataclass(frozen=True)
class Adopted:
    """The bundle is in place.

    Attributes:
        path: its folder.
        backend: the engine that it serves.
        size_bytes: of all files but the manifest.
        notes: what the bundle cannot do that the folder could, a line each.
    """

    path: Path
    backend: Backend
    size_bytes: int
    notes: tuple[str, ...]


def adopt(source: Path, output: Path, *, size: int | None = None, force: bool = False) -> Iterator[Progress | Adopted]:
    """Make a bundle of a folder that optimum, optimum-intel or diffusers exported.

    Weights and arithmetic stay as they are. The bundle gets a manifest, checksums and ``tokenizer.json``; its graphs
    get a fixed picture size.

    Args:
        source: the folder.
        output: the folder to create.
        size: width and height of the pictures in pixels, for graphs that can draw several; None for the config's.
        force: whether an existing bundle is replaced.

    Yields:
        Progress, and at the end the one Adopted.

    Raises:
        UsageError: the folder cannot be adopted; nothing was written.
        MachineError: the disk does not suffice.
    """
    found = open_folder(source)
    tokenizer = clip_tokenizer(source / "tokenizer")
    with staged(output, force=force) as folder:
        yield Progress("reading the graphs", 0.0)
        graphs = {name: _read(found, name) for name in found.graphs}
        with _in_words(source, "its graphs and configs do not fit each other"):
            sizes = sizes_of(found, graphs, tokenizer.length, size)
            task = task_for(found, sizes)
            contents = _contents(found, sizes, tokenizer, scheduler_of(source, task))
        notes: list[str] = []
        if VAE_ENCODER in graphs and not graphs[VAE_ENCODER].take_moments(graphs[VAE_ENCODER].outputs[0].name):
            del graphs[VAE_ENCODER]
            notes.append("its encoder draws noise of its own, so the bundle cannot start from pictures")
        if VAE_ENCODER not in graphs and task != "text-to-image":
            raise AdoptionError(source, f"{task} needs an encoder that the runtime can seed")
        components = {}
        for index, name in enumerate(found.graphs):
            if name not in graphs:
                continue
            yield Progress(f"writing {name}", 0.1 + 0.6 * index / len(found.graphs))
            with _in_words(found.graphs[name], "it cannot be rewritten"):
                fitted = fit(found, name, graphs[name], sizes)
                graphs.pop(name).write(folder / name)
            components[name] = _component(folder, name, fitted, found.format)
        yield Progress("writing the manifest", 0.7)
        _write_small_files(folder, source, tokenizer, contents)
        manifest = _manifest(found, contents, components)
        manifest = msgspec.structs.replace(manifest, task=task)
        (folder / "README.md").write_bytes(card_of(manifest, contents).encode())
        files = sorted(path for path in paths_below(folder) if path.is_file())
        manifest = msgspec.structs.replace(manifest, files=[entry_of(folder, path) for path in files])
        write_manifest(folder, manifest)
        yield Progress("trying it", 0.8)
        _try(folder, source)
        yield Progress("putting the bundle in place", 0.99)
    backend = manifest.backends[0]
    yield Adopted(output, backend, sum(entry.size for entry in manifest.files), tuple(notes))


def _read(found: GraphFolder, name: str) -> ForeignGraph:
    """Read a graph.

    Raises:
        AdoptionError: its library cannot, or it has no inputs or outputs.
    """
    with _in_words(found.graphs[name], "it cannot be read"):
        graph: ForeignGraph = (OnnxGraph if found.format == ONNX else IrGraph)(found.graphs[name])
        if graph.inputs and graph.outputs:
            return graph
    raise AdoptionError(found.graphs[name], "it has no inputs or no outputs")


@contextmanager
def _in_words(where: Path, why: str) -> Iterator[None]:
    """Say of what a foreign file is the fault: libraries raise many kinds of errors for files they do not expect.

    Raises:
        AdoptionError: something else than the machine or a refusal of ours ended the block.
    """
    try:
        yield
    except (NanoError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS:  # a full disk, for example
            raise
        raise AdoptionError(where, f"{why} ({type(error).__name__}: {first_line(error)})") from error


def _component(folder: Path, name: str, fitted: Fitted, form: GraphFormat) -> Component:
    """Describe a graph that was written."""
    model, weights = (folder / name / file for file in form.files())
    return Component(
        precision=fitted.precision,
        inputs=fitted.inputs,
        outputs=fitted.outputs,
        graphs={
            _ENGINES[form.tag]: Graph(
                model=model.relative_to(folder).as_posix(),
                weights=weights.relative_to(folder).as_posix() if weights.is_file() else None,
                inputs=None if fitted.own_inputs == fitted.inputs else fitted.own_inputs,
                outputs=None if fitted.own_outputs == fitted.outputs else fitted.own_outputs,
            )
        },
    )


def _contents(found: GraphFolder, sizes: Sizes, tokenizer: ClipTokenizer, scheduler: dict[str, object]) -> Contents:
    """Collect the facts that the manifest and the card state."""
    card, name = read_card(found.path), found.path.resolve().name
    licence, asked = licence_of(found.path, card, name), parameter(card, "guidance_scale")
    return Contents(
        name=name,
        source=Source(model=name, revision=None),
        licence=Licence(id=licence.id, file=LICENCE),
        licence_text=licence.text,
        example=prompts_for(card).judge[0],
        has_card=card is not None,
        loras=[],
        embeddings=[],
        image_size=sizes.pixels,
        latent_shape=sizes.latents,
        scaling_factor=float(found.vae("scaling_factor", _SCALING_FACTOR)),
        tokenizer=TokenizerSpec(
            file="tokenizer/tokenizer.json",
            length=sizes.length,
            pad_id=tokenizer.pad_id,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            embeddings=tokenizer.words,
        ),
        scheduler=scheduler,
        guidance_scale=_GUIDANCE_SCALE if asked is None else asked,
    )


def _write_small_files(folder: Path, source: Path, tokenizer: ClipTokenizer, contents: Contents) -> None:
    """Write tokenizer, scheduler, licence and the original's card; keep the configs that other libraries read."""
    (folder / "tokenizer").mkdir()
    (folder / contents.tokenizer.file).write_text(tokenizer.encoder.to_str(pretty=True), encoding="utf-8")
    (folder / "scheduler").mkdir()
    text = json.dumps(config_file(contents.scheduler), indent=2)
    (folder / "scheduler/scheduler_config.json").write_text(text + "\n", encoding="utf-8")
    (folder / LICENCE).write_bytes(contents.licence_text.encode())
    if contents.has_card:
        (folder / ORIGINAL_CARD).write_bytes((source / "README.md").read_bytes())


def _manifest(found: GraphFolder, contents: Contents, components: dict[str, Component]) -> Manifest:
    """Return the manifest without its list of files."""
    return Manifest(
        format_version=FORMAT_VERSION,
        name=contents.name,
        source=contents.source,
        licence=contents.licence,
        graph="standard",
        precision=components[UNET].precision,
        exporter=found.exporter,
        backends=[_ENGINES[found.format.tag]],
        image_size=contents.image_size,
        latent_shape=contents.latent_shape,
        scaling_factor=contents.scaling_factor,
        tokenizer=contents.tokenizer,
        scheduler=contents.scheduler,
        guidance_scale=contents.guidance_scale,
        components=components,
        fidelity={},
        versions={tool: version(tool) for tool in ("nano-export", "nano-runtime", _TOOLS[found.format])},
        options={"adopt": found.path.name, "size": contents.image_size[1]},
        files=[],
    )


def _try(folder: Path, source: Path) -> None:
    """Check the bundle as its readers do, and run every graph, so that nothing is published that does not run.

    Raises:
        AdoptionError: it does not.
    """
    try:
        faults = verify_bundle(folder, deep=True).faults
    except BundleError as error:
        faults = (error,)
    if faults:
        raise AdoptionError(source, f"the bundle that was made of it does not run: {first_line(faults[0])}")
