"""The files of a diffusers folder that an export reads; a Hub repository has the same."""

from __future__ import annotations

__all__ = ["PICKLES", "SMALL_FILES", "WEIGHTS", "is_weight"]

WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
"""Folder of each network -> its weights, unless they are in shards."""

PICKLES = (".bin", ".ckpt")
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


def is_weight(folder: str, name: str) -> bool:
    """Return whether a path is the plain fp32 safetensors weight of a network, or a shard or the index of it.

    Args:
        folder: of the network.
        name: POSIX path inside the repository.
    """
    stem = WEIGHTS[folder].removesuffix(".safetensors")
    rest = name.removeprefix(f"{folder}/{stem}")
    return rest in (".safetensors", ".safetensors.index.json") or (
        rest.startswith("-0") and rest.endswith(".safetensors")
    )
