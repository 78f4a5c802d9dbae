"""All kinds of LoRA, written by the libraries that train them: merged, the networks compute what those libraries do."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lycoris
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from nano_export.errors import LoraError
from nano_export.judge.original import diffusers_pipeline
from nano_export.options import LoraFile
from nano_export.source import builtin
from nano_export.source.adapters.lora import merge
from nano_export.source.adapters.lora_file import open_loras
from nano_export.source.checkpoint import Checkpoint, open_checkpoint

# The same sums in another order: a few roundings of numbers below 4.
EQUAL_OUTPUTS = 1e-5
EQUAL_WEIGHTS = 1e-6
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
LAYERS = (
    f"{BLOCK}.attn1.to_q",
    f"{BLOCK}.attn2.to_k",  # wider than high
    f"{BLOCK}.ff.net.2",
    "down_blocks.0.resnets.0.conv1",  # 3x3
    "down_blocks.1.resnets.0.conv_shortcut",  # 1x1
    "time_embedding.linear_1",
    f"{BLOCK}.norm1",
    "down_blocks.0.resnets.0.norm1",
)
INPUTS = {
    f"{BLOCK}.attn2.to_k": (2, 48),
    f"{BLOCK}.ff.net.2": (2, 128),
    "down_blocks.0.resnets.0.conv1": (2, 32, 5, 5),
    "down_blocks.1.resnets.0.conv_shortcut": (2, 32, 3, 3),
    "down_blocks.0.resnets.0.norm1": (2, 32, 3, 3),
}


@pytest.fixture(scope="module")
def tiny():
    return open_checkpoint("tiny", None)


@pytest.fixture(scope="module")
def plain():
    """The model that nothing changes."""
    return builtin.build("tiny")


@pytest.fixture
def checkpoint(tiny) -> Iterator[Checkpoint]:
    """The model, as it was before each test."""
    before = [{key: value.clone() for key, value in net.state_dict().items()} for net in (tiny.unet, tiny.text_encoder)]
    yield tiny
    for net, weights in zip((tiny.unet, tiny.text_encoder), before, strict=True):
        net.load_state_dict(weights)


def outputs(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """What each of the layers makes of one input."""
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        return {
            name: checkpoint.unet.get_submodule(name)(torch.randn(INPUTS.get(name, (2, 32)), generator=noise))
            for name in LAYERS
        }


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def train(network: nn.Module) -> None:
    """Give the parameters of an adapter values that training could: all of them do something."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            step = torch.randn(parameter.shape, generator=noise)
            if "dora_scale" in name or "magnitude" in name:
                parameter.mul_(1 + 0.2 * step)
            elif parameter.shape.numel() and name.endswith(("_norm", ".weight", ".bias")) and "lora_" not in name:
                parameter.add_(0.05 * step)  # a difference, or the weight itself with one
            else:
                parameter.copy_(0.15 * step)


LYCORIS: dict[str, dict[str, Any]] = {
    "LoRA": {"algo": "lora"},
    "LoCon with a middle": {"algo": "locon", "use_tucker": True},
    "DoRA": {"algo": "lora", "dora_wd": True},
    "DoRA by input": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "LoHa": {"algo": "loha"},
    "LoHa with cores": {"algo": "loha", "use_tucker": True},
    "LoHa with DoRA by input": {"algo": "loha", "dora_wd": True, "wd_on_output": False},
    "LoKr": {"algo": "lokr", "factor": 4},
    "LoKr in four factors": {"algo": "lokr", "factor": 16, "decompose_both": True, "linear_dim": 1, "conv_dim": 1},
    "LoKr of whole halves": {"algo": "lokr", "full_matrix": True},
    "LoKr with DoRA": {"algo": "lokr", "factor": 4, "dora_wd": True},
    "full and norms": {"algo": "full", "train_norm": True},
    "LoRA and norms": {"algo": "lora", "train_norm": True},
    "IA3": {"algo": "ia3"},
    "IA3 on inputs": {"algo": "ia3", "train_on_input": True},
    "GLoRA": {"algo": "glora"},
}


