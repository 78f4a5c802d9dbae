"""Recipes of small checkpoints: what each network, the scheduler and the tokenizer is, and the folder made of it.

All networks have seeded random weights. The folders are as diffusers and transformers save them; nothing of the
exporter takes part.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["BETAS", "PNDM", "Drawing", "Recipe", "write"]

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
PNDM: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.30.0",
    **BETAS,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Stable Diffusion 1.5's scheduler."""

_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 48,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_VAE: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 16,
    "scaling_factor": 0.18215,
}
_TINY_VAE: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
}
_TEXT: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 48,
    "pad_token_id": 1,
}
_MERGES = ("t h", "a n", "o t", "e r</w>", "i n", "th e</w>", "a t</w>", "o f</w>", "in g</w>")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The picture that is compared.

    Attributes:
        prompt: to draw.
        negative: to draw away from.
        steps: of the checkpoint's own scheduler.
        guidance: classifier-free guidance; 1 draws without.
        seed: of the noise.
        from_picture: whether a picture is changed (strength 0.6), which needs the encoder.
    """

    prompt: str = "A photo of the cat in the hat, oil painting"
    negative: str = "blurry"
    steps: int = 6
    guidance: float = 7.5
    seed: int = 5
    from_picture: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One checkpoint; everything left out is like a small Stable Diffusion 1.5.

    Attributes:
        scheduler: the whole ``scheduler_config.json``.
        unet: keys of ``UNet2DConditionModel`` that differ.
        vae: keys of ``AutoencoderKL`` that differ; of ``AutoencoderTiny`` if ``tiny_vae``.
        text: keys of ``CLIPTextConfig`` that differ.
        tokenizer: which files ("slow", "fast", "both"), and keys of its config that differ.
        index: keys of ``model_index.json`` that differ.
        tiny_vae: whether the autoencoder is TAESD's class.
        dtype: of the weights in the files.
        variant: in the names of the weight files, as ``fp16``.
        shard: the largest size of a weight file; None is one file.
        drop: keys to remove from configs after saving, as "unet.mid_block_scale_factor".
        prefixed: whether the text encoder's keys begin with ``text_model.``, as before transformers 5.
        seed: of the weights.
        drawing: the picture that is compared.
    """

    scheduler: Mapping[str, Any] = field(default_factory=lambda: dict(PNDM))
    unet: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    index: Mapping[str, Any] = field(default_factory=dict)
    tiny_vae: bool = False
    dtype: str = "float32"
    variant: str | None = None
    shard: str | None = None
    drop: tuple[str, ...] = ()
    prefixed: bool = True
    seed: int = 3
    drawing: Drawing = field(default_factory=Drawing)


def write(recipe: Recipe, folder: Path) -> None:
    """Write the checkpoint into a new folder."""
    vocabulary = write_tokenizer(folder / "tokenizer", recipe.tokenizer)
    dtype = getattr(torch, recipe.dtype)
    special = {"vocab_size": vocabulary, "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
    vae_keys = {**(_TINY_VAE if recipe.tiny_vae else _VAE), **recipe.vae}
    text = _seeded(lambda: CLIPTextModel(CLIPTextConfig(**{**_TEXT, **special, **recipe.text})), recipe.seed)
    unet = _seeded(lambda: UNet2DConditionModel(**{**_UNET, **recipe.unet}), recipe.seed)
    vae = _seeded(lambda: (AutoencoderTiny if recipe.tiny_vae else AutoencoderKL)(**vae_keys), recipe.seed)
    saving: dict[str, Any] = {"variant": recipe.variant}
    if recipe.shard is not None:
        saving["max_shard_size"] = recipe.shard
    unet.to(dtype).save_pretrained(folder / "unet", **saving)
    vae.to(dtype).save_pretrained(folder / "vae", **saving)
    state = {
        f"text_model.{key}" if recipe.prefixed else key: value for key, value in text.to(dtype).state_dict().items()
    }
    text.save_pretrained(folder / "text_encoder", state_dict=state, **saving)
    write_json(folder / "scheduler" / "scheduler_config.json", recipe.scheduler)
    write_json(folder / "model_index.json", _index(recipe))
    for name in recipe.drop:
        component, _, key = name.partition(".")
        path = folder / component / ("scheduler_config.json" if component == "scheduler" else "config.json")
        write_json(path, {k: v for k, v in json.loads(path.read_text()).items() if k != key})


def write_tokenizer(folder: Path, options: Mapping[str, Any]) -> int:
    """Write CLIP's tokenizer over single letters and a few merges; return the size of its vocabulary."""
    folder.mkdir(parents=True)
    options = dict(options)
    files = options.pop("files", "slow")
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in plain] + [chr(256 + index) for index in range(256 - len(plain))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(m.replace(" ", "") for m in _MERGES), BOS, EOS]
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": options.pop("pad_token", EOS)}
    write_json(folder / "vocab.json", {word: index for index, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(_MERGES) + "\n", encoding="utf-8")
    write_json(folder / "special_tokens_map.json", special)
    config = {"tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "model_max_length": 77, **special, **options}
    write_json(folder / "tokenizer_config.json", {key: value for key, value in config.items() if value is not None})
    if files != "slow":
        CLIPTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(folder)
    if files == "fast":
        for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
    return len(words)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def copy(source: Path, target: Path) -> Path:
    """Copy a folder; return the copy."""
    shutil.copytree(source, target)
    return target


def _seeded(build: Callable[[], Any], seed: int) -> Any:
    """Return a network with seeded weights, whatever other networks were built before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        for norm in filter(_is_norm, network.modules()):  # fresh ones hide a scale and a shift that are swapped
            torch.nn.init.normal_(norm.weight, 1.0, 0.2)
            torch.nn.init.normal_(norm.bias, 0.0, 0.2)
    return network.half().float()  # so that files in half precision hold the same network


def _is_norm(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm) and module.bias is not None


def _index(recipe: Recipe) -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", recipe.scheduler.get("_class_name", "PNDMScheduler")],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny" if recipe.tiny_vae else "AutoencoderKL"],
        **recipe.index,
    }
