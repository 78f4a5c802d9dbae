"""The modules that become graphs against diffusers' and transformers' own, untouched ones."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from nano_export.networks.text_encoder import TextEncoder
from nano_export.networks.unet import HoistedUNet, PromptKV, StandardUNet, TimeBiases
from nano_export.networks.vae import VaeDecoder, VaeEncoder
from nano_export.source import builtin

# Float32: the attention is written out and the scale goes into one of its factors, so that roundings differ.
TOLERANCE = 1e-5
# What every deliberate mistake must exceed.
MISTAKE = 100 * TOLERANCE
TIMESTEPS = torch.tensor([981.0, 500.0, 1.0])


@dataclass(frozen=True)
class Hoisted:
    """A UNet taken apart."""

    prompt_kv: PromptKV
    time_biases: TimeBiases
    rest: HoistedUNet

    def __call__(self, sample: Tensor, keys_values: tuple[Tensor, ...], biases: tuple[Tensor, ...]) -> Tensor:
        return self.rest(sample, keys_values, biases)


@dataclass(frozen=True)
class Inputs:
    sample: Tensor
    hidden: Tensor


def relative(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module", autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def parts() -> builtin.Parts:
    return builtin.build("tiny")


@pytest.fixture(scope="module", params=["2", "1"], ids=["sd2", "sd1"])
def unet(request, parts) -> UNet2DConditionModel:
    """Linear projections and a head count per block as in SD 2, or convolutions and one count for all as in SD 1.

    Norms scale and shift: those of an untrained network do not.
    """
    torch.manual_seed(1)
    config = {**parts.unet.config, "attention_head_dim": 8, "use_linear_projection": False}
    unet = parts.unet if request.param == "2" else UNet2DConditionModel.from_config(config)
    for name, parameter in unet.named_parameters():
        if "norm" in name:
            parameter.add_(torch.rand_like(parameter), alpha=0.5)
    return unet.eval()


@pytest.fixture(scope="module")
def inputs(parts) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    width = parts.unet.config.cross_attention_dim
    return Inputs(torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 77, width, generator=generator))


@pytest.fixture(scope="module")
def hoisted(unet) -> Hoisted:
    own = copy.deepcopy(unet)
    prompt_kv, time_biases = PromptKV(own), TimeBiases(own)
    return Hoisted(prompt_kv, time_biases, HoistedUNet(own))


def test_the_parts_together_are_the_whole(unet, hoisted, inputs):
    keys_values, biases = hoisted.prompt_kv(inputs.hidden), hoisted.time_biases(TIMESTEPS)
    for index, timestep in enumerate(TIMESTEPS):
        expected = unet(inputs.sample, timestep, inputs.hidden).sample
        actual = hoisted(inputs.sample, keys_values, tuple(bias[index : index + 1] for bias in biases))
        assert relative(actual, expected) < TOLERANCE


def test_wrong_wiring_is_far_off(unet, hoisted, inputs):
    """Negative controls: each input of the hoisted UNet matters, and so does its place."""
    keys_values, biases = hoisted.prompt_kv(inputs.hidden), hoisted.time_biases(TIMESTEPS[:1])
    expected = unet(inputs.sample, TIMESTEPS[0], inputs.hidden).sample
    for index, bias in enumerate(biases):
        off = (*biases[:index], bias.flip(1), *biases[index + 1 :])
        assert relative(hoisted(inputs.sample, keys_values, off), expected) > MISTAKE, hoisted.time_biases.names[index]
    for index, name in enumerate(hoisted.prompt_kv.names):
        moved = list(keys_values)
        moved[index] = moved[index].flip(1)  # the heads
        assert relative(hoisted(inputs.sample, tuple(moved), biases), expected) > MISTAKE, name

    twin = next(i for i in range(2, len(keys_values), 2) if keys_values[i].shape == keys_values[0].shape)
    swapped = list(keys_values)
    swapped[:2], swapped[twin : twin + 2] = keys_values[twin : twin + 2], keys_values[:2]
    assert relative(hoisted(inputs.sample, tuple(swapped), biases), expected) > MISTAKE

    other_time = hoisted.time_biases(TIMESTEPS[1:2])
    assert relative(hoisted(inputs.sample, keys_values, other_time), expected) > MISTAKE
    two_prompts = tuple(tensor.flip(0) for tensor in keys_values)
    assert relative(hoisted(inputs.sample, two_prompts, biases), expected) > MISTAKE


def test_outputs_are_named_in_the_order_they_come(hoisted, inputs):
    keys_values = dict(zip(hoisted.prompt_kv.names, hoisted.prompt_kv(inputs.hidden), strict=True))
    biases = dict(zip(hoisted.time_biases.names, hoisted.time_biases(TIMESTEPS), strict=True))
    assert len(keys_values) == 2 * len(hoisted.prompt_kv.to_k)
    first = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    assert keys_values[f"{first}.key"].shape == keys_values[f"{first}.value"].shape
    assert keys_values[f"{first}.key"].shape[2] == 77
    assert biases["mid_block.resnets.0.time_bias"].shape == (3, 96)


def test_nothing_hoisted_is_left_behind(unet, hoisted):
    """Every parameter of the original is in exactly one part, but for those that others took in."""
    parts = (hoisted.prompt_kv, hoisted.time_biases, hoisted.rest)
    counts = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    assert all(counts)
    taken = [
        p.numel() for name, p in unet.named_parameters() if re.search(r"conv1\.bias|attentions\.\d+\.norm\.", name)
    ]
    assert len(taken) == len(hoisted.time_biases.names) + 2 * len(hoisted.prompt_kv.to_k)
    assert sum(counts) == sum(parameter.numel() for parameter in unet.parameters()) - sum(taken)


def test_the_standard_unet_is_diffusers_own(unet, inputs):
    standard = StandardUNet(copy.deepcopy(unet))
    expected = unet(inputs.sample, torch.tensor([500]), inputs.hidden).sample
    assert relative(standard(inputs.sample, torch.tensor([500]), inputs.hidden), expected) < TOLERANCE
    assert relative(standard(inputs.sample, torch.tensor([501]), inputs.hidden), expected) > TOLERANCE


def test_the_text_encoder_is_transformers_own(parts):
    ids = torch.randint(0, 1024, (2, 77), generator=torch.Generator().manual_seed(0))
    own = TextEncoder(copy.deepcopy(parts.text_encoder).eval())
    expected = parts.text_encoder.eval()(ids).last_hidden_state
    assert relative(own(ids), expected) < TOLERANCE
    assert relative(own(ids.flip(1)), expected) > MISTAKE


def test_both_halves_of_the_vae_are_diffusers_own(parts):
    vae = parts.vae.eval()
    encoder, decoder = VaeEncoder(copy.deepcopy(vae)), VaeDecoder(copy.deepcopy(vae))
    generator = torch.Generator().manual_seed(0)
    latents, pixels = (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1,
    )
    decoded, moments = vae.decode(latents).sample, vae.encode(pixels).latent_dist.parameters
    assert relative(decoder(latents), decoded) < TOLERANCE
    assert relative(encoder(pixels), moments) < TOLERANCE
    assert relative(decoder(latents.flip(0)), decoded) > MISTAKE
    assert relative(encoder(pixels.flip(0)), moments) > MISTAKE
