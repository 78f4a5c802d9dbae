"""Random checkpoints of the families of Stable Diffusion 1 and 2, each drawn by diffusers before it is taken.

A seed is one checkpoint, the same every time.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeAlias

from tests.checkpoints.given import Given, plain
from tests.checkpoints.outcome import FINE, Outcome
from tests.checkpoints.recipes import EOS, Drawing, Recipe
from tests.checkpoints.reference import Reference
from tests.checkpoints.schedulers import random_scheduler

__all__ = ["Networks", "fault", "given", "random_recipe"]

Networks: TypeAlias = Literal["pools", "any", "plain"]
"""From pools, which a run traces once; any, each another one; or plain: one small Stable Diffusion 1.5."""

_ATTEMPTS = 40
_POOLS = {"unet": 24, "vae": 6, "text": 3}
_CROSS_DOWN, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_ACTIVATIONS = ("silu", "gelu", "mish", "relu", "swish")
_PROMPTS = (
    "A photo of the cat in the hat, oil painting",
    "a house",
    "portrait of an astronaut; neon, 35mm, f/1.8 (highly detailed:1.2) <lora:x:1> the the the",
    "ein Fuchs im Schnee, Öl auf Leinwand, 狐狸",
    "an owl " * 60,
    "",
)


def given(seed: int, folder: Path, networks: Networks) -> Given:
    """Write the checkpoint of a seed: the first of its random recipes that diffusers draws."""
    for attempt in range(_ATTEMPTS):
        recipe, options = random_recipe(f"{seed}/{attempt}", networks)
        with contextlib.suppress(Exception):  # whatever diffusers raises: it is no checkpoint
            found = plain(recipe, folder / "model", **options)
            drawn = found.reference()
            if drawn is not None and drawn.finite:
                return replace(found, reference=partial(_itself, drawn), note=_note(recipe, options))
        shutil.rmtree(folder, ignore_errors=True)
    raise AssertionError(f"diffusers draws none of {_ATTEMPTS} checkpoints of seed {seed}")


def fault(outcome: Outcome) -> str | None:
    """Return what a generated checkpoint must not become; None if it became something else."""
    return None if outcome.result in FINE else f"{outcome.result}: {outcome.message or outcome.latents}"


def random_recipe(name: str, networks: Networks) -> tuple[Recipe, dict[str, Any]]:
    """Return a random recipe, and options of its export."""
    random = _seeded(name)
    numbers = {part: random.randrange(10**6 if networks == "any" else count) for part, count in _POOLS.items()}
    unet: dict[str, Any] = {}
    vae: dict[str, Any] = {}
    text: dict[str, Any] = {}
    tokenizer: dict[str, Any] = {}
    tiny, levels = False, 2
    if networks != "plain":
        unet = _unet(_seeded(f"unet {numbers['unet']}"))
        vae, tiny = _vae(_seeded(f"vae {numbers['vae']}"), unet.get("in_channels", 4))
        text, tokenizer = _text(_seeded(f"text {numbers['text']}"), unet.get("encoder_hid_dim") or 48)
        levels = len(vae["decoder_block_out_channels" if tiny else "block_out_channels"])
    scheduler, written = random_scheduler(random)
    options: dict[str, Any] = {}
    if random.random() < 0.15:
        options["graph"] = "standard"
    if unet.get("sample_size", 8) is None or random.random() < 0.15:
        options["size"] = random.choice((8, 12, 16)) * 2 ** (levels - 1)
    recipe = Recipe(
        scheduler=scheduler,
        unet=unet,
        vae=vae,
        text=text,
        tokenizer=tokenizer,
        tiny_vae=tiny,
        index={"scheduler": ["diffusers", written]},
        dtype=random.choice(("float32", "float32", "float16", "bfloat16")),
        variant="fp16" if random.random() < 0.1 else None,
        shard="100KB" if random.random() < 0.1 else None,
        drop=_dropped(random),
        prefixed=random.random() < 0.7,
        seed=3,
        drawing=_drawing(random, written),
    )
    return recipe, options


def _seeded(name: str) -> Random:
    return Random(name)  # noqa: S311 (no secret)


def _note(recipe: Recipe, options: dict[str, Any]) -> str:
    """Return what a recipe has, for people who look into a seed."""
    plain = Recipe()
    has = {key: value for key, value in vars(recipe).items() if value != getattr(plain, key)}
    return f"{has} {options}"


def _itself(drawn: Reference) -> Reference:
    return drawn


def _drawing(random: Random, scheduler: str | None) -> Drawing:
    """Return a random picture. LMS does not begin at one: there Nano departs from diffusers, as the documents say."""
    return Drawing(
        prompt=random.choice(_PROMPTS),
        negative=random.choice(("", "blurry", "low quality, text")),
        steps=random.choice((1, 2, 4, 6, 6, 8, 11, 17)),
        guidance=random.choice((7.5, 7.5, 7.5, 3.0, 1.0)),
        seed=random.randrange(1000),
        from_picture=random.random() < 0.25 and scheduler != "LMSDiscreteScheduler",
    )


def _dropped(random: Random) -> tuple[str, ...]:
    """Return keys that older configs did not have, all with the default's meaning in these recipes."""
    keys: tuple[str, ...] = (
        "unet.dropout",
        "unet.attention_type",
        "unet.addition_time_embed_dim",
        "unet.num_attention_heads",
    )
    keys += ("vae.latents_mean", "vae.latents_std", "vae.shift_factor", "unet.num_class_embeds")
    return tuple(key for key in keys if random.random() < 0.2)


