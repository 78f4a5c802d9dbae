"""Writes a checkpoint in memory as a diffusers folder, in fp32: what ``nano-export`` takes."""

from __future__ import annotations

import shutil
from pathlib import Path

from nano_export.source.checkpoint import Checkpoint

__all__ = ["DEMO", "write"]

DEMO = Path(__file__).parents[2] / "models" / "demo" / "checkpoint"
"""The trained model that comes with this repository."""

_NETWORKS = ("unet", "text_encoder", "vae")


def write(checkpoint: Checkpoint, target: Path, like: Path = DEMO) -> None:
    """Write the networks, and beside them all other files of the folder that the checkpoint was made from.

    Args:
        checkpoint: whose networks are written.
        target: folder, which is created; files in it are replaced.
        like: a diffusers folder, for the tokenizer, the scheduler, the index and the card.
    """
    shutil.copytree(like, target, dirs_exist_ok=True, ignore=lambda *_: set(_NETWORKS))
    for name in _NETWORKS:
        getattr(checkpoint, name).save_pretrained(target / name, safe_serialization=True)
