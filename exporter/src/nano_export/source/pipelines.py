"""Decides by the pipeline's class and the UNet's channels what a checkpoint is for, or refuses it in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nano_export.errors import CheckpointError, UnsupportedModelError
from nano_export.source.json_file import read_json
from nano_export.source.odd_folders import PARTS, blame_folder
from nano_export.source.readable import require_folder
from nano_runtime.bundle.wiring import Task

__all__ = ["task_of"]

_SAME_NETWORKS = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipelineLegacy",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
)
_PIX2PIX = "StableDiffusionInstructPix2PixPipeline"
_SUPPORTED = (*_SAME_NETWORKS, _PIX2PIX)
_NETWORKS = {
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_INPAINTED = 4  # latent channels: diffusers' inpainting pipeline takes UNets with 9 channels, and none with 2C + 1 else
# Parts that steer no picture, or only with inputs that Nano has not: an IP adapter's pictures.
_UNUSED_PARTS = ("scheduler", "safety_checker", "feature_extractor", "image_encoder")


def task_of(folder: Path) -> Task:
    """Return what the pipeline of a diffusers folder draws, by its class and by the channels of its UNet.

    The class alone does not tell: diffusers' inpainting pipeline also draws with the UNet of text-to-image. A folder
    with all parts needs no index: training scripts leave such folders.

    Raises:
        CheckpointError: the index or a config is missing or damaged.
        UnsupportedModelError: its pipeline is another one, has other networks, or its UNet has other channels.
    """
    name = _class_of(folder)
    for part in PARTS:
        if (folder / part).is_symlink() or (folder / part).exists():
            require_folder(folder / part)
    if (error := blame_folder(folder)) is not None:
        raise error
    channels = _number(folder / "unet", "in_channels", 4)
    latents = _number(folder / "vae", "latent_channels", 4)
    tasks: dict[int, Task] = {latents: "text-to-image", 2 * latents: "instruct-pix2pix"}
    if latents == _INPAINTED:
        tasks[2 * latents + 1] = "inpainting"
    task = tasks.get(channels)
    if task is None or (name == _PIX2PIX and task != "instruct-pix2pix"):
        kind = ", as depth-to-image has" if channels == latents + 1 else ""
        raise UnsupportedModelError(
            folder / "unet",
            f"in_channels={channels}{kind}" + ("" if name is None else f", with the pipeline class {name}"),
            [f"{count} channels ({what})" for count, what in tasks.items()],
        )
    return task


def _class_of(folder: Path) -> str | None:
    """Return the pipeline's class by the index; None without an index.

    Raises:
        CheckpointError: the index is damaged.
        UnsupportedModelError: the pipeline is another one, or has other networks.
    """
    path = folder / "model_index.json"
    if not path.exists() and not path.is_symlink():
        return None
    index = read_json(path)
    name = index.get("_class_name")
    if name not in _SUPPORTED:
        raise UnsupportedModelError(folder, f"the pipeline class {name}{_way_out(index)}", ["Stable Diffusion 1 and 2"])
    _check_parts(folder, index)
    return str(name)


def _number(folder: Path, key: str, default: int) -> int:
    """Return a positive whole number of a network's config; diffusers' default where it names none.

    Raises:
        CheckpointError: it is no positive whole number.
    """
    value = read_json(folder / "config.json").get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(folder / "config.json", f"{key} is {value!r}, not a positive whole number")
    return value


def _parts(index: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the class of each part that an index names; None for a part that is left out."""
    return {
        part: entry[1] if isinstance(entry[1], str) else None
        for part, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2  # noqa: PLR2004 - library and class
    }


def _way_out(index: Mapping[str, Any]) -> str:
    """Tell how to export the networks of a pipeline that differs from Stable Diffusion's in its loop only."""
    parts = {part: name for part, name in _parts(index).items() if name is not None and part not in _UNUSED_PARTS}
    if parts.keys() != _NETWORKS.keys() or any(name not in _NETWORKS[part] for part, name in parts.items()):
        return ""
    return (
        ", whose loop is its own (to draw with StableDiffusionPipeline instead, write that class into model_index.json)"
    )


def _check_parts(folder: Path, index: Mapping[str, Any]) -> None:
    """Refuse networks of other classes, and further ones.

    Raises:
        UnsupportedModelError: the index names a network of another class, or a further one.
    """
    for part, name in _parts(index).items():
        known = _NETWORKS.get(part)
        if part in _UNUSED_PARTS or (known is None and name is None) or (known is not None and name in known):
            continue
        found = f"no {part} in model_index.json" if name is None else f"{part} of the class {name}"
        supported = ["the parts of StableDiffusionPipeline"] if known is None else known
        raise UnsupportedModelError(folder, found, supported)