@pytest.mark.parametrize("scale", [1.0, 0.6])
@pytest.mark.parametrize("kind", LYCORIS)
def test_merged_layers_compute_what_lycoris_computes(kind, scale, checkpoint, tmp_path):
    """The reference is the network that LyCORIS trains, not its ``merge_to``: that scales LoHa and LoKr twice."""
    lycoris.logger.setLevel(logging.ERROR)
    layers = nn.Module()
    for name in LAYERS:
        layers.add_module(name.replace(".", "_"), checkpoint.unet.get_submodule(name))
    settings = {"linear_dim": 4, "linear_alpha": 2, "conv_dim": 4, "conv_alpha": 1, **LYCORIS[kind]}
    plain = outputs(checkpoint)
    network = lycoris.create_lycoris(layers, scale, **settings)
    network.apply_to()
    train(network)
    network.eval()
    expected = outputs(checkpoint)
    network.save_weights(tmp_path / "style.safetensors", torch.float32, {})
    network.restore()
    assert largest_difference(outputs(checkpoint), plain) == 0

    merge(checkpoint, open_loras(LoraFile(tmp_path / "style.safetensors", scale)))

    assert largest_difference(outputs(checkpoint), expected) < EQUAL_OUTPUTS
    changed = [name for name in LAYERS if (expected[name] - plain[name]).abs().max() > 100 * EQUAL_OUTPUTS]
    assert len(changed) == (8 if settings.get("train_norm") else 6)


TARGETS = {
    "unet": ["to_q", "to_k", "to_out.0", "conv1", "proj_in", "linear_1"],
    "text_encoder": ["q_proj", "fc1"],
}
PEFT: dict[str, Callable[[list[str]], PeftConfig]] = {
    "LoRA": lambda names: LoraConfig(r=4, lora_alpha=6, target_modules=names, init_lora_weights=False),
    "patterns": lambda names: LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=names,
        init_lora_weights=False,
        use_rslora=True,
        fan_in_fan_out=True,
        rank_pattern={names[0]: 2},
        alpha_pattern={names[0]: 3, ".*layers.0.*" + names[-1]: 1, f"up_blocks.1.*{names[1]}": 9},
    ),
    "DoRA": lambda names: LoraConfig(r=4, lora_alpha=6, target_modules=names, init_lora_weights=False, use_dora=True),
    "biases": lambda names: LoraConfig(
        r=4, lora_alpha=6, target_modules=names[2:] or names, init_lora_weights=False, lora_bias=True
    ),
    "LoHa": lambda names: LoHaConfig(r=4, alpha=6, target_modules=names, init_weights=False),
    "LoHa with cores": lambda names: LoHaConfig(
        r=4, alpha=6, target_modules=names, init_weights=False, use_effective_conv2d=True
    ),
    "LoKr": lambda names: LoKrConfig(
        r=4, alpha=6, target_modules=names, init_weights=False, decompose_factor=4, alpha_pattern={names[0]: 3}
    ),
    "LoKr with a core": lambda names: LoKrConfig(
        r=2, alpha=6, target_modules=names, init_weights=False, decompose_both=True, use_effective_conv2d=True
    ),
}


@pytest.mark.parametrize("kind", PEFT)
def test_folders_that_peft_wrote_give_the_weights_that_it_merges(kind, checkpoint, plain, tmp_path):
    parts = copy.deepcopy(plain)
    for network, names in TARGETS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fan_in_fan_out, which PEFT leaves unused for linear layers
            adapted = get_peft_model(getattr(parts, network), PEFT[kind](names))
            train_magnitudes(adapted)
            adapted.save_pretrained(tmp_path / "style" / network)
            adapted.merge_and_unload()

    loras = open_loras(LoraFile(tmp_path / "style"))
    assert [lora.name for lora in loras] == [f"style/{network}/adapter_model.safetensors" for network in TARGETS]
    merge(checkpoint, loras)

    assert distance(checkpoint, parts) < EQUAL_WEIGHTS
    assert distance(checkpoint, plain) > 1000 * EQUAL_WEIGHTS
    assert torch.equal(checkpoint.unet.conv_in.weight, plain.unet.conv_in.weight)


def distance(one: Checkpoint | builtin.Parts, other: Checkpoint | builtin.Parts) -> float:
    """The largest difference of two weights."""
    return max(
        largest_difference(dict(getattr(one, network).state_dict()), dict(getattr(other, network).state_dict()))
        for network in TARGETS
    )


@pytest.mark.parametrize(("dora", "scale"), [(False, 0.6), (True, 0.6)])
def test_folders_that_diffusers_wrote_give_the_weights_that_it_fuses(dora, scale, checkpoint, plain, tmp_path):
    """A DoRA of the text encoder is PEFT's above: diffusers 0.42 with transformers 5 loads no magnitudes into it."""
    trained, parts = copy.deepcopy(plain), copy.deepcopy(plain)
    layers: dict[str, Any] = {}
    for network in ("unet",) if dora else TARGETS:
        module, names = getattr(trained, network), TARGETS[network]
        module.add_adapter(
            LoraConfig(r=4, lora_alpha=6, target_modules=names, init_lora_weights=False, use_dora=dora),
            "default",
        )
        train_magnitudes(module)
        layers[f"{network}_lora_layers"] = get_peft_model_state_dict(module)
        layers[f"{network}_lora_adapter_metadata"] = module.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(tmp_path / "style", **layers)
    pipeline = diffusers_pipeline(parts)
    pipeline.load_lora_weights(str(tmp_path / "style"))
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()

    (lora,) = open_loras(LoraFile(tmp_path / "style", scale))
    assert lora.name == "style/pytorch_lora_weights.safetensors"
    merge(checkpoint, [lora])

    assert distance(checkpoint, parts) < EQUAL_WEIGHTS
    assert distance(checkpoint, plain) > 1000 * EQUAL_WEIGHTS


