"""Fills a folder with a bundle: graphs first, then the card, and last the manifest that describes all files."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import onnx_ir as ir

from nano_export.bundle.card import card_of
from nano_export.bundle.facts import Contents
from nano_export.choose.presets import PresetName
from nano_export.graph.mac_counts import work_of
from nano_export.judge.fidelity import Scores, goals_for
from nano_export.networks.graph_sources import tensor_specs
from nano_export.options import Options, Precision
from nano_runtime.bundle.checksums import entry_of
from nano_runtime.bundle.graph_files import FORMATS, IR, ONNX, GraphFormat
from nano_runtime.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Backend,
    Change,
    Component,
    Default,
    FileEntry,
    Graph,
    Manifest,
    Preset,
    Quantization,
    TensorSpec,
)
from nano_runtime.bundle.reading import write_manifest
from nano_runtime.bundle.wiring import UNET, UNET_SHALLOW
from nano_runtime.system.files import paths_below

__all__ = ["BundleWriter", "ir_path", "onnx_path"]

_TOOLS = (
    "nano-export",
    "nano-runtime",
    "torch",
    "diffusers",
    "transformers",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "openvino",
)
_CARD = "README.md"
_ASKED = ("precision", "backends", "graph", "compact")  # options that the manifest records
_WITHIN = {UNET_SHALLOW: UNET}  # ONNX finds weights beside the graph only, and this graph's are the UNet's


class BundleWriter:
    """A bundle in the making.

    ``add`` every graph, rewrite the files as needed, then ``write``. Files are final from the first ``write`` on,
    unless they are named as ``changed``: later ones, with scores or defaults that were measured meanwhile, compute
    only the card's checksums anew.

    Args:
        folder: of the bundle, with its small files in it.
        contents: facts about the checkpoint.
        options: precision and engines of the bundle; the manifest records them.
    """

    def __init__(self, folder: Path, contents: Contents, options: Options) -> None:
        self.folder = folder
        self._contents = contents
        self._options = options
        self._components: dict[str, Component] = {}
        self._own_inputs: dict[tuple[str, Backend], list[TensorSpec]] = {}
        self._entries: dict[Path, FileEntry] = {}
        self._changes: list[Change] = []
        self._equalized = 0
        self._search_s = 0.0

    @property
    def components(self) -> Sequence[str]:
        """Names of all graphs, in the order in which they were added."""
        return list(self._components)

    def add(self, name: str, model: ir.Model, precision: Precision | None = None) -> None:
        """Write a graph and its weights, and describe it.

        Args:
            name: of the component; one of that name is replaced.
            model: float or QDQ.
            precision: of the graph; None for the bundle's.
        """
        path = onnx_path(self.folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        ir.save(model, path, external_data=f"{path.name}.data")
        self.describe(name, model, precision)

    def describe(
        self,
        name: str,
        model: ir.Model,
        precision: Precision | None = None,
        schemes: Mapping[str, str] | None = None,
    ) -> None:
        """Describe a graph whose files are in the folder already; ``write`` finds out their names.

        Args:
            name: of the component.
            model: float or QDQ; its work is counted for prompts of one chunk.
            precision: of the graph; None for the bundle's.
            schemes: of nodes that another form of the graph quantizes; see ``graph.mac_counts``.
        """
        self._components[name] = Component(
            precision=self._options.precision if precision is None else precision,
            inputs=tensor_specs(model.graph.inputs),
            outputs=tensor_specs(model.graph.outputs),
            graphs={},
            work=work_of(model, self._contents.tokenizer.length, schemes),
        )

    def describe_inputs(self, name: str, backend: Backend, model: ir.Model) -> None:
        """Describe the inputs of one engine's graph, where they are not those of the component.

        Args:
            name: of the component, which is described already.
            backend: the engine.
            model: its graph, with its inputs in the order of the component's.
        """
        self._own_inputs[name, backend] = tensor_specs(model.graph.inputs)

    def record_search(self, changes: Sequence[Change], *, equalized: int, seconds: float) -> None:
        """Record what was done so that INT8 reaches its goal; the manifest and the card tell it.

        Args:
            changes: layers that were moved to another scheme than the plan's, in the order in which they were moved.
            equalized: number of places where scales were moved from activations into weights.
            seconds: that the search took.
        """
        self._changes, self._equalized, self._search_s = list(changes), equalized, seconds

    def changed(self, path: Path) -> None:
        """Have the next ``write`` compute the checksums of a file anew."""
        self._entries.pop(path, None)

    def for_engines(self, backends: tuple[Backend, ...]) -> BundleWriter:
        """Return a writer of the same files whose manifest names other engines: to measure what is not finished.

        Args:
            backends: engines that can read the files as they are now.
        """
        other = copy.copy(self)
        other._options = replace(self._options, backends=backends)  # noqa: SLF001 (of this class)
        other._entries = {}  # noqa: SLF001
        return other

    def write(
        self,
        scores: Mapping[Backend, Scores],
        *,
        default: Default | None = None,
        presets: Mapping[PresetName, Preset] | None = None,
    ) -> Manifest:
        """Write the card, then the manifest; return the manifest.

        Args:
            scores: distances to the original, of the engines that were compared.
            default: sampler and steps, once they were measured.
            presets: quality presets, once they were measured.
        """
        manifest = self._manifest(scores, default, {} if presets is None else presets)
        card = self.folder / _CARD
        card.write_bytes(card_of(manifest, self._contents).encode())
        self.changed(card)
        manifest = msgspec.structs.replace(manifest, files=self._files())
        write_manifest(self.folder, manifest)
        return manifest

    def _manifest(
        self, scores: Mapping[Backend, Scores], default: Default | None, presets: Mapping[PresetName, Preset]
    ) -> Manifest:
        """Return the manifest without its list of files."""
        contents, options = self._contents, self._options
        return Manifest(
            format_version=FORMAT_VERSION,
            name=contents.name,
            source=contents.source,
            licence=contents.licence,
            graph=options.graph,
            task=contents.task,
            precision=options.precision,
            quantization=self._quantization() if options.precision == "int8" else None,
            backends=list(options.backends),
            image_size=contents.image_size,
            latent_shape=contents.latent_shape,
            scaling_factor=contents.scaling_factor,
            tokenizer=contents.tokenizer,
            scheduler=contents.scheduler,
            guidance_scale=contents.guidance_scale,
            default=default,
            preview=contents.preview,
            components={
                name: msgspec.structs.replace(
                    component,
                    graphs={backend: self._graph(name, backend) for backend in options.backends},
                    fidelity=_component_fidelity(name, scores),
                )
                for name, component in self._components.items()
            },
            presets=dict(presets),
            fidelity=_picture_fidelity(scores),
            versions={tool: version(tool) for tool in _TOOLS},
            options={
                **{name: getattr(options, name) for name in _ASKED},
                "size": contents.image_size[0],
                "loras": contents.loras,
                "embeddings": contents.embeddings,
                **({} if contents.vae is None else {"vae": contents.vae}),
                **({} if contents.not_hoisted is None else {"not_hoisted": contents.not_hoisted}),
            },
            files=[],
        )

    def _quantization(self) -> Quantization:
        """Return how the INT8 graphs were made."""
        goals = goals_for(self._options.min_psnr)
        return Quantization(
            plan=self._options.plan,
            quantizer=self._options.quantizer,
            goal_db={name: goals[name] for name in self._components if name in goals},
            changes=self._changes,
            equalized=self._equalized,
            search_s=round(self._search_s, 1),
        )

    def _graph(self, name: str, backend: Backend) -> Graph:
        """Return the files and the own inputs of one graph."""
        graph = _graph(self.folder, name, backend)
        return msgspec.structs.replace(graph, inputs=self._own_inputs.get((name, backend)))

    def _files(self) -> list[FileEntry]:
        """Return the entries of all files but the manifest, sorted by path."""
        paths = sorted(path for path in paths_below(self.folder) if path.is_file() and path.name != MANIFEST_NAME)
        for path in paths:
            if path not in self._entries:
                self._entries[path] = entry_of(self.folder, path)
        return [self._entries[path] for path in paths]


def onnx_path(folder: Path, component: str) -> Path:
    """Return the place of a component's ONNX graph in a bundle; its weights are in ``model.onnx.data`` beside it."""
    return _files(folder, component, ONNX)[0]