def _unet(random: Random) -> dict[str, Any]:
    """Return random keys of the UNet; most keep the default, as most checkpoints do."""

    def maybe(share: float) -> bool:
        return random.random() < share

    levels = random.choice((1, 2, 2, 2, 2, 3))
    channels = tuple(sorted(random.choice((16, 32, 32, 48, 64)) for _ in range(levels)))
    cross = [maybe(0.6) for _ in range(levels)]
    cross[0] = cross[0] or not any(cross)
    down = [_CROSS_DOWN if one else "DownBlock2D" for one in cross]
    up = [_CROSS_UP if one else "UpBlock2D" for one in reversed(cross)]
    if maybe(0.05):
        down[-1], up[0] = random.choice(
            (
                ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"),
                ("SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D"),
                ("AttnDownBlock2D", "AttnUpBlock2D"),
                ("KCrossAttnDownBlock2D", "KCrossAttnUpBlock2D"),
            )
        )
    keys: dict[str, Any] = {
        "block_out_channels": channels,
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "norm_num_groups": random.choice((4, 8, 16)),
        "attention_head_dim": random.choice((2, 4, 8)) if maybe(0.6) else [random.choice((2, 4, 8)) for _ in channels],
        "layers_per_block": 1 if maybe(0.8) else random.choice((2, [random.choice((1, 2)) for _ in channels])),
        "sample_size": random.choice((8, 8, 8, 12, 16, 10, [8, 8], [8, 16], None)) if maybe(0.3) else 8,
        "cross_attention_dim": 48,
        "use_linear_projection": maybe(0.4),
    }
    if maybe(0.1):
        keys |= {"in_channels": (count := random.choice((3, 8, 16))), "out_channels": count}
    if maybe(0.15):
        keys["mid_block_type"] = random.choice((None, None, "UNetMidBlock2D", "UNetMidBlock2DSimpleCrossAttn"))
    if maybe(0.05):
        keys |= {"encoder_hid_dim": 32, "encoder_hid_dim_type": "text_proj"}
    if maybe(0.04):
        keys |= {"addition_embed_type": "text", "addition_embed_type_num_heads": 4}
    if maybe(0.04):
        keys["cross_attention_dim"] = [48] * levels
    several: dict[str, tuple[float, tuple[Any, ...]]] = {
        "center_input_sample": (0.06, (True,)),
        "flip_sin_to_cos": (0.06, (False,)),
        "freq_shift": (0.06, (1, 2)),
        "only_cross_attention": (0.06, (True, [index > 0 for index in range(levels)])),
        "mid_block_only_cross_attention": (0.04, (True, False)),
        "downsample_padding": (0.05, (0,)),
        "mid_block_scale_factor": (0.06, (0.5, 1.4142135623730951)),
        "dropout": (0.06, (0.1,)),
        "act_fn": (0.08, _ACTIVATIONS),
        "norm_eps": (0.06, (1e-6, 1e-3)),
        "transformer_layers_per_block": (0.08, (2, [1 + (index == 0) for index in range(levels)])),
        "dual_cross_attention": (0.03, (True,)),
        "upcast_attention": (0.1, (True,)),
        "resnet_time_scale_shift": (0.1, ("scale_shift",)),
        "resnet_skip_time_act": (0.04, (True,)),
        "resnet_out_scale_factor": (0.05, (1.4142135623730951, 2.0)),
        "time_embedding_type": (0.04, ("fourier",)),
        "time_embedding_dim": (0.06, (64, 128)),
        "time_embedding_act_fn": (0.06, _ACTIVATIONS),
        "timestep_post_act": (0.06, _ACTIVATIONS),
        "time_cond_proj_dim": (0.06, (32, 256)),
        "conv_in_kernel": (0.06, (1, 5)),
        "conv_out_kernel": (0.06, (1, 5)),
        "attention_type": (0.03, ("gated", "gated-text-image")),
        "cross_attention_norm": (0.04, ("layer_norm", "group_norm")),
        "reverse_transformer_layers_per_block": (0.02, ([1] * levels,)),
    }
    for key, (share, values) in several.items():
        if maybe(share):
            keys[key] = random.choice(values)
    return keys


