"""Loads autoencoders: a checkpoint's own, or another one that takes its place (TAESD, a better decoder)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from diffusers import AutoencoderKL, AutoencoderTiny

from nano_export.errors import CheckpointError, UnsupportedModelError
from nano_export.source.architecture import check_autoencoder
from nano_export.source.json_file import read_json
from nano_export.source.network_loading import load_network
from nano_export.source.weights import Weights, find_weights

__all__ = ["Autoencoder", "load_autoencoder", "open_autoencoder"]

Autoencoder: TypeAlias = AutoencoderKL | AutoencoderTiny

_CLASSES: dict[str, type[Any]] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def load_autoencoder(config: dict[str, Any], weights: Weights) -> Autoencoder:
    """Load an autoencoder of the class in its config.

    Args:
        config: of the network.
        weights: its files, checked.

    Raises:
        CheckpointError: its files are damaged, or do not fit each other.
        UnsupportedModelError: it is of another class.
    """
    name = config.get("_class_name", "AutoencoderKL")
    if name not in _CLASSES:
        raise UnsupportedModelError(weights.folder, f"the class {name}", _CLASSES)
    if name == "AutoencoderTiny" and (factor := config.get("upsampling_scaling_factor", 2)) != 2:  # noqa: PLR2004
        raise UnsupportedModelError(weights.folder, f"upsampling_scaling_factor={factor!r}", ["2"])
    loaded: Autoencoder = load_network(_CLASSES[name], "vae", config, weights)
    return loaded


def open_autoencoder(path: Path, latents: int) -> Autoencoder:
    """Check and load the autoencoder of a folder: its own, or a pipeline's with a folder vae/.

    Args:
        path: of the folder.
        latents: channels of the latents that it has to decode.

    Raises:
        CheckpointError: the folder has no usable autoencoder, or one of other latents.
        UnsupportedModelError: it is of another class.
    """
    folder = path / "vae" if (path / "vae").is_dir() else path
    config = read_json(folder / "config.json")
    check_autoencoder(config, folder / "config.json")
    loaded = load_autoencoder(config, find_weights(folder, "vae", None))
    if (channels := loaded.config.latent_channels) != latents:
        raise CheckpointError(folder, f"its latents have {channels} channels, and the checkpoint's have {latents}")
    return loaded
