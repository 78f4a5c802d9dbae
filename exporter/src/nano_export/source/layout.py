"""The files of a diffusers folder that an export reads; a Hub repository has the same.

Weights come as one file or in shards, and several times over: a variant ("fp16", "non_ema") stands in the name.

    diffusion_pytorch_model.safetensors                       diffusion_pytorch_model.fp16.safetensors
    diffusion_pytorch_model.safetensors.index.json            diffusion_pytorch_model.safetensors.index.fp16.json
    diffusion_pytorch_model-00001-of-00002.safetensors        diffusion_pytorch_model.fp16-00001-of-00002.safetensors
    diffusers until 0.30: diffusion_pytorch_model.safetensors.fp16.index.json, -00001-of-00002.fp16.safetensors
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

__all__ = ["PICKLES", "SMALL_FILES", "WEIGHTS", "Choice", "choose_weights", "variants_of"]

WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
"""Folder of each network -> its weights, unless they are in shards."""

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
"""Suffixes of weights that are never read: a pickle can run code."""

SMALL_FILES = (
    "model_index.json",
    "README.md",
    "LICENSE*",
    "scheduler/scheduler_config.json",
    "tokenizer/*.json",
    "tokenizer/*.txt",
    *(f"{folder}/config.json" for folder in WEIGHTS),
)
"""Patterns of everything but weights."""

_VARIANT = r"[A-Za-z0-9_-]+?"
_PREFERRED = ("fp32", "fp16", "bf16")  # the nearest to full precision first


@dataclass(frozen=True)
class Choice:
    """The files of one network's weights: one file, or an index and shards.

    Attributes:
        variant: that stands in the names; None for the plain ones.
        whole: name of the file with all weights; None where there are shards only.
        index: name of the shards' index; None without one.
        shards: names of the shards, in order.
    """

    variant: str | None
    whole: str | None
    index: str | None
    shards: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All these names."""
        return tuple(name for name in (self.whole, self.index, *self.shards) if name is not None)


def choose_weights(component: str, names: Collection[str], variant: str | None) -> Choice | None:
    """Choose among the files of a network's folder as diffusers' ``from_pretrained(variant=...)`` does.

    Where the asked variant has no files, the plain ones are taken, as diffusers does. Where nothing is asked and there
    are no plain files, which diffusers refuses, a variant is found: the one with the highest precision.

    Args:
        component: folder of the network, as in ``WEIGHTS``.
        names: of the files in it.
        variant: that was asked for; None for the plain files.

    Returns:
        The files; None if there are none, or none of one of several variants.
    """
    found = variants_of(component, names)
    if variant in found or None in found:
        chosen = variant if variant in found else None
    elif variant is not None or not found:
        return None
    else:
        known = [name for name in _PREFERRED if name in found]
        if not known and len(found) > 1:
            return None
        chosen = known[0] if known else next(iter(found))
    return _choice(component, names, chosen)


def variants_of(component: str, names: Iterable[str]) -> list[str | None]:
    """Return the variants of which a folder has weights, sorted; None, for the plain files, is the first.

    Args:
        component: folder of the network, as in ``WEIGHTS``.
        names: of the files in it.
    """
    stem = re.escape(WEIGHTS[component].removesuffix(".safetensors"))
    shard = r"-\d{5}-of-\d{5}"
    file = re.compile(rf"{stem}(?:\.({_VARIANT}))?(?:{shard})?(?:\.({_VARIANT}))?\.safetensors")
    found = {match[1] if match[2] is None else match[2] for name in names if (match := file.fullmatch(name))}
    return sorted(found, key=lambda variant: (variant is not None, variant))


def _choice(component: str, names: Collection[str], variant: str | None) -> Choice:
    """Return the files of a variant that a folder has."""
    stem = WEIGHTS[component].removesuffix(".safetensors")
    dotted = "" if variant is None else f".{variant}"
    whole = f"{stem}{dotted}.safetensors"
    indexes = (
        f"{stem}.safetensors.index{dotted}.json",
        f"{stem}.safetensors{dotted}.index.json",
        f"{stem}{dotted}.safetensors.index.json",
    )
    shard = re.compile(
        rf"{re.escape(stem + dotted)}-\d{{5}}-of-\d{{5}}\.safetensors"
        rf"|{re.escape(stem)}-\d{{5}}-of-\d{{5}}{re.escape(dotted)}\.safetensors"
    )
    return Choice(
        variant=variant,
        whole=whole if whole in names else None,
        index=next((index for index in indexes if index in names), None),
        shards=tuple(sorted(name for name in names if shard.fullmatch(name))),
    )
