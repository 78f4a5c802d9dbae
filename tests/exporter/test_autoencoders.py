"""Autoencoders that take the place of a checkpoint's, or that show previews: which are taken, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch.utils.flop_counter import FlopCounterMode

from nano_export.errors import CheckpointError, UnsupportedModelError
from nano_export.source.autoencoders import open_autoencoder
from nano_export.source.checkpoint import Checkpoint, preview_autoencoder

LEVELS = (8, 8)


def tiny(**options: Any) -> AutoencoderTiny:
    torch.manual_seed(1)
    sizes = {"encoder_block_out_channels": LEVELS, "decoder_block_out_channels": LEVELS}
    return AutoencoderTiny(**sizes, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), **options)


def plain() -> AutoencoderKL:
    torch.manual_seed(2)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(block_out_channels=LEVELS, norm_num_groups=4, **blocks)


@pytest.mark.parametrize("made", [tiny(), plain()], ids=["tiny", "KL"])
@pytest.mark.parametrize("inside", ["", "vae"])
def test_both_classes_are_read_from_their_own_folder_and_from_a_pipelines(made, inside, tmp_path):
    made.save_pretrained(tmp_path / inside)
    found = open_autoencoder(tmp_path, latents=4)
    assert type(found) is type(made)
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in found.state_dict().items())


def test_the_tiny_one_decodes_with_a_tenth_of_the_arithmetic():
    """The published sizes: TAESD is diffusers' default, the other is Stable Diffusion's; 64 x 64 latents."""
    counts = []
    with torch.device("meta"):
        levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        large = AutoencoderKL(**levels, block_out_channels=(128, 256, 512, 512), layers_per_block=2)
        latents = torch.zeros(1, 4, 64, 64)
        for vae in (large, AutoencoderTiny()):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                vae.decode(latents)
            counts.append(counter.get_total_flops())
    assert 0 < counts[1] < counts[0] / 10


def test_other_latents_are_refused(tmp_path):
    tiny(latent_channels=16).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="its latents have 16 channels, and the checkpoint's have 4"):
        open_autoencoder(tmp_path, latents=4)


def test_another_class_is_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_class_name": "VQModel"}))
    with pytest.raises(UnsupportedModelError, match="VQModel"):
        open_autoencoder(tmp_path, latents=4)


def test_a_folder_without_one_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError):
        open_autoencoder(tmp_path, latents=4)


def test_previews_have_the_size_of_the_pictures(tmp_path):
    tiny().save_pretrained(tmp_path)
    own = SimpleNamespace(latent_channels=4, block_out_channels=(8, 8, 8, 8))
    checkpoint = cast("Checkpoint", SimpleNamespace(vae=SimpleNamespace(config=own)))
    assert preview_autoencoder(checkpoint, None) is None
    with pytest.raises(CheckpointError, match="another size"):
        preview_autoencoder(checkpoint, tmp_path)
