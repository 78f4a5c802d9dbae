"""What a bundle holds besides graphs: tokenizer, scheduler, licence, card, and the manifest that describes it all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from nano_export.graph.mac_counts import work_of
from nano_export.judge.fidelity import Scores
from nano_export.networks.graph_sources import GraphForm, tensor_specs
from nano_export.source.card import guidance_scale
from nano_export.source.checkpoint import Checkpoint
from nano_runtime.bundle.checksums import entry_of
from nano_runtime.bundle.graph_files import FORMATS, IR, ONNX, GraphFormat
from nano_runtime.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Backend,
    Component,
    Graph,
    Licence,
    Manifest,
    Source,
    TokenizerSpec,
)
from nano_runtime.system.files import paths_below

__all__ = ["Contents", "component_entry", "describe", "ir_path", "manifest_of", "onnx_path", "write_small_files"]

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
_GUIDANCE_SCALE = 7.5  # diffusers' default, for models whose card says nothing
_WITHIN = {"unet_shallow": "unet"}  # ONNX finds weights beside the graph only, and this graph's are the UNet's


@dataclass(frozen=True)
class Contents:
    """What the manifest says of a checkpoint, kept after its weights are gone; ``preview`` needs pictures first."""

    name: str
    source: Source
    licence: Licence
    image_size: tuple[int, int]
    latent_shape: tuple[int, int, int]
    scaling_factor: float
    tokenizer: TokenizerSpec
    scheduler: dict[str, Any]
    guidance_scale: float
    preview: list[tuple[float, float, float]] | None = None


def describe(checkpoint: Checkpoint, latent_shape: tuple[int, int, int], size: int) -> Contents:
    """Take out of a checkpoint what its bundle has to say about it."""
    tokenizer, asked = checkpoint.tokenizer, guidance_scale(checkpoint.card)
    return Contents(
        name=checkpoint.name,
        source=checkpoint.source,
        licence=Licence(id=checkpoint.licence.id, file="LICENSE"),
        image_size=(size, size),
        latent_shape=latent_shape,
        scaling_factor=float(checkpoint.vae.config.scaling_factor),
        tokenizer=TokenizerSpec(
            file="tokenizer/tokenizer.json",
            length=checkpoint.text_encoder.config.max_position_embeddings,
            pad_id=tokenizer.pad_token_id,
            bos_id=tokenizer.bos_token_id,
            eos_id=tokenizer.eos_token_id,
        ),
        scheduler=checkpoint.scheduler,
        guidance_scale=_GUIDANCE_SCALE if asked is None else asked,
    )


def write_small_files(folder: Path, checkpoint: Checkpoint, form: GraphForm) -> None:
    """Write tokenizer, scheduler config, licence and card.

    A standard bundle also gets the configs that diffusers-like pipelines look for; a hoisted one would mislead them.
    """
    (folder / "tokenizer").mkdir()
    tokenizer = checkpoint.tokenizer.backend_tokenizer.to_str(pretty=True)
    (folder / "tokenizer" / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    _write_json(folder / "scheduler" / "scheduler_config.json", checkpoint.scheduler)
    (folder / "LICENSE").write_text(checkpoint.licence.text, encoding="utf-8")
    if checkpoint.card is not None:
        (folder / "README.md").write_text(checkpoint.card, encoding="utf-8")
    if form == "standard":
        checkpoint.tokenizer.save_pretrained(folder / "tokenizer")
        configs = {
            "text_encoder": checkpoint.text_encoder.config.to_dict(),
            "unet": json.loads(checkpoint.unet.to_json_string()),
            "vae_decoder": json.loads(checkpoint.vae.to_json_string()),
            "vae_encoder": json.loads(checkpoint.vae.to_json_string()),
        }
        for name, config in configs.items():
            config.pop("_name_or_path", None)  # where it was loaded from here means nothing elsewhere
            _write_json(folder / name / "config.json", config)
        _write_json(
            folder / "model_index.json",
            {
                "_class_name": "StableDiffusionPipeline",
                "feature_extractor": [None, None],
                "requires_safety_checker": False,
                "safety_checker": [None, None],
                "scheduler": ["diffusers", checkpoint.scheduler["_class_name"]],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"],
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
            },
        )


def onnx_path(folder: Path, component: str) -> Path:
    """Return where a component's ONNX graph lies in a bundle; its weights are in ``model.onnx.data`` beside it."""
    return _files(folder, component, ONNX)[0]