def train_magnitudes(module: nn.Module) -> None:
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=noise))


def test_kohyas_layout_as_diffusers_writes_it_means_what_its_own_layout_means(checkpoint, plain, tmp_path):
    """The alpha is an integer there, and the text encoder's layers begin with ``lora_te1_``."""
    noise = torch.Generator().manual_seed(0)
    factors: dict[str, torch.Tensor] = {}
    for network, middle, names in (("unet", "", TARGETS["unet"]), ("text_encoder", "text_model.", ["q_proj", "fc1"])):
        for name, layer in getattr(checkpoint, network).named_modules():
            if isinstance(layer, nn.Linear) and name.endswith(tuple(names)):
                out, inside = layer.weight.shape
                factors[f"{network}.{middle}{name}.lora_A.weight"] = torch.randn(4, inside, generator=noise)
                factors[f"{network}.{middle}{name}.lora_B.weight"] = torch.randn(out, 4, generator=noise)
    kohya = {key: value.contiguous() for key, value in convert_state_dict_to_kohya(dict(factors)).items()}
    assert {value.dtype for key, value in kohya.items() if key.endswith("alpha")} == {torch.int64}
    assert any(key.startswith("lora_te1_") for key in kohya)
    save_file(kohya, tmp_path / "kohya.safetensors")
    save_file(factors, tmp_path / "plain.safetensors")
    parts = copy.deepcopy(plain)
    pipeline = diffusers_pipeline(parts)
    pipeline.load_lora_weights(str(tmp_path / "plain.safetensors"))
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()

    merge(checkpoint, open_loras(LoraFile(tmp_path / "kohya.safetensors")))

    assert distance(checkpoint, parts) < 10 * EQUAL_WEIGHTS  # weights of up to 10


def test_kohyas_layout_as_lycoris_writes_it_computes_what_lycoris_computes(checkpoint, plain, tmp_path):
    """Both networks in one file, each layer's kind chosen by LyCORIS's own preset for kohya's scripts."""
    from lycoris.kohya import create_network  # noqa: PLC0415 - it prints while it is imported

    lycoris.logger.setLevel(logging.ERROR)
    network = create_network(
        0.8, 4, 2, None, checkpoint.text_encoder, checkpoint.unet, algo="loha", preset="attn-mlp", train_norm=False
    )
    network.apply_to(checkpoint.text_encoder, checkpoint.unet, apply_text_encoder=True, apply_unet=True)
    train(network)
    network.eval()
    ids = torch.arange(77)[None] % 500
    before = plain.text_encoder.eval()(ids).last_hidden_state
    expected = checkpoint.text_encoder(ids).last_hidden_state, outputs(checkpoint)
    network.save_weights(tmp_path / "style.safetensors", torch.float32, {})
    network.restore()

    merge(checkpoint, open_loras(LoraFile(tmp_path / "style.safetensors", 0.8)))

    assert (checkpoint.text_encoder(ids).last_hidden_state - expected[0]).abs().max() < EQUAL_OUTPUTS
    assert (before - expected[0]).abs().max() > 100 * EQUAL_OUTPUTS
    assert largest_difference(outputs(checkpoint), expected[1]) < EQUAL_OUTPUTS


def kohya_layer(name: str, alpha: float, seed: int) -> dict[str, torch.Tensor]:
    """A LoRA of one linear layer of 32 x 32."""
    noise = torch.Generator().manual_seed(seed)
    stem = f"lora_unet_{name.replace('.', '_')}"
    ends, shapes = ("down", "up"), ((4, 32), (32, 4))
    factors = {
        f"{stem}.lora_{end}.weight": torch.randn(shape, generator=noise)
        for end, shape in zip(ends, shapes, strict=True)
    }
    return {**factors, f"{stem}.alpha": torch.tensor(alpha)}


def fused_by_diffusers(file: Path, plain: builtin.Parts) -> builtin.Parts:
    parts = copy.deepcopy(plain)
    pipeline = diffusers_pipeline(parts)
    pipeline.load_lora_weights(str(file))
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return parts


