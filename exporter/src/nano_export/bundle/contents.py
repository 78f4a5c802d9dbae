"""The parts of a bundle that are no graphs: facts about the checkpoint, and its small files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_export.judge.prompts import prompts_for
from nano_export.networks.graph_sources import latent_shape
from nano_export.options import Options
from nano_export.source.card import guidance_scale
from nano_export.source.checkpoint import Checkpoint
from nano_export.source.lora_file import Lora
from nano_runtime.bundle.manifest import Licence, Source, TokenizerSpec
from nano_runtime.bundle.wiring import GraphForm

__all__ = ["ORIGINAL_CARD", "Contents", "describe", "write_small_files"]

ORIGINAL_CARD = "ORIGINAL_CARD.md"
"""Name of the checkpoint's README.md in a bundle; the README.md of a bundle is its own card."""

_LICENCE = "LICENSE"
_GUIDANCE_SCALE = 7.5  # diffusers' default, for models whose card states none


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
        image_size: height and width of a picture, in pixels.
        latent_shape: channels, height and width.
        scaling_factor: of the latents.
        tokenizer: file, length and special ids.
        scheduler: diffusers' config.
        guidance_scale: that the model is drawn with.
        preview: see ``choose.preview_matrix``; None until pictures were drawn.
    """

    name: str
    source: Source
    licence: Licence
    licence_text: str
    example: str
    has_card: bool
    loras: list[dict[str, Any]]
    image_size: tuple[int, int]
    latent_shape: tuple[int, int, int]
    scaling_factor: float
    tokenizer: TokenizerSpec
    scheduler: dict[str, Any]
    guidance_scale: float
    preview: list[tuple[float, float, float]] | None = None


def describe(checkpoint: Checkpoint, options: Options, loras: Sequence[Lora]) -> Contents:
    """Collect the facts about a checkpoint.

    Args:
        checkpoint: with all LoRAs merged.
        options: of the export.
        loras: that were merged.

    Raises:
        ImageSizeError: the networks cannot draw pictures of that size.
    """
    tokenizer, asked = checkpoint.tokenizer, guidance_scale(checkpoint.card)
    return Contents(
        name=checkpoint.name,
        source=checkpoint.source,
        licence=Licence(id=checkpoint.licence.id, file=_LICENCE),
        licence_text=checkpoint.licence.text,
        example=prompts_for(checkpoint.card).judge[0],
        has_card=checkpoint.card is not None,
        loras=[{"name": lora.file.path.name, "sha256": lora.sha256, "scale": lora.file.scale} for lora in loras],
        image_size=(options.size, options.size),
        latent_shape=latent_shape(checkpoint, options.size),
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
    """Write tokenizer, scheduler config, licence and the original's card.

    A standard bundle also gets the configs that diffusers-like pipelines look for; a hoisted one would mislead them.

    Args:
        folder: of the bundle; created if it is missing.
        checkpoint: that the files come from.
        form: of the UNet's graphs.
    """
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer = checkpoint.tokenizer.backend_tokenizer.to_str(pretty=True)
    (folder / "tokenizer" / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    _write_json(folder / "scheduler" / "scheduler_config.json", checkpoint.scheduler)
    (folder / _LICENCE).write_bytes(checkpoint.licence.text.encode())
    if checkpoint.card is not None:
        (folder / ORIGINAL_CARD).write_bytes(checkpoint.card.encode())
    if form == "standard":
        _write_diffusers_configs(folder, checkpoint)


def _write_diffusers_configs(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the index and the configs of all parts, as ``DiffusionPipeline.save_pretrained`` would."""
    checkpoint.tokenizer.save_pretrained(folder / "tokenizer")
    configs = {
        "text_encoder": checkpoint.text_encoder.config.to_dict(),
        "unet": json.loads(checkpoint.unet.to_json_string()),
        "vae_decoder": json.loads(checkpoint.vae.to_json_string()),
        "vae_encoder": json.loads(checkpoint.vae.to_json_string()),
    }
    for name, config in configs.items():
        config.pop("_name_or_path", None)  # a path of this machine
        _write_json(folder / name / "config.json", config)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", checkpoint.scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(folder / "model_index.json", index)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
