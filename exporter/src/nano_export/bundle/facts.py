"""The facts about a model that its bundle states, in the manifest and in the card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nano_runtime.bundle.manifest import Default, Licence, Source, TokenizerSpec
from nano_runtime.bundle.wiring import Task

__all__ = ["LICENCE", "OPENVINO_TOKENIZER", "ORIGINAL_CARD", "Contents"]

ORIGINAL_CARD = "ORIGINAL_CARD.md"
"""Name of the checkpoint's README.md in a bundle; the README.md of a bundle is its own card."""

OPENVINO_TOKENIZER = "tokenizer/openvino_tokenizer.xml"
"""The tokenizer as openvino-genai reads it, in standard bundles."""

LICENCE = "LICENSE"
"""Name of the file with the licence's text."""


@dataclass(frozen=True)
class Contents:
    """Facts about a checkpoint for the manifest and the card; they outlive its weights.

    Attributes:
        name: of the model.
        source: where it came from.
        licence: of the weights.
        licence_text: content of the licence file.
        example: a prompt to show the model with.
        has_card: whether the checkpoint had a card.
        loras: name, sha256 and scale of each LoRA that was merged.
        embeddings: name, sha256, word and number of vectors of each textual inversion that was added.
        image_size: height and width of a picture, in pixels.
        latent_shape: channels, height and width.
        scaling_factor: of the latents.
        tokenizer: file, length and special ids.
        scheduler: diffusers' config.
        guidance_scale: that the model is drawn with.
        task: what the UNet sees behind the latents.
        default: sampler and steps of a model that was distilled to draw in a few; None for others.
        preview: see ``choose.preview_matrix``; None until pictures were drawn.
        not_hoisted: the part of the UNet for which it is not hoisted although that was asked for; None otherwise.
        vae: name of the folder whose autoencoder took the place of the checkpoint's; None if none did.
    """

    name: str
    source: Source
    licence: Licence
    licence_text: str
    example: str
    has_card: bool
    loras: list[dict[str, Any]]
    embeddings: list[dict[str, Any]]
    image_size: tuple[int, int]
    latent_shape: tuple[int, int, int]
    scaling_factor: float
    tokenizer: TokenizerSpec
    scheduler: dict[str, Any]
    guidance_scale: float
    task: Task = "text-to-image"
    default: Default | None = None
    preview: list[tuple[float, float, float]] | None = None
    not_hoisted: str | None = None
    vae: str | None = None
