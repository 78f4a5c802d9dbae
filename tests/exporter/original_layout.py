"""Writes diffusers' networks into one file in the original layout: the names that CompVis' and Stability's code has.

Written the other way round than diffusers' functions, which the exporter uses: from the place of each module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

WORDS = 49408
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
HEAD = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


@dataclass(frozen=True)
class Networks:
    """Small networks of a family, with random weights."""

    family: int
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel


def networks(family: int, channels: int = 4, words: int = WORDS) -> Networks:
    """Return networks with what no shape tells as Stable Diffusion has it: heads, groups, activations."""
    torch.manual_seed(family)
    width = 64 * family
    unet = UNet2DConditionModel(
        sample_size=96 if family == 2 and channels == 4 else 64,
        in_channels=channels,
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=8 if family == 1 else (1, 2),
        use_linear_projection=family == 2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        sample_size=512,
    )
    text = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=family,
        hidden_act="quick_gelu" if family == 1 else "gelu",
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=1,
    )
    return Networks(family, unet.eval(), vae.eval(), CLIPTextModel(text).eval())


def original(model: Networks, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return all tensors of a model by their original names."""
    text = original_text if model.family == 1 else open_clip_text
    tensors = {
        **{f"model.diffusion_model.{key}": value for key, value in original_unet(model.unet).items()},
        **{f"first_stage_model.{key}": value for key, value in original_vae(model.vae).items()},
        **text(model.text_encoder),
    }
    return {key: value.to(dtype).contiguous() for key, value in tensors.items()}


def original_unet(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """Count blocks as the original code lists them: all layers of all levels, each with its attention, in one list."""
    layers = unet.config.layers_per_block
    tensors: dict[str, torch.Tensor] = {}
    for key, value in unet.state_dict().items():
        part, _, rest = key.partition(".")
        if part in {"down_blocks", "up_blocks"}:
            level, kind, index, name = rest.split(".", 3)
            deep = getattr(unet, part)[int(level)]
            below = layers + 1
            if kind == "downsamplers":
                new = f"input_blocks.{below * (int(level) + 1)}.0.op.{name.removeprefix('conv.')}"
            elif kind == "upsamplers":
                place = 2 if getattr(deep, "attentions", None) else 1
                new = f"output_blocks.{below * int(level) + layers}.{place}.{name}"
            else:
                place = int(level) * below + int(index) + (part == "down_blocks")
                side = "input" if part == "down_blocks" else "output"
                new = f"{side}_blocks.{place}.{int(kind == 'attentions')}.{renamed(name, kind)}"
        elif part == "mid_block":
            kind, index, name = rest.split(".", 2)
            new = f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{renamed(name, kind)}"
        else:
            module = next(module for module in HEAD if key.startswith(f"{module}."))
            new = HEAD[module] + key.removeprefix(module)
        tensors[new] = value
    return tensors


def renamed(name: str, kind: str) -> str:
    """Return the original name within a block."""
    module, _, rest = name.partition(".")
    return f"{RESNET[module]}.{rest}" if kind == "resnets" else name


def original_vae(vae: AutoencoderKL) -> dict[str, torch.Tensor]:
    """Levels of the decoder count from the outside; attention is made of convolutions of one pixel."""
    last = len(vae.config.block_out_channels) - 1
    tensors: dict[str, torch.Tensor] = {}
    for key, value in vae.state_dict().items():
        side, _, rest = key.partition(".")
        new = key
        if rest.startswith(("down_blocks.", "up_blocks.")):
            way, level, kind, index, name = rest.split(".", 4)
            way = way.removesuffix("_blocks")
            level = level if way == "down" else str(last - int(level))
            inner = f"{way}sample.{name}" if kind.endswith("samplers") else f"block.{index}.{name}"
            new = f"{side}.{way}.{level}.{inner.replace('conv_shortcut', 'nin_shortcut')}"
        elif rest.startswith("mid_block.resnets."):
            _, _, index, name = rest.split(".", 3)
            new = f"{side}.mid.block_{int(index) + 1}.{name}"
        elif rest.startswith("mid_block.attentions."):
            name = rest.split(".", 3)[3]
            for ours, theirs in (("group_norm", "norm"), ("to_out.0", "proj_out"), ("to_", "")):
                name = name.replace(ours, theirs)
            new = f"{side}.mid.attn_1.{name}"
        square = "attn_1" in new and value.ndim == 2
        tensors[new.replace("conv_norm_out", "norm_out")] = value[:, :, None, None] if square else value
    return tensors


def original_text(text: CLIPTextModel) -> dict[str, torch.Tensor]:
    """Stable Diffusion 1 has transformers' own names, and a buffer with the positions."""
    prefix = "cond_stage_model.transformer.text_model."
    tensors = {prefix + key.removeprefix("text_model."): value for key, value in text.state_dict().items()}
    return {**tensors, f"{prefix}embeddings.position_ids": torch.arange(77)[None]}


def open_clip_text(text: CLIPTextModel) -> dict[str, torch.Tensor]:
    """Stable Diffusion 2 has OpenCLIP's names, its three projections in one, and a last layer that is not used."""
    state = {key.removeprefix("text_model."): value for key, value in text.state_dict().items()}
    width, layers = text.config.hidden_size, text.config.num_hidden_layers
    tensors = {
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": torch.randn(width, width),
        "logit_scale": torch.tensor(4.6),
    }
    for layer in range(layers + 1):
        ours, theirs = f"encoder.layers.{min(layer, layers - 1)}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            three = [state[f"{ours}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            tensors[f"{theirs}attn.in_proj_{kind}"] = torch.cat(three)
            for name, new in OPEN_CLIP.items():
                tensors[f"{theirs}{new}.{kind}"] = state[f"{ours}{name}.{kind}"] + float(layer == layers)
    return {f"cond_stage_model.model.{key}": value for key, value in tensors.items()}


def write_file(path: Path, tensors: Mapping[str, torch.Tensor], **metadata: str) -> Path:
    """Write a file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), path, {"format": "pt", **metadata})
    return path


def write_configs(folder: Path, model: Networks, scheduler: Mapping[str, Any], pipeline: str) -> Path:
    """Write the folder that diffusers' ``from_single_file(config=...)`` takes, but for the tokenizer."""
    for name in ("unet", "vae", "text_encoder"):
        getattr(model, name).config.save_pretrained(folder / name) if name == "text_encoder" else getattr(
            model, name
        ).save_config(folder / name)
    index = {
        "_class_name": pipeline,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
