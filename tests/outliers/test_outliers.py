"""The makers of checkpoints with outlier channels: they change no picture, and what they make are outliers.

Every kind of path is tried in float64, in small networks without a group norm's epsilon. There, scaling is exact to
1e-9, and a path with one reader or writer forgotten is not.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tests.outliers.folded import TOLERANCE, Folding, apply, change, copied, fold, paths_of
from tests.outliers.learned import Lesson, learn, psnr
from tests.outliers.ratios import ratios
from tests.outliers.rotated import rotate, rotation
from tests.outliers.shaped import KINDS, shape
from tests.outliers.shifts import shifts
from tests.outliers.writing import DEMO, write
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from nano_export.source.checkpoint import open_checkpoint

EXACT = 1e-9  # float64 rounds at 1e-16, and a hundred layers multiply that
CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
UNETS: dict[str, dict[str, Any]] = {
    "plain": {},
    "relu": {"act_fn": "relu"},
    "projected": {"encoder_hid_dim": 16, "encoder_hid_dim_type": "text_proj", "use_linear_projection": True},
    "added": {
        "down_block_types": ("SimpleCrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "SimpleCrossAttnUpBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    },
    "skipping": {
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "resnet_skip_time_act": True,
        "resnet_time_scale_shift": "scale_shift",
    },
}


def networks(name: str) -> Any:
    """Return seeded random networks in float64, with the parts of one of ``UNETS``."""
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "down_block_types": (CROSS[0], "DownBlock2D"),
        "up_block_types": ("UpBlock2D", CROSS[1]),
        **UNETS[name],
    }
    unet: Any = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=16,
        norm_num_groups=8,
        **options,
    )
    text = CLIPTextConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        hidden_act="relu" if name == "relu" else "gelu",
    )
    vae: Any = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
    )
    parts = SimpleNamespace(unet=unet, text_encoder=CLIPTextModel(text), vae=vae)
    for network in (parts.unet, parts.text_encoder, parts.vae):
        network.double().eval()
        for module in network.modules():
            if isinstance(module, nn.GroupNorm):
                module.eps = 0.0
            if getattr(module, "bias", None) is not None:
                nn.init.normal_(module.bias, std=0.1)
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return parts


@torch.no_grad()
def outputs(parts: Any) -> list[torch.Tensor]:
    """Run all networks once, the text encoder into the UNet."""
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=random, dtype=torch.float64)
    hidden = parts.text_encoder(torch.arange(16).view(2, 8))[0]
    noise = parts.unet(latents, torch.tensor(500), hidden).sample
    picture = parts.vae.decode(latents).sample
    return [noise, picture, parts.vae.encode(picture).latent_dist.parameters]


def farthest(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    return max(
        float(((new - old).abs().max() / (old.max() - old.min())).nan_to_num(nan=1e9))
        for old, new in zip(before, after, strict=True)
    )


def kind(path: Any) -> str:
    """Return what a path's name says about its layers, without the place."""
    text = path.name.rpartition(": ")[2]
    return f"{path.component} stream" if text.startswith("stream") else f"{path.component} {text}"


@pytest.mark.parametrize("name", UNETS)
def test_scaling_every_path_and_shifting_every_bias_changes_nothing(name):
    parts = networks(name)
    before = outputs(parts)
    random = torch.Generator().manual_seed(2)
    for path in paths_of(parts):
        count = int(path.blocks.max()) + 1
        factors = torch.exp(2 * torch.randn(count, generator=random, dtype=torch.float64))
        apply(path, factors[path.blocks])
    for shift in shifts(parts.unet, parts.text_encoder, parts.vae):
        shift.apply(10 * torch.randn(len(shift.bias), generator=random, dtype=torch.float64))

    assert farthest(before, outputs(parts)) < EXACT


def test_a_path_with_one_part_forgotten_is_noticed():
    seen: set[str] = set()
    for name in UNETS:
        parts = networks(name)
        before = outputs(parts)
        for path in paths_of(parts):
            if kind(path) in seen:
                continue
            seen.add(kind(path))
            for side in ("writers", "readers"):
                if not (kept := getattr(path, side)):
                    continue  # a norm is the only reader of this stream
                incomplete = replace(path, **{side: kept[1:]})
                apply(incomplete, torch.full(path.blocks.shape, 3.0, dtype=torch.float64))

                assert farthest(before, outputs(parts)) > 1e3 * EXACT, f"{path.name}: {side}"
                apply(incomplete, torch.full(path.blocks.shape, 1 / 3, dtype=torch.float64))
        assert farthest(before, outputs(parts)) < EXACT


def test_a_shift_that_one_layer_does_not_take_away_is_noticed():
    parts = networks("plain")
    before = outputs(parts)
    found = list(shifts(parts.unet, parts.text_encoder, parts.vae))
    for shift in {shift.name.rpartition(": ")[2]: shift for shift in found}.values():
        if shift.chains:  # keys have none: softmax takes their shift away
            constant = torch.ones(len(shift.bias), dtype=torch.float64)
            constant[::2] = -2  # a layer norm behind does not see what all channels have
            incomplete = replace(shift, chains=shift.chains[1:])
            incomplete.apply(constant)

            assert farthest(before, outputs(parts)) > 1e3 * EXACT, shift.name
            incomplete.apply(-constant)
    assert {shift.name.rpartition(": ")[2] for shift in found} == {
        *("layer_norm1", "layer_norm2", "v_proj", "k_proj", "norm3", "norm", "to_v", "to_k", "group_norm"),
        "final_layer_norm",
    }


