"""Runs the original in torch, through diffusers' own pipeline, to compare exported graphs with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
)
from numpy.typing import NDArray

from nano_export.errors import UndrawableError
from nano_export.judge.pictures import Pictures, pictures_for
from nano_export.source.autoencoders import Autoencoder
from nano_export.source.builtin import Parts
from nano_export.source.checkpoint import Checkpoint
from nano_export.source.diffusers_scheduler import diffusers_scheduler
from nano_runtime.arrays import F32
from nano_runtime.bundle.wiring import HIDDEN_STATES, LATENT_SAMPLE, PREVIEW_DECODER, SAMPLE, TIMESTEP, TIMESTEP_COND
from nano_runtime.errors.escaping import first_line
from nano_runtime.system.out_of_memory import is_out_of_memory

__all__ = ["Probe", "Reference", "diffusers_pipeline", "draw_references", "preview_probe"]

_PIPELINES = {
    "text-to-image": StableDiffusionPipeline,
    "inpainting": StableDiffusionInpaintPipeline,
    "instruct-pix2pix": StableDiffusionInstructPix2PixPipeline,
}
# What diffusers raises for networks that do not fit each other, or want more than its pipeline gives them.
_DRAWING_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_UNET_PROBES = 3  # UNet calls kept per picture: the first, the middle and the last


@dataclass(frozen=True)
class Probe:
    """The inputs and the output of one part of the original in one run.

    Attributes:
        component: name of the part.
        inputs: by name; ``unet`` has diffusers' three.
        output: its first.
    """

    component: str
    inputs: dict[str, NDArray[Any]]
    output: F32


@dataclass(frozen=True)
class Reference:
    """One picture of the original.

    Attributes:
        prompt: of the picture.
        seed: of the noise.
        steps: of the checkpoint's own scheduler.
        guidance_scale: classifier-free guidance.
        pictures: that it was made of, as options of a call; empty for a picture of a prompt alone.
        latents: float32 [1, C, h, w] after the last step.
        image: float32 [H, W, 3] in [0, 1].
        probes: of every component.
    """

    prompt: str
    seed: int
    steps: int
    guidance_scale: float
    pictures: Pictures
    latents: F32
    image: F32
    probes: list[Probe] = field(repr=False)


def diffusers_pipeline(model: Checkpoint | Parts) -> Any:  # noqa: ANN401 (diffusers' pipelines share no typed base)
    """Put a model's parts into diffusers' pipeline for its task, without its progress bar and its safety checker."""
    task = model.task if isinstance(model, Checkpoint) else "text-to-image"
    pipeline = _PIPELINES[task](
        vae=model.vae.eval(),
        text_encoder=model.text_encoder.eval(),
        tokenizer=model.tokenizer,
        unet=model.unet.eval(),
        scheduler=diffusers_scheduler(model.scheduler, Path("scheduler") / "scheduler_config.json"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_references(
    checkpoint: Checkpoint, prompts: Sequence[str], steps: int, guidance_scale: float, size: int
) -> Iterator[Reference]:
    """Draw each prompt, seeded with its number, with diffusers' pipeline in fp32, and with a picture if it needs one.

    Args:
        checkpoint: in torch, not taken apart yet.
        prompts: one picture each.
        steps: of the checkpoint's own scheduler.
        guidance_scale: classifier-free guidance.
        size: width and height, in pixels.

    Yields:
        One picture after the other.

    Raises:
        UndrawableError: diffusers raises an error.
    """
    pipeline = diffusers_pipeline(checkpoint)
    for seed, prompt in enumerate(prompts):
        with torch.no_grad():
            pictures = pictures_for(checkpoint.task, size, prompt)
            try:
                reference = _draw(pipeline, prompt, seed, steps, guidance_scale, size, pictures)
            except _DRAWING_ERRORS as error:
                if is_out_of_memory(error):
                    raise
                raise UndrawableError(checkpoint.source.model, first_line(error)) from error
        yield reference


def preview_probe(autoencoder: Autoencoder, reference: Reference) -> Probe:
    """Decode a picture's latents with the autoencoder for previews, in torch."""
    with torch.no_grad():
        latents = torch.from_numpy(reference.latents)
        decoded = autoencoder.decode(latents / autoencoder.config.scaling_factor, return_dict=False)[0]
    return Probe(PREVIEW_DECODER, {LATENT_SAMPLE: reference.latents}, decoded.numpy())


def _draw(  # noqa: PLR0917 (all of them define one picture)
    pipeline: Any,  # noqa: ANN401 (see above)
    prompt: str,
    seed: int,
    steps: int,
    guidance_scale: float,
    size: int,
    pictures: Pictures,
) -> Reference:
    """Draw one picture, and keep the inputs and outputs of each part."""
    calls: list[Probe] = []

    def watch(_: object, args: tuple[Any, ...], options: dict[str, Any], output: tuple[torch.Tensor, ...]) -> None:
        sample, timestep, hidden = args[0], args[1], options["encoder_hidden_states"]
        inputs = {
            SAMPLE: sample.numpy().copy(),
            TIMESTEP: np.array([float(timestep)], np.float32),
            HIDDEN_STATES: hidden.numpy(),
        }
        if options.get(TIMESTEP_COND) is not None:
            inputs[TIMESTEP_COND] = options[TIMESTEP_COND].numpy()
        calls.append(Probe("unet", inputs, output[0].numpy()))

    handle = pipeline.unet.register_forward_hook(watch, with_kwargs=True)
    try:
        latents = pipeline(
            prompt,
            **({} if isinstance(pipeline, StableDiffusionInstructPix2PixPipeline) else {"height": size, "width": size}),
            **pictures,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="latent",
        ).images
    finally:
        handle.remove()
    scaled = latents / pipeline.vae.config.scaling_factor
    decoded = pipeline.vae.decode(scaled, return_dict=False)[0]
    picture = decoded.clamp(-1, 1)
    encoded = pipeline.vae.encode(picture)
    moments = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.parameters
    length = pipeline.tokenizer.model_max_length
    ids = pipeline.tokenizer(
        prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    hidden = pipeline.text_encoder(ids, return_dict=False)[0]
    kept = [calls[round(i * (len(calls) - 1) / (_UNET_PROBES - 1))] for i in range(_UNET_PROBES)]
    probes = [
        Probe("text_encoder", {"input_ids": ids.numpy()}, hidden.numpy()),
        *kept,
        Probe("vae_decoder", {"latent_sample": scaled.numpy()}, decoded.numpy()),
        Probe("vae_encoder", {"sample": picture.numpy()}, moments.numpy()),
    ]
    image = (picture[0] / 2 + 0.5).permute(1, 2, 0).numpy()
    return Reference(prompt, seed, steps, guidance_scale, pictures, latents.numpy(), image, probes)
