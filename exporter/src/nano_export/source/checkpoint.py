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
from nano_export.source.architecture import check_architecture
from nano_export.source.hub import fetch
from nano_export.source.json_file import read_json
from nano_export.source.layout import WEIGHTS
from nano_export.source.licences import LicenceText, licence_of
from nano_export.source.pipelines import Task, task_of
from nano_export.source.weights import check_weights, load_network
from nano_runtime.bundle.manifest import Source
from nano_runtime.errors.escaping import first_line

__all__ = ["Checkpoint", "open_checkpoint"]


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


def open_checkpoint(model: str, revision: str | None) -> Checkpoint:
    """Find, check and load a model.

    Args:
        model: a built-in name, the path of a diffusers folder, or a Hub id, tried in this order.
        revision: branch, tag or commit on the Hub; None takes the default branch.

    Raises:
        CheckpointError: nothing has that name, files are missing or damaged, or a revision is given for a model that
            is not on the Hub.
        PickleOnlyError: the weights are not safetensors.
        UnsupportedModelError: it is not a Stable Diffusion 1 or 2.
        NetworkError: the Hub could not be reached, or refused.
    """
    folder = Path(model).expanduser()
    if revision is not None and (model in BUILT_IN or folder.is_dir()):
        raise CheckpointError(model, f"it is not on the Hub, so it has no revision {revision!r}")
    if model == "demo":
        return _load(builtin.DEMO, Source(model=model, revision=None))
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
        source = Source(model=folder.resolve().name, revision=None)
    else:
        folder, source = fetch(model, revision)
    return _load(folder, source)


def _load(folder: Path, source: Source) -> Checkpoint:
    """Check a diffusers folder and load it in fp32."""
    task = task_of(folder)
    scheduler = check_architecture(folder)
    for component, name in WEIGHTS.items():
        check_weights(folder / component, name)
    readme = folder / "README.md"
    card = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else None
    return Checkpoint(
        name=source.model.rpartition("/")[2],
        source=source,
        licence=licence_of(folder, card, source.model),
        card=card,
        tokenizer=_tokenizer(folder / "tokenizer"),
        text_encoder=load_network(CLIPTextModel, folder / "text_encoder"),
        unet=load_network(UNet2DConditionModel, folder / "unet"),
        vae=load_network(AutoencoderKL, folder / "vae"),
        scheduler=scheduler,
        task=task,
    )


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Load the tokenizer."""
    for name in () if (folder / "tokenizer.json").is_file() else ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise CheckpointError(folder / name, "it is missing")
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library behind it raises plain ones
        raise CheckpointError(folder, first_line(error)) from error
