"""Takes from a checkpoint what is no graph: the facts about it, and its small files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nano_export.bundle.facts import LICENCE, ORIGINAL_CARD, Contents
from nano_export.bundle.standard_files import write_json, write_standard_files
from nano_export.judge.prompts import prompts_for
from nano_export.networks.graph_sources import latent_shape
from nano_export.options import Options
from nano_export.source.adapters.embedding import Embedding
from nano_export.source.adapters.lora_file import Lora
from nano_export.source.card import parameter
from nano_export.source.checkpoint import Checkpoint
from nano_export.source.distilled import habits_of
from nano_export.source.picture_size import picture_size
from nano_export.source.scheduler import config_file
from nano_runtime.bundle.manifest import Default, Licence, TokenizerSpec
from nano_runtime.bundle.wiring import GraphForm

__all__ = ["describe", "write_small_files"]

_GUIDANCE_SCALE = 7.5  # diffusers' default, for models whose card states none


def describe(
    checkpoint: Checkpoint, options: Options, loras: Sequence[Lora], embeddings: Sequence[Embedding]
) -> Contents:
    """Collect the facts about a checkpoint.

    Args:
        checkpoint: with all LoRAs merged and all embeddings added.
        options: of the export.
        loras: that were merged.
        embeddings: that were added.

    Raises:
        CheckpointError: no size is asked for, and the checkpoint names none.
        ImageSizeError: the networks cannot draw pictures of that size.
    """
    size = picture_size(checkpoint.unet.config, checkpoint.vae.config, options.size)
    tokenizer, habits = checkpoint.tokenizer, habits_of(checkpoint)
    asked = parameter(checkpoint.card, "guidance_scale") if habits is None else habits.guidance_scale
    return Contents(
        name=checkpoint.name,
        source=checkpoint.source,
        licence=Licence(id=checkpoint.licence.id, file=LICENCE),
        licence_text=checkpoint.licence.text,
        example=prompts_for(checkpoint.card).judge[0],
        has_card=checkpoint.card is not None,
        vae=None if options.vae is None else options.vae.resolve().name,
        loras=[{"name": lora.name, "sha256": lora.sha256, "scale": lora.scale} for lora in loras],
        embeddings=[
            {"name": one.path.name, "sha256": one.sha256, "word": one.word, "vectors": len(one.vectors)}
            for one in embeddings
        ],
        image_size=(size, size),
        latent_shape=latent_shape(checkpoint, size),
        scaling_factor=float(checkpoint.vae.config.scaling_factor),
        tokenizer=TokenizerSpec(
            file="tokenizer/tokenizer.json",
            length=tokenizer.model_max_length,
            pad_id=tokenizer.pad_token_id,
            bos_id=tokenizer.bos_token_id,
            eos_id=tokenizer.eos_token_id,
            embeddings={word: list(ids) for word, ids in checkpoint.embeddings.items()},
        ),
        scheduler=checkpoint.scheduler,
        guidance_scale=_GUIDANCE_SCALE if asked is None else asked,
        task=checkpoint.task,
        default=None if habits is None else Default(scheduler=habits.sampler, steps=habits.steps, fidelity={}),
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
    write_json(folder / "scheduler" / "scheduler_config.json", config_file(checkpoint.scheduler))
    (folder / LICENCE).write_bytes(checkpoint.licence.text.encode())
    if checkpoint.card is not None:
        (folder / ORIGINAL_CARD).write_bytes(checkpoint.card.encode())
    if form == "standard":
        write_standard_files(folder, checkpoint)