def test_diffusers_draws_a_dora_of_kohyas_layout_as_a_plain_lora(plain, tmp_path):
    """What the documents say of it. That ours is LyCORIS's is tested above."""
    name = f"{BLOCK}.attn1.to_q"
    content = kohya_layer(name, 4, 1)
    save_file(content, tmp_path / "lora.safetensors")
    dora = {f"lora_unet_{name.replace('.', '_')}.dora_scale": torch.full((32, 1), 3.0)}
    save_file(content | dora, tmp_path / "dora.safetensors")
    files = [fused_by_diffusers(tmp_path / f"{kind}.safetensors", plain) for kind in ("lora", "dora")]
    assert distance(*files) == 0
    assert distance(files[0], plain) > 0.1


def test_diffusers_gives_attention_layers_the_commonest_alpha(plain, checkpoint, tmp_path):
    """What the documents say of it. Ours uses them all."""
    layers = [f"{BLOCK}.{attention}.{layer}" for attention in ("attn1", "attn2") for layer in ("to_q", "to_out.0")]

    def written(alphas: tuple[float, ...], name: str) -> Path:
        parts = [kohya_layer(layer, alpha, 1) for layer, alpha in zip(layers, alphas, strict=True)]
        save_file({key: value for part in parts for key, value in part.items()}, tmp_path / name)
        return tmp_path / name

    mixed = written((1, 2, 2, 2), "mixed.safetensors")
    theirs = fused_by_diffusers(mixed, plain)
    assert distance(theirs, fused_by_diffusers(written((2, 2, 2, 2), "common.safetensors"), plain)) == 0
    merge(checkpoint, open_loras(LoraFile(mixed)))
    first, *others = (
        (checkpoint.unet.get_submodule(layer).weight - theirs.unet.get_submodule(layer).weight).abs().max()
        for layer in layers
    )
    assert first > 0.1
    assert max(others) < EQUAL_WEIGHTS


@pytest.mark.parametrize("algorithm", ["loha", "lokr"])
def test_lycoris_merges_with_its_scale_twice(algorithm, checkpoint):
    """What the documents say of it: alpha / rank is a half here, and its own merge is half of what it trains."""
    lycoris.logger.setLevel(logging.ERROR)
    layer, every = checkpoint.unet.get_submodule(f"{BLOCK}.attn1.to_q"), torch.eye(32)
    layers = nn.Module()
    layers.add_module("layer", layer)
    network = lycoris.create_lycoris(layers, 1.0, linear_dim=2, linear_alpha=1, algo=algorithm, factor=4)
    plain = layer(every)
    network.apply_to()
    train(network)
    network.eval()
    trained = layer(every) - plain
    network.restore()
    network.merge_to(1.0)
    merged = layer(every) - plain
    assert (merged - trained / 2).abs().max() < EQUAL_WEIGHTS
    assert trained.abs().max() > 1000 * EQUAL_WEIGHTS


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("init_lora_weights", "pissa_niter_4", "init_lora_weights 'pissa_niter_4', which changes the model's own"),
        ("peft_type", "VERA", "peft_type 'VERA', which cannot be merged"),
        ("alpha_pattern", {"(a+)+": 1}, "'(a+)+' in adapter_config.json beside it is not the name of a layer"),
        ("rank_pattern", {"to_q": 0}, "a rank in adapter_config.json beside it is not a positive number"),
    ],
)
def test_a_config_of_peft_that_no_merge_can_follow_is_refused(field, value, why, plain, tmp_path):
    adapted = get_peft_model(copy.deepcopy(plain.unet), PEFT["LoRA"](["conv_in"]))
    adapted.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(LoraError) as caught:
        open_loras(LoraFile(tmp_path))
    assert why in caught.value.what


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["pytorch_lora_weights.safetensors", "other.safetensors"], ["pytorch_lora_weights.safetensors"]),
        (["style.safetensors", "optimizer.safetensors", "README.md"], ["style.safetensors"]),
        (["a.safetensors", "b.safetensors"], "it holds 2 .safetensors files (a.safetensors, b.safetensors); name one"),
        (["style.pt"], "it is a pickle"),
        ([], "it holds neither"),
    ],
)
def test_a_folders_lora_is_found_as_diffusers_finds_it(names, chosen, tmp_path):
    for name in names:
        save_file({"unet.conv_in.lora_A.weight": torch.ones(1, 4, 3, 3)}, tmp_path / name)
    with pytest.raises(LoraError) as caught:  # in the end: a factor is missing
        open_loras(LoraFile(tmp_path))
    if isinstance(chosen, str):
        assert chosen in caught.value.what
    else:
        assert f"{chosen[0]} cannot be merged: it has no up" in caught.value.what