def test_the_paths_are_all_that_the_networks_have():
    found = {name: {kind(path) for path in paths_of(networks(name))} for name in UNETS}

    assert found["plain"] == {
        *("unet layer norm -> attention", "unet norm3 -> ff", "unet values -> ff.net.2", "unet norm -> proj_in"),
        *("unet value -> to_out", "unet query against key", "unet stream"),
        *("text_encoder layer_norm1", "text_encoder layer_norm2", "text_encoder v_proj -> out_proj"),
        *("text_encoder q_proj against k_proj", "text_encoder final_layer_norm"),
        *("vae value -> to_out", "vae query against key", "vae group_norm", "vae stream"),
        *("vae post_quant_conv -> conv_in", "vae conv_out -> quant_conv"),
    }
    assert found["relu"] - found["plain"] == {"unet norm1 -> conv1", "unet norm2 -> conv2", "text_encoder fc1 -> fc2"}
    assert found["skipping"] - found["added"] == {"unet time_embedding"}
    assert found["projected"] - found["plain"] == {"unet encoder_hid_proj"}
    assert found["added"] - found["plain"] == {"unet group_norm"}


@pytest.fixture(scope="module")
def demo():
    return open_checkpoint(str(DEMO), None)


@pytest.mark.slow
def test_a_folded_demo_draws_the_same_with_channels_that_stand_out(demo, tmp_path):
    folded, changed = fold(demo, Folding(share=0.05, scale=100.0, spread=0.4, shift=10.0, seed=3))
    write(folded, tmp_path)
    opened = open_checkpoint(str(tmp_path), None)
    plain, scaled = ratios(demo), ratios(opened)

    assert changed < TOLERANCE
    assert all(torch.equal(value, opened.unet.state_dict()[name]) for name, value in folded.unet.state_dict().items())
    assert plain.quantile(0.9) < 20
    assert scaled.quantile(0.9) > 100


def test_a_rotated_demo_draws_the_same_with_channels_that_stand_out(demo):
    rotated, changed = rotate(demo, seed=1)

    assert changed < TOLERANCE
    assert ratios(rotated).quantile(0.9) > 1.3 * ratios(demo).quantile(0.9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_demo_of_another_shape_draws_the_same(demo, kind):
    shaped, changed = shape(demo, kind, seed=1)

    assert changed < TOLERANCE
    weights = demo.unet.state_dict() | demo.text_encoder.state_dict() | demo.vae.state_dict()
    others = shaped.unet.state_dict() | shaped.text_encoder.state_dict() | shaped.vae.state_dict()
    assert any(not torch.equal(weights[name], others[name]) for name in weights)


def test_a_rotation_keeps_ones_and_gathers_the_largest_part():
    random = torch.Generator().manual_seed(0)
    tokens = torch.randn(1000, 60, generator=random, dtype=torch.float64)
    tokens[:, :30] += 5 * torch.randn(1000, 1, generator=random, dtype=torch.float64)  # spread over half the channels
    turn = rotation(tokens.T @ tokens, seed=0)
    power = (tokens @ turn.T).square().mean(0).sort().values

    assert torch.allclose(turn @ turn.T, torch.eye(60, dtype=torch.float64))
    assert torch.allclose(turn.sum(1), torch.ones(60, dtype=torch.float64))
    assert power[-1] > 50 * power[30]


@pytest.mark.slow
def test_a_lesson_pushes_channels_up_and_stays_close(tmp_path):
    def lesson():
        torch.manual_seed(0)
        layers = [layer for _ in range(3) for layer in (nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU())]
        teacher = nn.Sequential(*layers, nn.Linear(32, 8))
        return Lesson(copy.deepcopy(teacher), teacher, lambda one, random: one(torch.randn(64, 32, generator=random)))

    interrupted, whole = lesson(), lesson()
    ticks = count()
    steps: dict[str, Any] = {"ratio": 4.0, "seconds": 200, "clock": lambda: next(ticks)}  # a second for each step
    for progress in learn(interrupted, state=tmp_path / "a.pt", **steps):
        if progress.step == 60:
            break
    resumed = learn(lesson(), state=tmp_path / "a.pt", **steps)
    assert next(resumed).step == 51  # the state of step 50 was kept
    *_, last = learn(whole, state=tmp_path / "b.pt", **steps)

    assert last.step == 199
    assert last.ratio > 2.0
    assert psnr(whole) > 20
    assert type(whole.student[1]) is nn.Linear  # plain weights again


def test_forgetting_a_reader_is_refused_on_the_demo(demo):
    broken = copied(demo)
    path = next(one for one in paths_of(broken) if kind(one) == "unet layer norm -> attention")
    apply(replace(path, readers=path.readers[1:]), torch.full(path.blocks.shape, 1.5))

    assert change(demo, broken) > TOLERANCE
