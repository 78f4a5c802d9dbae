"""Builds the models that need no download.

``demo`` is a small trained model that draws emoji; its diffusers folder comes with this package. The others have seeded
random weights in the architecture of Stable Diffusion Nano 2.1. ``synthetic`` has all of its layers (865.9 M + 340 M +
84 M parameters): real speed and memory, and noise for pictures. ``tiny`` has the same block types with few channels,
for tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["DEMO", "SCHEDULER", "Parts", "build", "write_checkpoint"]

DEMO = Path(__file__).parent / "demo"

# Stable Diffusion Nano's scheduler_config.json.
SCHEDULER: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.16.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}

_UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "use_linear_projection": True,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
_VAE: dict[str, Any] = {
    "sample_size": 128,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_TEXT: dict[str, Any] = {"hidden_act": "gelu", "max_position_embeddings": 77, "projection_dim": 512}

_ARCHITECTURES: dict[str, dict[str, dict[str, Any]]] = {
    "synthetic": {
        "unet": {
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
        },
        "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
        "text": {
            "vocab_size": 49408,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
        },
    },
    "tiny": {
        "unet": {
            "block_out_channels": (32, 64, 96, 96),
            "layers_per_block": 1,
            "attention_head_dim": (2, 4, 6, 6),
            "cross_attention_dim": 48,
            "norm_num_groups": 8,  # 32 groups of one channel would cancel the time biases
        },
        "vae": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1},
        "text": {
            "vocab_size": 1024,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
        },
    },
}
_SEED = 0
_BOS, _EOS, _PAD = "<|startoftext|>", "<|endoftext|>", "!"
_VERSION_LINE = "#version: 0.2"
_SYLLABLES = ("er", "in", "an", "on", "at", "en", "es", "or", "re", "st", "th", "he", "ou", "ar", "ing")


@dataclass(frozen=True)
class Parts:
    """The modules and configs of a model, in fp32."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: dict[str, Any]


def build(name: str) -> Parts:
    """Build ``tiny`` or ``synthetic``, with the same weights every time."""
    architecture = _ARCHITECTURES[name]
    text = {**_TEXT, **architecture["text"]}
    size = text["vocab_size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        config = CLIPTextConfig(**text, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=0)
        return Parts(
            tokenizer=_tokenizer(size),
            text_encoder=CLIPTextModel(config),
            unet=UNet2DConditionModel(**{**_UNET, **architecture["unet"]}),
            vae=AutoencoderKL(**_VAE, **architecture["vae"]),
            scheduler=dict(SCHEDULER),
        )


def write_checkpoint(parts: Parts, folder: Path) -> None:
    """Save a model as a diffusers folder laid out like Stable Diffusion Nano's repository.

    The text encoder's keys get the prefix ``text_model.``, as in published checkpoints. transformers 5 leaves it out,
    and older readers would then silently start from random weights.
    """
    parts.unet.save_pretrained(folder / "unet")
    parts.vae.save_pretrained(folder / "vae")
    prefixed = {f"text_model.{key}": value for key, value in parts.text_encoder.state_dict().items()}
    parts.text_encoder.save_pretrained(folder / "text_encoder", state_dict=prefixed)
    _write_tokenizer(folder / "tokenizer", parts.text_encoder.config.vocab_size)
    (folder / "scheduler").mkdir(exist_ok=True)
    _write_json(folder / "scheduler" / "scheduler_config.json", parts.scheduler)
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": SCHEDULER["_diffusers_version"],
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", parts.scheduler["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def _tokenizer(vocab_size: int) -> CLIPTokenizer:
    """Return a byte-level tokenizer in CLIP's format: some common syllables, and fillers up to the size."""
    with TemporaryDirectory() as folder:
        _write_tokenizer(Path(folder), vocab_size)
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write vocab.json, merges.txt and the two config files as Stable Diffusion 2 has them, padding with "!"."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(ByteLevel.alphabet())
    merges = [(syllable[:-1], syllable[-1]) for syllable in _SYLLABLES]
    merges.sort(key=lambda pair: len(pair[0]))
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += [f"<|filler{index}|>" for index in range(vocab_size - 2 - len(tokens))]
    _write_json(folder / "vocab.json", {token: index for index, token in enumerate([*tokens, _BOS, _EOS])})
    (folder / "merges.txt").write_text(
        "\n".join([_VERSION_LINE, *(" ".join(pair) for pair in merges)]) + "\n", encoding="utf-8"
    )
    specials = {"bos_token": _BOS, "eos_token": _EOS, "unk_token": _EOS}
    _write_json(folder / "special_tokens_map.json", {**specials, "pad_token": _PAD})
    _write_json(
        folder / "tokenizer_config.json",
        {
            **specials,
            "pad_token": _EOS,
            "add_prefix_space": False,
            "do_lower_case": True,
            "model_max_length": _TEXT["max_position_embeddings"],
            "tokenizer_class": "CLIPTokenizer",
        },
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
