"""Recognises a folder of exported graphs: which tool wrote it, and where its graphs are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_export.errors import AdoptionError, CheckpointError
from nano_export.source.json_file import read_json
from nano_export.source.readable import lies_in, require_readable
from nano_runtime.bundle.graph_files import IR, ONNX, GraphFormat
from nano_runtime.bundle.manifest import MANIFEST_NAME, Exporter
from nano_runtime.bundle.wiring import TEXT_ENCODER, UNET, VAE_DECODER, VAE_ENCODER

__all__ = ["GraphFolder", "open_folder"]

# Pipelines whose networks are Stable Diffusion's, under the names of each library: optimum's ORT..., optimum-intel's
# OV..., and diffusers' Onnx..., which was once StableDiffusionOnnxPipeline.
_LIBRARY = re.compile(r"^(ORT|OV|Onnx)(?=[A-Z])")
_PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionOnnxPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipelineLegacy",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
)
_REQUIRED = (TEXT_ENCODER, UNET, VAE_DECODER)


@dataclass(frozen=True)
class GraphFolder:
    """A folder of graphs in one format.

    Attributes:
        path: of the folder.
        exporter: the tool that wrote it.
        format: of the graphs.
        graphs: file of each component.
    """

    path: Path
    exporter: Exporter
    format: GraphFormat
    graphs: Mapping[str, Path]

    def config(self, part: str) -> dict[str, Any]:
        """Return the config of a part; empty without one, as diffusers' export script wrote none."""
        file = self.path / part / "config.json"
        return read_json(file) if file.is_file() else {}

    def vae(self, key: str, default: Any) -> Any:  # noqa: ANN401 - a value of JSON
        """Return a value of the autoencoder's config, which is beside its halves."""
        for part in (VAE_DECODER, VAE_ENCODER, "vae"):
            if (value := self.config(part).get(key)) is not None:
                return value
        return default


def open_folder(path: Path) -> GraphFolder:
    """Recognise a folder by its index and by the files beside it.

    Raises:
        AdoptionError: it is none of the folders that can be adopted.
        CheckpointError: its index is damaged, or a file cannot be read: a broken link, a Git LFS pointer.
    """
    if not path.is_dir():
        raise AdoptionError(path, "it is no folder here; a repository of the Hub has to be downloaded first")
    if (path / MANIFEST_NAME).exists():
        raise AdoptionError(path, "it is a bundle of Nano already")
    if not (path / "model_index.json").is_file():
        raise AdoptionError(path, "model_index.json is missing")
    index = read_json(path / "model_index.json")
    pipeline = _LIBRARY.sub("", str(index.get("_class_name")))
    if pipeline not in _PIPELINES:
        raise AdoptionError(
            path, f"its pipeline is {index.get('_class_name')}, and Nano draws with Stable Diffusion 1 and 2"
        )
    form = next((form for form in (IR, ONNX) if (path / UNET / form.files()[0]).is_file()), None)
    if form is None:
        names = " nor ".join(f"{UNET}/{form.files()[0]}" for form in (ONNX, IR))
        raise AdoptionError(path, f"it has neither {names}")
    graphs = {part: path / part / form.files()[0] for part in (*_REQUIRED, VAE_ENCODER)}
    for part in _REQUIRED:
        if not graphs[part].is_file():
            raise AdoptionError(path, f"{part}/{graphs[part].name} is missing")
    graphs = {part: file for part, file in graphs.items() if file.is_file()}
    for file in graphs.values():
        _check_part(file.parent, path)
    return GraphFolder(path=path, exporter=_exporter(index, form), format=form, graphs=graphs)


def _exporter(index: Mapping[str, Any], form: GraphFormat) -> Exporter:
    """Name the tool: OpenVINO's graphs are optimum-intel's, and diffusers' script has a class of its own for graphs."""
    if form == IR:
        return "optimum-intel"
    entry = index.get(UNET)
    return "diffusers" if isinstance(entry, list) and entry[-1:] == ["OnnxRuntimeModel"] else "optimum"


def _check_part(part: Path, folder: Path) -> None:
    """Require that a graph and the weights beside it are files of the folder that can be read.

    Raises:
        CheckpointError: one is not, or is a link to a file elsewhere: any file can be read as raw weights.
    """
    for file in sorted(part.iterdir()):
        require_readable(file)
        if file.is_symlink() and not lies_in(file, folder):
            raise CheckpointError(
                file, "it is a link to a file elsewhere, which the bundle would be a copy of; put the file there"
            )
