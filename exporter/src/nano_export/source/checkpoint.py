"""Opens a Stable Diffusion checkpoint: a built-in name, a diffusers folder or a Hub id, checked before it is loaded.

The architecture comes from the checkpoint's own configs. Only safetensors are read: a pickle can run code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from nano_export.errors import CheckpointError
from nano_export.options import NOTHING_ASKED, SingleFileOptions
from nano_export.source import builtin
from nano_export.source.autoencoders import Autoencoder, load_autoencoder, open_autoencoder
from nano_export.source.card import read_card
from nano_export.source.diffusers_scheduler import diffusers_scheduler
from nano_export.source.folder import DiffusersFolder
from nano_export.source.licences import LicenceText, licence_of
from nano_export.source.network_loading import load_network
from nano_export.source.place import Place, fetched, find_model
from nano_export.source.rounding import with_torchs_rounding
from nano_export.source.single_file.opening import SingleFile
from nano_export.source.tokenizer import check_fit, load_tokenizer
from nano_runtime.bundle.manifest import Source
from nano_runtime.bundle.wiring import Task

__all__ = ["Checkpoint", "load", "open_checkpoint", "preview_autoencoder", "with_autoencoder"]

_CLASSES = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded Stable Diffusion: fp32 modules in eval mode, and all else that its bundle needs.

    Attributes:
        name: last part of the Hub id, or name of the folder.
        source: where it came from.
        licence: of the weights.
        card: text of its README.md; None without one.
        tokenizer: turns prompts into ids; ``model_max_length`` is the length of a chunk of a prompt.
        text_encoder: turns ids into hidden states.
        unet: predicts the noise.
        vae: turns latents into pictures and back.
        scheduler: config of the scheduler that diffusers' pipeline ends up with, see ``source.scheduler``.
        task: what the channels of the UNet's input behind the latents are.
        embeddings: word of a textual inversion -> ids of its vectors, in order.
    """

    name: str
    source: Source
    licence: LicenceText
    card: str | None
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: Autoencoder
    scheduler: dict[str, Any]
    task: Task = "text-to-image"
    embeddings: dict[str, tuple[int, ...]] = field(default_factory=dict)


def open_checkpoint(
    model: str, revision: str | None, variant: str | None = None, asked: SingleFileOptions = NOTHING_ASKED
) -> Checkpoint:
    """Find, fetch and load a model; see ``find_model``, ``fetched`` and ``load``."""
    return load(fetched(find_model(model, revision, variant, asked)))


def load(place: Place) -> Checkpoint:
    """Load a model that is on this machine.

    Raises:
        CheckpointError: its files are damaged, or do not fit each other.
    """
    if place.folder is None:
        return _built_in(place.source)
    if place.file is None:
        return _load(place.folder, place.source)
    with TemporaryDirectory() as path:
        folder = Path(path)
        with place.file.blamed(folder):
            place.file.write_configs(folder)
            return _load(replace(place.folder, path=folder), place.source, place.file)


def with_autoencoder(checkpoint: Checkpoint, path: Path | None) -> Checkpoint:
    """Put another autoencoder in the place of the checkpoint's; None keeps it.

    Raises:
        CheckpointError: the folder has no usable autoencoder, or one of other latents.
        UnsupportedModelError: it is of another class.
    """
    if path is None:
        return checkpoint
    return replace(checkpoint, vae=open_autoencoder(path, checkpoint.vae.config.latent_channels))


def preview_autoencoder(checkpoint: Checkpoint, path: Path | None) -> Autoencoder | None:
    """Return the autoencoder of a folder, for previews of a checkpoint's pictures; None without one.

    Raises:
        CheckpointError: the folder has no usable autoencoder, or one of other latents.
        UnsupportedModelError: it is of another class.
    """
    if path is None:
        return None
    own = checkpoint.vae.config
    found = open_autoencoder(path, own.latent_channels)
    if len(found.config.block_out_channels) != len(own.block_out_channels):
        raise CheckpointError(path, "its pictures have another size than those of the checkpoint's autoencoder")
    return found


def _built_in(source: Source) -> Checkpoint:
    """Build a model with seeded random weights."""
    parts = builtin.build(source.model)
    return Checkpoint(
        name=source.model,
        source=source,
        licence=licence_of(None, None, source.model),
        card=None,
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder.eval(),
        unet=parts.unet.eval(),
        vae=parts.vae.eval(),
        scheduler=parts.scheduler,
    )


def _load(found: DiffusersFolder, source: Source, file: SingleFile | None = None) -> Checkpoint:
    """Load a diffusers folder in fp32; the weights are in the file, if there is one."""
    folder = found.path
    card = read_card(folder)
    diffusers_scheduler(found.scheduler, folder / "scheduler" / "scheduler_config.json")
    tokenizer = load_tokenizer(folder / "tokenizer")
    networks = {
        component: load_network(kind, component, found.configs[component], found.weights[component])
        if file is None
        else file.load(component, found.configs[component])
        for component, kind in _CLASSES.items()
    }
    vae = found.configs["vae"]
    check_fit(tokenizer, networks["text_encoder"], folder / "tokenizer")
    return Checkpoint(
        name=source.model.rpartition("/")[2],
        source=source,
        licence=licence_of(folder, card, source.model),
        card=card,
        tokenizer=tokenizer,
        text_encoder=networks["text_encoder"],
        unet=networks["unet"],
        vae=load_autoencoder(vae, found.weights["vae"])
        if file is None or file.vae is not None
        else file.load("vae", vae),
        scheduler=with_torchs_rounding(found.scheduler),
        task=found.task,
    )
