"""The graphs to export: module, example inputs and tensor names of each component.

The names of graphs and tensors, and what feeds what, are in ``nano_runtime.bundle.wiring``. In the hoisted form, the
outputs of ``unet_prompt`` and ``unet_time`` have the names of the ``unet`` inputs that they feed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
import torch
from torch import Tensor, nn

from nano_export.graph.passes import TRACE_BATCH, TRACE_TOKENS
from nano_export.networks.hoistable import why_not_hoistable
from nano_export.networks.text_encoder import TextEncoder
from nano_export.networks.unet import HoistedUNet, PromptKV, StandardUNet, TimeBiases
from nano_export.networks.vae import PreviewDecoder, VaeDecoder, VaeEncoder
from nano_export.source.autoencoders import Autoencoder
from nano_export.source.checkpoint import Checkpoint
from nano_export.source.picture_size import halves_evenly, vae_factor
from nano_runtime.bundle.manifest import TensorSpec
from nano_runtime.bundle.wiring import (
    BATCH,
    HIDDEN_STATES,
    INPUT_IDS,
    LAST_HIDDEN_STATE,
    LATENT_PARAMETERS,
    LATENT_SAMPLE,
    OUT_SAMPLE,
    PREVIEW_DECODER,
    SAMPLE,
    TEXT_ENCODER,
    TIMESTEP,
    TIMESTEP_COND,
    TOKENS,
    UNET,
    UNET_PROMPT,
    UNET_TIME,
    VAE_DECODER,
    VAE_ENCODER,
    FreeDimension,
    GraphForm,
)

__all__ = ["GraphSource", "UNetForm", "graph_sources", "latent_shape", "preview_source", "tensor_specs", "unet_form"]

_FREE: dict[str, FreeDimension] = {BATCH: BATCH, TOKENS: TOKENS}
_DTYPES: dict[ir.DataType, Literal["float32", "int64"]] = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.INT64: "int64",
}


@dataclass(frozen=True)
class GraphSource:
    """One component before export; free dimensions are ``TRACE_BATCH`` and ``TRACE_TOKENS`` in the ``inputs``."""

    component: str
    module: nn.Module
    inputs: tuple[Tensor | tuple[Tensor, ...], ...]
    input_names: Sequence[str]
    output_names: Sequence[str]


@dataclass(frozen=True)
class UNetForm:
    """The form in which a UNet is exported.

    Attributes:
        graph: hoisted or standard.
        timestep: type of the standard form's timestep. Optimum gives whole numbers; diffusers gives the UNet any.
        not_hoisted: the part of the UNet for which it is not hoisted, although that was asked for; None otherwise.
    """

    graph: GraphForm
    timestep: torch.dtype = torch.float32
    not_hoisted: str | None = None


def unet_form(checkpoint: Checkpoint, asked: GraphForm, size: int) -> UNetForm:
    """Return the form that was asked for, or the standard one if the UNet cannot be hoisted.

    Args:
        checkpoint: with the UNet.
        asked: by the user.
        size: width and height of the pictures, in pixels.
    """
    if asked == "standard":
        return UNetForm("standard", torch.int64)
    why = why_not_hoistable(checkpoint.unet)
    side = latent_shape(checkpoint, size)[1]
    if why is None and not halves_evenly(checkpoint.unet.config, side):
        why = f"latents of {side}x{side}, which one of its levels halves with a rest"
    return UNetForm("hoisted" if why is None else "standard", not_hoisted=why)


def latent_shape(checkpoint: Checkpoint, size: int) -> tuple[int, int, int]:
    """Return channels, height and width of the latents of a square picture of ``size`` pixels."""
    side = size // vae_factor(checkpoint.vae.config)
    return checkpoint.vae.config.latent_channels, side, side


def graph_sources(checkpoint: Checkpoint, form: UNetForm, size: int) -> Iterator[GraphSource]:
    """Yield the components in running order; the hoisted form takes the checkpoint's UNet apart on the way.

    Args:
        checkpoint: whose networks are traced.
        form: of the UNet's graphs.
        size: width and height of the pictures, in pixels.
    """
    length = checkpoint.tokenizer.model_max_length
    width = checkpoint.text_encoder.config.hidden_size
    latents = torch.zeros(TRACE_BATCH, *latent_shape(checkpoint, size))
    hidden = torch.zeros(TRACE_BATCH, length, width)
    pixels = torch.zeros(TRACE_BATCH, checkpoint.vae.config.in_channels, size, size)

    ids = torch.zeros(TRACE_BATCH, length, dtype=torch.int64)
    yield GraphSource(TEXT_ENCODER, TextEncoder(checkpoint.text_encoder), (ids,), [INPUT_IDS], [LAST_HIDDEN_STATE])
    noisy = torch.zeros(TRACE_BATCH, checkpoint.unet.config.in_channels, *latents.shape[2:])
    yield from _unet_sources(checkpoint, form, noisy, hidden)
    yield GraphSource(VAE_DECODER, VaeDecoder(checkpoint.vae), (latents,), [LATENT_SAMPLE], [SAMPLE])
    yield GraphSource(VAE_ENCODER, VaeEncoder(checkpoint.vae), (pixels,), [SAMPLE], [LATENT_PARAMETERS])


def preview_source(autoencoder: Autoencoder, shape: tuple[int, int, int]) -> GraphSource:
    """Return the decoder for previews.

    Args:
        autoencoder: a small one.
        shape: channels, height and width of the latents.
    """
    latents = torch.zeros(TRACE_BATCH, *shape)
    return GraphSource(PREVIEW_DECODER, PreviewDecoder(autoencoder), (latents,), [LATENT_SAMPLE], [SAMPLE])


def _unet_sources(checkpoint: Checkpoint, form: UNetForm, noisy: Tensor, hidden: Tensor) -> Iterator[GraphSource]:
    """Yield the UNet, in three parts if it is hoisted.

    The text encoder and ``unet_prompt`` take one chunk of a prompt at a time; the UNet attends to any number of tokens.
    """
    unet, output = checkpoint.unet, [OUT_SAMPLE]
    prompt = torch.zeros(TRACE_BATCH, TRACE_TOKENS, hidden.shape[2])
    embedded = unet.config.time_cond_proj_dim
    guidance = () if embedded is None else (torch.zeros(TRACE_BATCH, embedded),)
    guidance_names = [TIMESTEP_COND] * len(guidance)
    if form.graph == "standard":
        timestep = torch.zeros(1, dtype=form.timestep)
        names = [SAMPLE, TIMESTEP, HIDDEN_STATES, *guidance_names]
        yield GraphSource(UNET, StandardUNet(unet), (noisy, timestep, prompt, *guidance), names, output)
        return
    prompt_kv, time_biases = PromptKV(unet), TimeBiases(unet)
    timesteps = torch.zeros(TRACE_BATCH)
    with torch.no_grad():
        keys_values = prompt_kv(prompt)
        biases = tuple(bias[:1] for bias in time_biases(timesteps, *guidance))
    yield GraphSource(UNET_PROMPT, prompt_kv, (hidden,), [HIDDEN_STATES], prompt_kv.names)
    yield GraphSource(UNET_TIME, time_biases, (timesteps, *guidance), [TIMESTEP, *guidance_names], time_biases.names)
    names = [SAMPLE, *prompt_kv.names, *time_biases.names]
    yield GraphSource(UNET, HoistedUNet(unet), (noisy, keys_values, biases), names, output)


def tensor_specs(values: Sequence[ir.Value]) -> list[TensorSpec]:
    """Describe graph inputs or outputs for the manifest."""
    specs = []
    for value in values:
        if value.name is None or value.shape is None or value.dtype is None:
            raise ValueError(f"{value} has no name, shape or type")
        shape = [dim if isinstance(dim, int) else _FREE[str(dim)] for dim in value.shape]
        specs.append(TensorSpec(name=value.name, dtype=_DTYPES[value.dtype], shape=shape))
    return specs
