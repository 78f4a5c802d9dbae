"""Opens a Stable Diffusion checkpoint: a built-in name, a diffusers folder or a Hub id, checked before it is loaded.

The architecture comes from the checkpoint's own configs. Only safetensors are read: a pickle can run code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from nano_export.errors import CheckpointError
from nano_export.options import BUILT_IN
from nano_export.source import builtin
from nano_export.source.folder import DiffusersFolder, open_folder
from nano_export.source.hub import fetch
from nano_export.source.licences import LicenceText, licence_of
from nano_export.source.network_loading import load_network
from nano_export.source.tokenizer import check_fit, load_tokenizer
from nano_runtime.bundle.manifest import Source
from nano_runtime.bundle.wiring import Task
from nano_runtime.errors.escaping import UNPRINTABLE

__all__ = ["Checkpoint", "open_checkpoint"]

_CLASSES = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded Stable Diffusion: fp32 modules in eval mode, and all else that its bundle needs.

    Attributes:
        name: last part of the Hub id, or name of the folder.
        source: where it came from.
        licence: of the weights.
        card: text of its README.md; None without one.
        tokenizer: turns prompts into ids.
        text_encoder: turns ids into hidden states.
        unet: predicts the noise.
        vae: turns latents into pictures and back.
        scheduler: diffusers' config of the noise schedule, with its ``_class_name``, as in the checkpoint.
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
    vae: AutoencoderKL
    scheduler: dict[str, Any]
    task: Task = "text-to-image"
    embeddings: dict[str, tuple[int, ...]] = field(default_factory=dict)


def open_checkpoint(model: str, revision: str | None, variant: str | None = None) -> Checkpoint:
    """Find, check and load a model.

    Args:
        model: a built-in name, the path of a diffusers folder, or a Hub id, tried in this order.
        revision: branch, tag or commit on the Hub; None takes the default branch.
        variant: of the weights' names, such as "fp16"; None takes the plain ones, or what there is instead.

    Raises:
        CheckpointError: nothing has that name, files are missing or damaged, a revision is given for a model that is
            not on the Hub, or a variant for one that is built in.
        PickleOnlyError: the weights are not safetensors.
        UnsupportedModelError: it is not a Stable Diffusion 1 or 2.
        NetworkError: the Hub could not be reached, or refused.
    """
    folder = Path(model).expanduser()
    if revision is not None and (model in BUILT_IN or folder.is_dir()):
        raise CheckpointError(model, f"it is not on the Hub, so it has no revision {revision!r}")
    if variant is not None and model in BUILT_IN:
        raise CheckpointError(model, f"it is built in, so it has no variant {variant!r}")
    if model == "demo":
        return _load(open_folder(builtin.DEMO, None), Source(model=model, revision=None))
    if model in BUILT_IN:
        parts = builtin.build(model)
        return Checkpoint(
            name=model,
            source=Source(model=model, revision=None),
            licence=licence_of(None, None, model),
            card=None,
            tokenizer=parts.tokenizer,
            text_encoder=parts.text_encoder.eval(),
            unet=parts.unet.eval(),
            vae=parts.vae.eval(),
            scheduler=parts.scheduler,
        )
    if folder.is_dir():
        source = Source(model=_name_of(folder), revision=None)
    else:
        folder, source = fetch(model, revision, variant)
    return _load(open_folder(folder, variant), source)


def _load(found: DiffusersFolder, source: Source) -> Checkpoint:
    """Load a diffusers folder in fp32."""
    folder = found.path
    readme = folder / "README.md"
    card = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else None
    tokenizer = load_tokenizer(folder / "tokenizer")
    networks = {
        component: load_network(kind, component, found.configs[component], found.weights[component])
        for component, kind in _CLASSES.items()
    }
    check_fit(tokenizer, networks["text_encoder"], folder / "tokenizer")
    return Checkpoint(
        name=source.model.rpartition("/")[2],
        source=source,
        licence=licence_of(folder, card, source.model),
        card=card,
        tokenizer=tokenizer,
        text_encoder=networks["text_encoder"],
        unet=networks["unet"],
        vae=networks["vae"],
        scheduler=found.scheduler,
        task=found.task,
    )


def _name_of(folder: Path) -> str:
    """Return a folder's name as a manifest may hold it: characters that no terminal shows become underscores."""
    name = folder.resolve().name
    return name.translate(dict.fromkeys(UNPRINTABLE, "_")) or "checkpoint"