def ir_path(folder: Path, component: str) -> Path:
    """Return the place of a component's OpenVINO graph; its weights are in the ``.bin`` of the same name."""
    return _files(folder, component, IR)[0]


def _graph(folder: Path, component: str, backend: Backend) -> Graph:
    """Return the files of one graph, in the best format that was written; small graphs have no separate weights."""
    written = (_files(folder, component, form) for form in FORMATS[backend])
    model, weights = next(files for files in written if files[0].is_file())
    return Graph(
        model=model.relative_to(folder).as_posix(),
        weights=weights.relative_to(folder).as_posix() if weights.is_file() else None,
    )


def _files(folder: Path, component: str, form: GraphFormat) -> tuple[Path, Path]:
    """Return the places of a component's graph and of its weights in a bundle."""
    place = folder / _WITHIN.get(component, component)
    model, weights = form.files("shallow" if component in _WITHIN else "model")
    return place / model, place / weights


def _component_fidelity(component: str, scores: Mapping[Backend, Scores]) -> dict[str, float]:
    """Return the scores of one graph; the parts of a hoisted UNet are judged together, under ``unet``."""
    return {
        f"{backend}.{name}": round(values[component], 6)
        for backend, score in scores.items()
        for name, values in (("psnr_db", score.component_psnr_db), ("max_abs", score.component_max_abs))
        if component in values
    }


def _picture_fidelity(scores: Mapping[Backend, Scores]) -> dict[str, float]:
    """Return the scores of whole pictures."""
    return {
        f"{backend}.{name}": round(value, 6)
        for backend, score in scores.items()
        for name, value in (
            ("image_psnr_db", score.image_psnr_db),
            ("image_ssim", score.image_ssim),
            ("latent_relative_rmse", score.latent_rmse),
        )
    }
