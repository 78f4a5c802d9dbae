"""The size of an export's pictures: diffusers' default for the checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel

from nano_export.errors import CheckpointError, ImageSizeError
from nano_export.source.picture_size import halves_evenly, picture_size, vae_factor

VAE: dict[str, Any] = {
    "block_out_channels": (8,) * 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
}
UNET: dict[str, Any] = {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "mid_block_type": None,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}


class Stop(Exception):  # noqa: N818 - no error
    """The pipeline has decided how large the picture is."""


def size_in_diffusers(sample_size: object, version: str | None) -> tuple[int, int]:
    """Height and width that diffusers' pipeline decides for, from what it checks first."""
    unet = UNet2DConditionModel(**UNET, sample_size=sample_size)
    if version is not None:
        unet.register_to_config(_diffusers_version=version)
    parts = dict.fromkeys(("text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor"))
    pipeline = StableDiffusionPipeline(AutoencoderKL(**VAE), unet=unet, **parts, requires_safety_checker=False)
    asked: list[tuple[int, int]] = []

    def check(_prompt: str, height: int, width: int, *_: object) -> None:
        asked.append((height, width))
        raise Stop

    pipeline.check_inputs = check
    with pytest.raises(Stop):
        pipeline("a prompt")
    return asked[0]


@pytest.mark.parametrize(
    ("sample_size", "version", "expected"),
    [
        (64, None, 512),
        (96, "0.10.0", 768),
        ([16, 16], None, 128),
        (16, "0.16.0.dev0", 128),
        (32, "0.6.0", 512),
        (32, "0.8.1", 512),
        (32, "0.9.0", 256),
        (96, "0.6.0", 768),
        ([32, 32], "0.6.0", 256),
    ],
)
def test_the_size_is_what_diffusers_draws(sample_size, version, expected):
    assert size_in_diffusers(sample_size, version) == (expected, expected)
    assert picture_size({"sample_size": sample_size, "_diffusers_version": version}, VAE, None) == expected


@pytest.mark.parametrize("levels", [None, 4, [], "44"])
def test_levels_that_are_none_are_named(levels):
    with pytest.raises(CheckpointError, match=r"^vae/config\.json .*its block_out_channels is"):
        picture_size({"sample_size": 64}, {"block_out_channels": levels}, None)


def test_a_size_that_is_too_large_is_refused_and_its_key_is_named():
    with pytest.raises(ImageSizeError, match=r"1280 pixels, which sample_size in unet/config\.json asks for,"):
        picture_size({"sample_size": 160}, VAE, None)
    with pytest.raises(ImageSizeError, match="a size of 1280 pixels cannot"):
        picture_size({"sample_size": 64}, VAE, 1280)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_pictures_have_whole_latents_and_sides_that_diffusers_draws(levels):
    vae = {"block_out_channels": [8] * levels}
    assert picture_size({"sample_size": 64}, vae, 24) == 24
    with pytest.raises(ImageSizeError, match="a size of 20 pixels"):
        picture_size({"sample_size": 64}, vae, 20)


def test_a_level_may_halve_with_a_rest():
    unet = {"block_out_channels": [8] * 4}
    assert picture_size({"sample_size": 12, **unet}, VAE, None) == 96
    assert not halves_evenly(unet, 12)
    assert halves_evenly(unet, 16)


def test_a_tiny_autoencoder_counts_its_levels_as_diffusers_does():
    tiny = AutoencoderTiny()
    assert vae_factor(tiny.config) == 2 ** (len(tiny.config.block_out_channels) - 1) == 8
    assert vae_factor({"decoder_block_out_channels": [64] * 4}) == 8  # as files have it


@pytest.mark.parametrize("sample_size", [None, [64], "64", 0, [64, 96], {}])
def test_a_checkpoint_without_a_size_needs_one(sample_size):
    with pytest.raises(CheckpointError, match=r"^unet/config\.json .*give --size"):
        picture_size({"sample_size": sample_size}, VAE, None)
    assert picture_size({"sample_size": sample_size}, VAE, 256) == 256
