"""Networks that diffusers' Stable Diffusion pipelines cannot draw with, refused by their configs alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nano_export.errors import CheckpointError, UnsupportedModelError
from nano_export.source.architecture import check_architecture


def folder_of(path: Path, **configs: dict[str, Any]) -> Path:
    """Write a folder of configs; what a test does not name is diffusers' default."""
    for part in ("text_encoder", "unet", "vae"):
        (path / part).mkdir()
        (path / part / "config.json").write_text(json.dumps(configs.get(part, {})))
    return path


@pytest.mark.parametrize(
    ("part", "config", "named"),
    [
        ("unet", {"num_class_embeds": 10}, "num_class_embeds=10"),
        ("unet", {"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ("unet", {"class_embed_type": "projection"}, "class_embed_type='projection'"),
        ("unet", {"addition_embed_type": "text_time"}, "addition_embed_type='text_time'"),
        ("unet", {"addition_embed_type": "image"}, "addition_embed_type='image'"),
        ("unet", {"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type='image_proj'"),
        ("unet", {"dual_cross_attention": True}, "dual_cross_attention=true"),
        ("unet", {"out_channels": 8}, "out_channels=8"),
        ("vae", {"latent_channels": 16}, "16 latent channels"),
        ("vae", {"out_channels": 4}, "out_channels=4"),
        ("vae", {"in_channels": 1}, "in_channels=1"),
        ("unet", {"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel"),
        ("text_encoder", {"use_attention_mask": True}, "use_attention_mask"),
    ],
)
def test_what_needs_more_than_a_prompt_is_refused_by_its_key(part, config, named, tmp_path):
    with pytest.raises(UnsupportedModelError) as caught:
        check_architecture(folder_of(tmp_path, **{part: config}))
    assert named in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("factor", [None, 0, -0.18215, "0.18215", True, float("nan"), float("inf"), [1.0]])
def test_latents_that_cannot_be_divided_are_refused(factor, tmp_path):
    """diffusers fails with them, or draws nothing."""
    with pytest.raises(CheckpointError, match=r"vae/config\.json .* its scaling_factor is .*, not a number above 0"):
        check_architecture(folder_of(tmp_path, vae={"scaling_factor": factor}))


@pytest.mark.parametrize(
    "unet",
    [
        {},
        {"addition_embed_type": "text"},
        {"mid_block_type": None},
        {"class_embed_type": "no such kind"},  # diffusers takes it for none
        {"class_embed_type": "no such kind", "num_class_embeds": 10},
        {"time_cond_proj_dim": 256},
        {"encoder_hid_dim": 64},
        {"resnet_time_scale_shift": "scale_shift", "only_cross_attention": [True, False]},
        {"in_channels": 9},
    ],
)
def test_all_else_is_left_to_diffusers(unet, tmp_path):
    check_architecture(folder_of(tmp_path, unet=unet))