def _vae(random: Random, channels: int) -> tuple[dict[str, Any], bool]:
    """Return random keys of the autoencoder, and whether it is TAESD's class."""

    def maybe(share: float) -> bool:
        return random.random() < share

    levels = random.choice((1, 2, 2, 2, 2, 3))
    if maybe(0.1):
        widths = (8,) * levels
        tiny: dict[str, Any] = {
            "encoder_block_out_channels": widths,
            "decoder_block_out_channels": widths,
            "num_encoder_blocks": (1,) * levels,
            "num_decoder_blocks": (1,) * levels,
            "latent_channels": channels,
        }
        if maybe(0.5):
            tiny |= {"act_fn": random.choice(_ACTIVATIONS), "latent_magnitude": random.choice((2, 3))}
        if maybe(0.3):
            tiny |= {"scaling_factor": 0.5, "upsample_fn": random.choice(("nearest", "bilinear"))}
        return tiny, True
    widths = tuple(sorted(random.choice((8, 8, 16)) for _ in range(levels)))
    attends = maybe(0.05)
    keys: dict[str, Any] = {
        "block_out_channels": widths,
        "down_block_types": ("AttnDownEncoderBlock2D" if attends else "DownEncoderBlock2D",) * levels,
        "up_block_types": ("AttnUpDecoderBlock2D" if attends else "UpDecoderBlock2D",) * levels,
        "latent_channels": channels,
        "layers_per_block": 1 + maybe(0.2),
        "norm_num_groups": random.choice((2, 4, 8)),
        "sample_size": random.choice((16, 32, 512)),
        "scaling_factor": random.choice((0.18215, 0.18215, 0.13025, 1.0)),
    }
    several: dict[str, tuple[float, tuple[Any, ...]]] = {
        "act_fn": (0.08, _ACTIVATIONS),
        "shift_factor": (0.1, (0.1,)),
        "latents_mean": (0.06, ([0.1] * channels,)),
        "latents_std": (0.06, ([2.0] * channels,)),
        "force_upcast": (0.2, (False,)),
        "use_quant_conv": (0.12, (False,)),
        "use_post_quant_conv": (0.12, (False,)),
        "mid_block_add_attention": (0.12, (False,)),
    }
    for key, (share, values) in several.items():
        if maybe(share):
            keys[key] = random.choice(values)
    return keys, False


def _text(random: Random, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return random keys of the text encoder, and of its tokenizer."""
    length = random.choice((77, 77, 77, 77, 40, 32))
    keys: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": random.choice((64, 96)),
        "num_hidden_layers": random.choice((1, 2, 3)),
        "num_attention_heads": random.choice((1, 2, 4)),
        "hidden_act": random.choice(("quick_gelu", "gelu", "gelu", "gelu_new", "relu", "silu")),
        "layer_norm_eps": random.choice((1e-5, 1e-5, 1e-6)),
        "max_position_embeddings": length,
        "attention_dropout": random.choice((0.0, 0.1)),
        "projection_dim": random.choice((48, 512)),
    }
    tokenizer = {
        "files": random.choice(("slow", "fast", "both")),
        "pad_token": random.choice((EOS, "!")),
        "model_max_length": length,
        "do_lower_case": True,
    }
    return keys, tokenizer