def ir_path(folder: Path, component: str) -> Path:
    """Return where a component's OpenVINO graph lies; its weights are in the ``.bin`` of the same name."""
    return _files(folder, component, IR)[0]


def component_entry(
    model: ir.Model, precision: Literal["fp32", "int8"], backends: Sequence[Backend], tokens: int
) -> Component:
    """Describe a graph, its work for prompts of ``tokens``; its files are named when the manifest is written."""
    files: dict[Backend, Graph] = {backend: Graph(model="", weights=None) for backend in backends}
    return Component(
        precision=precision,
        inputs=tensor_specs(model.graph.inputs),
        outputs=tensor_specs(model.graph.outputs),
        graphs=files,
        work=work_of(model, tokens),
    )


def manifest_of(
    folder: Path,
    contents: Contents,
    components: Mapping[str, Component],
    scores: Mapping[Backend, Scores],
    options: dict[str, Any],
) -> Manifest:
    """Describe all files in a folder, with their checksums."""
    described = {
        name: Component(
            precision=component.precision,
            inputs=component.inputs,
            outputs=component.outputs,
            graphs={backend: _graph(folder, name, backend) for backend in component.graphs},
            fidelity=_component_fidelity(name, scores),
            work=component.work,
        )
        for name, component in components.items()
    }
    first = next(iter(described.values()))
    files = sorted(path for path in paths_below(folder) if path.is_file() and path.name != MANIFEST_NAME)
    return Manifest(
        format_version=FORMAT_VERSION,
        name=contents.name,
        source=contents.source,
        licence=contents.licence,
        graph="hoisted" if "unet_prompt" in described else "standard",
        precision=first.precision,
        backends=list(first.graphs),
        image_size=contents.image_size,
        latent_shape=contents.latent_shape,
        scaling_factor=contents.scaling_factor,
        tokenizer=contents.tokenizer,
        scheduler=contents.scheduler,
        guidance_scale=contents.guidance_scale,
        preview=contents.preview,
        components=described,
        fidelity={
            f"{backend}.{name}": round(value, 6)
            for backend, score in scores.items()
            for name, value in (
                ("image_psnr_db", score.image_psnr_db),
                ("image_ssim", score.image_ssim),
                ("latent_relative_rmse", score.latent_rmse),
            )
        },
        versions={tool: version(tool) for tool in _TOOLS},
        options=options,
        files=[entry_of(folder, path) for path in files],
    )


def _graph(folder: Path, component: str, backend: Backend) -> Graph:
    """Name the files of one graph; small graphs have no separate weights, compact bundles no IR."""
    written = (_files(folder, component, form) for form in FORMATS[backend])
    model, weights = next(files for files in written if files[0].is_file())
    return Graph(
        model=model.relative_to(folder).as_posix(),
        weights=weights.relative_to(folder).as_posix() if weights.is_file() else None,
    )


def _files(folder: Path, component: str, form: GraphFormat) -> tuple[Path, Path]:
    """Return where a component's graph and its weights lie in a bundle."""
    place = folder / _WITHIN.get(component, component)
    model, weights = form.files("shallow" if component in _WITHIN else "model")
    return place / model, place / weights


def _component_fidelity(component: str, scores: Mapping[Backend, Scores]) -> dict[str, float]:
    """The scores of one graph; the parts of a hoisted UNet are judged together, under ``unet``."""
    return {
        f"{backend}.{name}": round(values[component], 6)
        for backend, score in scores.items()
        for name, values in (("psnr_db", score.component_psnr_db), ("max_abs", score.component_max_abs))
        if component in values
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
