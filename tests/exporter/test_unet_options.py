"""Options of UNets and autoencoders that Stable Diffusion's own do not use, against diffusers' modules, untouched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.models.unets.unet_2d_blocks import DownBlock2D
from torch import Tensor

from nano_export.networks.hoistable import why_not_hoistable
from nano_export.networks.unet import HoistedUNet, PromptKV, StandardUNet, TimeBiases
from nano_export.networks.vae import VaeDecoder, VaeEncoder

# Float32: attention is written out, and factors are multiplied in another order.
TOLERANCE = 1e-5
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 48,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
RESNET = {
    "down_block_types": ("CrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "CrossAttnUpBlock2D"),
}
SIMPLE = {
    "down_block_types": ("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
}
HOISTED: dict[str, dict[str, Any]] = {
    "no middle block": {"mid_block_type": None},
    "a middle block without attention": {"mid_block_type": "UNetMidBlock2D"},
    "scale and shift": {"resnet_time_scale_shift": "scale_shift"},
    "cross-attention alone": {"only_cross_attention": True},
    "cross-attention alone in some": {"only_cross_attention": [True, False]},
    "a centred sample": {"center_input_sample": True},
    "activations of the time": {"time_embedding_act_fn": "gelu", "timestep_post_act": "silu"},
    "another activation": {"act_fn": "gelu"},
    "other kernels": {"conv_in_kernel": 1, "conv_out_kernel": 5},
    "waves in another order": {"freq_shift": 1, "flip_sin_to_cos": False},
    "Fourier's waves": {"time_embedding_type": "fourier", "time_embedding_dim": 64},
    "factors": {"mid_block_scale_factor": 2.0, "downsample_padding": 0, "dropout": 0.3, "norm_eps": 1e-3},
    "boxes that nobody draws": {"attention_type": "gated"},
    "projected prompts": {"encoder_hid_dim": 48, "cross_attention_dim": 32},
    "lists": {"transformer_layers_per_block": [2, 1], "layers_per_block": [1, 2], "attention_head_dim": [4, 8]},
    "another way up": {
        "transformer_layers_per_block": [[1, 2], 1],
        "layers_per_block": 1,
        "reverse_transformer_layers_per_block": [1, [2, 1]],
    },
    "blocks that resize": {**RESNET, "resnet_skip_time_act": True, "resnet_out_scale_factor": 1.3},
    "self-attention": {
        "down_block_types": ("CrossAttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "CrossAttnUpBlock2D"),
    },
    "embedded guidance": {"time_cond_proj_dim": 16},
}
STANDARD: dict[str, tuple[dict[str, Any], str]] = {
    "added keys and values": (SIMPLE, "SimpleCrossAttnDownBlock2D"),
    "added keys and values alone": ({**SIMPLE, "mid_block_only_cross_attention": True}, "SimpleCrossAttnDownBlock2D"),
    "their guidance": ({**SIMPLE, "time_cond_proj_dim": 16}, "SimpleCrossAttnDownBlock2D"),
    "Karras' blocks": (
        {
            "down_block_types": ("KCrossAttnDownBlock2D", "KDownBlock2D"),
            "up_block_types": ("KUpBlock2D", "KCrossAttnUpBlock2D"),
        },
        "KCrossAttnDownBlock2D",
    ),
    "no prompt": (
        {
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            "mid_block_type": None,
        },
        "no layer that attends to the prompt",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def unet_of(options: dict[str, Any]) -> UNet2DConditionModel:
    """Return a seeded UNet whose norms scale and shift, as those of an untrained one do not."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel(**{**UNET, **options}).eval()
    for name, parameter in unet.named_parameters():
        if "norm" in name:
            parameter.add_(torch.rand_like(parameter), alpha=0.5)
    return unet


