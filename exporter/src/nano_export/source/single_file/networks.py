"""Loads networks from a file in the original layout: diffusers' own functions rename the tensors.

Every tensor of a network has to come from the file, with its shape; diffusers only logs what is missing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel

from nano_export.errors import SingleFileError
from nano_export.source.network_config import network_config
from nano_export.source.quiet import quiet_libraries
from nano_export.source.single_file.shapes import OPEN_CLIP, TEXT, UNET, VAE
from nano_export.source.single_file.tensors import read_tensors
from nano_runtime.errors import UsageError
from nano_runtime.errors.escaping import first_line
from nano_runtime.system.out_of_memory import is_out_of_memory

__all__ = ["load_original", "shapes_of"]

_UNET_PARTS = re.compile(
    r"(input_blocks\.\d+\.[01]|output_blocks\.\d+\.[012]|middle_block\.[012]|time_embed\.[02]|out\.[02])\."
)
_VAE_PARTS = re.compile(r"(encoder|decoder)\.|(post_)?quant_conv\.")
_TEXT_LAYER = re.compile(r"(?:encoder\.layers|transformer\.resblocks)\.(\d+)\.")
_CLASSES: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
_UNUSED_TEXT = ("embeddings.position_ids", "text_projection", "logit_scale", "attn_mask")


def load_original(file: Path, component: str, config: dict[str, Any]) -> Any:  # noqa: ANN401 - diffusers' and transformers' classes have no common base
    """Load one network in fp32.

    Args:
        file: whose header was checked.
        component: ``unet``, ``vae`` or ``text_encoder``.
        config: of diffusers, or of transformers.

    Returns:
        The module, in eval mode.

    Raises:
        SingleFileError: tensors are missing, are left over, or do not have the shape that the config says.
        CheckpointError: they hold numbers that are not finite.
    """
    load = {"unet": _unet, "vae": _vae, "text_encoder": _text_encoder}[component]
    config = network_config(_CLASSES[component], config, file)
    try:
        with quiet_libraries():
            module, renamed = load(file, config)
    except UsageError:
        raise
    except Exception as error:  # the libraries raise whatever a wrong config leads to
        if is_out_of_memory(error):
            raise
        raise _misfit(file, component, f"does not fit its config: {first_line(error)}") from error
    tensors = {key: tensor for key, tensor in renamed.items() if tensor is not None}  # diffusers asks for absent ones
    expected = module.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise _misfit(file, component, f"lacks {len(missing)} tensors; in diffusers' words, {missing[0]} for one")
    if further := sorted(tensors.keys() - expected.keys()):
        raise _misfit(file, component, f"has {len(further)} tensors too many, {further[0]} for one")
    for key, tensor in expected.items():
        if tensor.shape != tensors[key].shape:
            found, wanted = list(tensors[key].shape), list(tensor.shape)
            raise _misfit(file, component, f"has the shape {found} in {key}, but its config {wanted}")
    module.load_state_dict(tensors, assign=True)
    return module.eval()


def shapes_of(file: Path, component: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a network by the name that it gets; nothing is loaded.

    Args:
        file: for messages.
        component: ``unet``, ``vae`` or ``text_encoder``.
        config: of diffusers, or of transformers.

    Raises:
        SingleFileError: the config is that of no such network.
    """
    config = network_config(_CLASSES[component], config, file)
    try:
        with quiet_libraries():
            module = _empty(component, config)
    except Exception as error:  # the libraries raise whatever a wrong config leads to
        raise _misfit(file, component, f"does not fit its config: {first_line(error)}") from error
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _empty(component: str, config: dict[str, Any]) -> Any:  # noqa: ANN401 - diffusers' and transformers' classes have no common base
    """Return a network without weights."""
    with torch.device("meta"):
        if component == "text_encoder":
            return CLIPTextModel(CLIPTextConfig(**config))
        return _CLASSES[component].from_config(config)


def _misfit(file: Path, component: str, why: str) -> SingleFileError:
    return SingleFileError(
        file,
        f"its {component} {why}",
        "If the network is an unusual one, give its configs with --config FOLDER, as diffusers' from_single_file does.",
    )


def _unet(file: Path, config: dict[str, Any]) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a UNet without weights, and its tensors by diffusers' names."""
    tensors = read_tensors(file, UNET)
    strange = sorted(key for key in tensors if not _UNET_PARTS.match(key.removeprefix(UNET)))
    if strange:
        raise ValueError(f"no Stable Diffusion has the tensor {strange[0]}")
    module = _empty("unet", config)
    return module, convert_ldm_unet_checkpoint(tensors, dict(module.config))


def _vae(file: Path, config: dict[str, Any]) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return an autoencoder without weights, and its tensors by diffusers' names; a training's loss is left out."""
    tensors = {key: value for key, value in read_tensors(file, VAE).items() if _VAE_PARTS.match(key.removeprefix(VAE))}
    module = _empty("vae", config)
    return module, convert_ldm_vae_checkpoint(tensors, dict(module.config))


def _text_encoder(file: Path, config: dict[str, Any]) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a text encoder, and its tensors by transformers' names; layers beyond the config's are not used."""
    module = CLIPTextModel(CLIPTextConfig(**config))  # not on the meta device: it has buffers that no file holds
    layers = module.config.num_hidden_layers

    def used(name: str) -> bool:
        found = _TEXT_LAYER.match(name)
        return name not in _UNUSED_TEXT and (found is None or int(found[1]) < layers)

    named = {key: value for key, value in read_tensors(file, TEXT).items() if used(key.removeprefix(TEXT))}
    if named:
        named = {key.removeprefix(TEXT): value for key, value in named.items()}
    else:
        kept = {key: value for key, value in read_tensors(file, OPEN_CLIP).items() if used(key.removeprefix(OPEN_CLIP))}
        named = convert_open_clip_checkpoint(module, kept, prefix=OPEN_CLIP)
    # transformers 5.6 and newer leave a level out of the names.
    bare = {key.removeprefix("text_model."): value for key, value in named.items()}
    return module, bare if not hasattr(module, "text_model") else {f"text_model.{key}": bare[key] for key in bare}
