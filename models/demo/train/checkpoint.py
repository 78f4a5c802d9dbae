"""The trained parts: from the working folder into memory, and out as an ordinary diffusers folder in fp16."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from models.demo.train.autoencoder import build_autoencoder
from models.demo.train.unet import build_scheduler, build_unet
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

__all__ = ["Parts", "SavedParts", "load_parts", "restore_parts", "save_checkpoint"]


class Parts(NamedTuple):
    """What drawing needs: the averaged networks and the text encoder's output for every prompt.

    Attributes:
        unet: in evaluation mode, float32.
        autoencoder: in evaluation mode, float32.
        context: float32 [pairs + 1, 77, width]; the last is the empty prompt.
    """

    unet: UNet2DConditionModel
    autoencoder: AutoencoderKL
    context: torch.Tensor


def load_parts(work: Path) -> Parts:
    """Load the averaged weights from a working folder."""
    context = torch.load(work / "context.pt", weights_only=True)
    network: Any = build_unet(context.shape[-1])
    network.load_state_dict(torch.load(work / "unet.pt", weights_only=True)["avg"])
    autoencoder: Any = build_autoencoder()
    autoencoder.load_state_dict(torch.load(work / "vae.pt", weights_only=True)["avg"])
    return Parts(network.eval(), autoencoder.eval(), context)


class SavedParts(NamedTuple):
    """The modules of a saved checkpoint, float32."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    autoencoder: AutoencoderKL


def restore_parts(folder: Path, work: Path) -> SavedParts:
    """Load a checkpoint, and copy its tokenizer and text encoder to where the training keeps them."""
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(folder / name, work / name, dirs_exist_ok=True)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").float().eval()
    network: Any = build_unet(text_encoder.config.hidden_size)
    network.load_state_dict(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    autoencoder: Any = build_autoencoder()
    autoencoder.load_state_dict(load_file(folder / "vae" / "diffusion_pytorch_model.safetensors"))
    return SavedParts(CLIPTokenizer.from_pretrained(folder / "tokenizer"), text_encoder, network, autoencoder)


def save_checkpoint(folder: Path, work: Path) -> None:
    """Write a diffusers folder that any pipeline opens, in fp16 safetensors."""
    parts = load_parts(work)
    pipeline = StableDiffusionPipeline(
        vae=parts.autoencoder.to(memory_format=torch.contiguous_format),
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=parts.unet.to(memory_format=torch.contiguous_format),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    # Transformers 5 saves tokenizer.json alone and drops the prefix of the text encoder's keys; the files of Stable
    # Diffusion 2, which every tool reads, have neither habit.
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(work / "tokenizer", folder / "tokenizer")
    weights = folder / "text_encoder/model.safetensors"
    tensors = load_file(weights)
    prefix = "text_model."
    save_file(
        {prefix + name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, weights, {"format": "pt"}
    )
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