def inputs_of(unet: UNet2DConditionModel) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Return a sample, a fractional timestep, hidden states, and the embedded guidance of UNets that take it."""
    torch.manual_seed(4)
    width = unet.config.time_cond_proj_dim
    guidance = {} if width is None else {"timestep_cond": torch.randn(1, width).repeat(2, 1)}
    return torch.randn(2, 4, 8, 8), torch.tensor([37.5]), torch.randn(2, 77, 48), guidance


def relative(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", HOISTED)
def test_what_hoisting_knows_is_hoisted_exactly(name):
    unet = unet_of(HOISTED[name])
    sample, timestep, hidden, guidance = inputs_of(unet)
    expected = unet(sample, timestep, hidden, **guidance).sample
    assert why_not_hoistable(unet) is None
    keys_values = PromptKV(unet)(hidden)
    biases = TimeBiases(unet)(timestep, *(row[:1] for row in guidance.values()))
    hoisted = HoistedUNet(unet)
    assert relative(hoisted(sample, keys_values, biases), expected) < TOLERANCE
    assert relative(hoisted(sample, keys_values, biases), 1.001 * expected) > TOLERANCE


@pytest.mark.parametrize("name", STANDARD)
def test_what_hoisting_does_not_know_runs_as_diffusers_runs_it(name):
    options, why = STANDARD[name]
    unet = unet_of(options)
    sample, timestep, hidden, guidance = inputs_of(unet)
    expected = unet(sample, timestep, hidden, **guidance).sample
    found = why_not_hoistable(unet)
    assert found is not None
    assert why in found
    assert relative(StandardUNet(unet)(sample, timestep, hidden, *guidance.values()), expected) < TOLERANCE


def test_a_block_of_an_unknown_class_is_not_hoisted():
    class Unknown(DownBlock2D):  # type: ignore[misc]
        """Could do anything with the timestep."""

    unet = unet_of({})
    assert why_not_hoistable(unet) is None
    unet.down_blocks[1].__class__ = Unknown
    assert why_not_hoistable(unet) == "Unknown (down_blocks.1)"


def test_an_attention_with_a_norm_of_its_own_is_not_hoisted():
    unet = unet_of({})
    attention = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    attention.norm_cross = torch.nn.LayerNorm(48)
    found = why_not_hoistable(unet)
    assert found is not None
    assert "cross_attention_norm" in found


KL: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
}
AUTOENCODERS: dict[str, dict[str, Any]] = {
    "no 1x1 convolutions": {"use_quant_conv": False, "use_post_quant_conv": False},
    "no attention": {"mid_block_add_attention": False},
    "attention everywhere": {
        "down_block_types": ("AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    },
    "another activation": {"act_fn": "gelu", "norm_num_groups": 4, "layers_per_block": 2},
    "more channels": {"latent_channels": 8},
    "keys that no pipeline reads": {"shift_factor": 0.5, "latents_mean": [0.1] * 4, "latents_std": [2.0] * 4},
}


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_every_autoencoder_is_diffusers_own(name):
    torch.manual_seed(5)
    vae = AutoencoderKL(**{**KL, **AUTOENCODERS[name]}).eval()
    latents, pixels = torch.randn(2, vae.config.latent_channels, 8, 8), torch.rand(2, 3, 16, 16) * 2 - 1
    decoded, moments = vae.decode(latents).sample, vae.encode(pixels).latent_dist.parameters
    assert relative(VaeDecoder(copy.deepcopy(vae))(latents), decoded) < TOLERANCE
    assert relative(VaeEncoder(copy.deepcopy(vae))(pixels), moments) < TOLERANCE


def test_the_tiny_autoencoder_is_diffusers_own():
    torch.manual_seed(6)
    channels, blocks = (16, 16), (1, 1)
    vae = AutoencoderTiny(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
    ).eval()
    latents, pixels = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 16, 16) * 2 - 1
    assert relative(VaeDecoder(copy.deepcopy(vae))(latents), vae.decode(latents).sample) < TOLERANCE
    assert relative(VaeEncoder(copy.deepcopy(vae))(pixels), vae.encode(pixels).latents) < TOLERANCE
