"""LoRA files: merged weights and pictures equal diffusers', in every spelling; what does not fit is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from nano_export import cli
from nano_export.errors import LoraError
from nano_export.judge.metrics import psnr_db
from nano_export.judge.original import diffusers_pipeline
from nano_export.options import LoraFile, parse_lora
from nano_export.source import builtin
from nano_export.source.adapters.lora import merge
from nano_export.source.adapters.lora_file import Lora, open_loras
from nano_export.source.checkpoint import Checkpoint, open_checkpoint
from nano_runtime import Pipeline
from nano_runtime.bundle.checksums import sha256_of
from nano_runtime.bundle.reading import read_manifest

# Both multiply and add in fp32, in another order: a rounding or two of weights below 1.
EQUAL_WEIGHTS = 1e-6
# Two steps carry those roundings into pictures in [0, 1]; other scales move them by more than 0.1.
EQUAL_PICTURES = 1e-4
SCALE = 0.7
STRONG = 5.0  # moves a picture much further than INT8 does
RANK = 4
Networks = builtin.Parts | Checkpoint
Tensors = dict[str, torch.Tensor]
Factors = dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]]


def networks(parts: Networks) -> dict[str, nn.Module]:
    return {"unet": parts.unet, "text_encoder": parts.text_encoder}


def draw_factors(parts: builtin.Parts, seed: int = 0, rank: int = RANK) -> Factors:
    """Random factors, down and up, for every linear layer and convolution, in the shapes trainers use."""
    noise = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return 0.05 * torch.randn(*shape, generator=noise)

    factors = {}
    for network, module in networks(parts).items():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                out, *rest = layer.weight.shape
                ones = [1] * (layer.weight.ndim - 2)
                factors[network, name] = (draw(rank, *rest), draw(out, rank, *ones))
    return factors


def as_kohya(factors: Factors, alpha: Callable[[str], float] = lambda _: 2.0) -> Tensors:
    """As kohya's scripts and LCM-LoRA."""
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    file: Tensors = {}
    for (network, name), (down, up) in factors.items():
        layer = prefixes[network] + name.replace(".", "_")
        file |= {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
        file[f"{layer}.alpha"] = torch.tensor(alpha(name))
    return file


def as_peft(factors: Factors) -> Tensors:
    """As diffusers' and PEFT's trainers, with transformers 4's names in the text encoder."""
    prefixes = {"unet": "unet.", "text_encoder": "text_encoder.text_model."}
    file: Tensors = {}
    for (network, name), (down, up) in factors.items():
        layer = prefixes[network] + name
        file |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    return file


def as_old_diffusers(factors: Factors) -> Tensors:
    """As diffusers' first trainers: attention only, in the UNet as attention processors."""
    file: Tensors = {}
    for (network, name), (down, up) in factors.items():
        if network == "unet" and ".attn" in name:
            head, _, projection = name.removesuffix(".0").rpartition(".")
            layer = f"unet.{head}.processor.{projection}_lora"
        elif "_proj" in name and network == "text_encoder":
            head, _, projection = name.rpartition(".")
            layer = f"text_encoder.text_model.{head}.to_{projection.removesuffix('_proj')}_lora"
        else:
            continue
        file |= {f"{layer}.down.weight": down, f"{layer}.up.weight": up}
    return file


def as_later_diffusers(factors: Factors) -> Tensors:
    """As diffusers 0.18 to 0.21: ``lora`` in the UNet's layers, ``lora_linear_layer`` in the text encoder's."""
    middles = {"unet": "lora", "text_encoder": "lora_linear_layer"}
    file: Tensors = {}
    for (network, name), (down, up) in factors.items():
        layer = f"unet.{name}" if network == "unet" else f"text_encoder.text_model.{name}"
        file |= {f"{layer}.{middles[network]}.down.weight": down, f"{layer}.{middles[network]}.up.weight": up}
    return file


SPELLINGS = {
    "kohya": as_kohya,
    "peft": as_peft,
    "old diffusers": as_old_diffusers,
    "later diffusers": as_later_diffusers,
}


@pytest.fixture(scope="module")
def parts():
    """The model without any LoRA."""
    return builtin.build("tiny")


@pytest.fixture(scope="module")
def factors(parts):
    return draw_factors(parts)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "style.safetensors"


def opened(path: Path, scale: float = 1.0) -> Lora:
    """The one file of a LoRA."""
    (lora,) = open_loras(LoraFile(path, scale))
    return lora


def merged(*files: tuple[Path, float]) -> Checkpoint:
    """The model with our merge."""
    checkpoint = open_checkpoint("tiny", None)
    merge(checkpoint, [opened(path, scale) for path, scale in files])
    return checkpoint


def fused(*files: tuple[Path, float]) -> builtin.Parts:
    """The model with diffusers' merge, which needs PEFT."""
    parts = builtin.build("tiny")
    pipeline = diffusers_pipeline(parts)
    for path, scale in files:
        pipeline.load_lora_weights(str(path))
        pipeline.fuse_lora(lora_scale=scale)
        pipeline.unload_lora_weights()
    return parts


def weight_of(network: nn.Module, name: str) -> torch.Tensor:
    return network.get_parameter(f"{name}.weight")


def distance(actual: Networks, expected: Networks) -> float:
    """The largest difference of two weights."""
    largest = 0.0
    for module, other in zip(networks(actual).values(), networks(expected).values(), strict=True):
        ours, theirs = module.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys()
        largest = max(largest, *((ours[key] - theirs[key]).abs().max().item() for key in ours))
    return largest


def picture(parts: Networks) -> np.ndarray:
    """What diffusers draws with these weights: float32 [64, 64, 3] in [0, 1]."""
    return diffusers_pipeline(parts)(
        "a red fox",
        height=64,
        width=64,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_weights_and_pictures_equal_diffusers(spelling, factors, parts, file):
    content = SPELLINGS[spelling](factors)
    save_file(content, file)

    ours, theirs = merged((file, SCALE)), fused((file, SCALE))

    assert distance(ours, theirs) < EQUAL_WEIGHTS
    drawn = picture(ours)
    assert np.abs(drawn - picture(theirs)).max() < EQUAL_PICTURES
    # What would show a layer left out, or a scale that does nothing:
    changed = sum(
        not torch.equal(weight_of(layer, name), weight_of(networks(parts)[network], name))
        for network, layer in networks(ours).items()
        for owner, name in factors
        if owner == network
    )
    assert changed == sum(key.endswith(("down.weight", "A.weight")) for key in content)
    other = merged((file, 2 * SCALE))
    assert distance(other, theirs) > 100 * EQUAL_WEIGHTS
    assert np.abs(picture(other) - drawn).max() > 100 * EQUAL_PICTURES


def test_attention_processors_without_the_networks_name_equal_diffusers(factors, file):
    save_file({key[5:]: value for key, value in as_old_diffusers(factors).items() if key.startswith("unet.")}, file)
    parts = builtin.build("tiny")
    parts.unet.load_lora_adapter(str(file), prefix=None)
    parts.unet.fuse_lora(lora_scale=SCALE)
    parts.unet.unload_lora()
    assert distance(merged((file, SCALE)), parts) < EQUAL_WEIGHTS


@pytest.mark.parametrize("by_root", [False, True])
def test_alpha_in_pefts_config_equals_diffusers(by_root, factors, file):
    save_file(
        as_peft(factors),
        file,
        metadata={
            "lora_adapter_metadata": json.dumps(
                {
                    f"{network}.{name}": value
                    for network, ends in (("unet", ["to_q", "conv1"]), ("text_encoder", ["fc2"]))
                    for name, value in (
                        ("r", RANK),
                        ("lora_alpha", 6),
                        ("alpha_pattern", {"^conv_out": 1, **dict.fromkeys(ends, 3)}),
                        ("use_rslora", by_root),
                        ("target_modules", [name for owner, name in factors if owner == network]),
                    )
                }
            )
        },
    )
    theirs = fused((file, SCALE))
    assert distance(merged((file, SCALE)), theirs) < EQUAL_WEIGHTS
    save_file(as_peft(factors), file)
    assert distance(merged((file, SCALE)), theirs) > 100 * EQUAL_WEIGHTS


def test_several_files_equal_diffusers_and_add_up(factors, parts, tmp_path):
    first, second = (tmp_path / "first.safetensors", 0.9), (tmp_path / "second.safetensors", -0.4)
    save_file(as_kohya(factors), first[0])
    save_file(as_peft(draw_factors(parts, seed=1, rank=2)), second[0])
    assert distance(merged(first, second), fused(first, second)) < EQUAL_WEIGHTS
    assert distance(merged(first, second), merged(second, first)) < EQUAL_WEIGHTS
    assert distance(merged(first, second), merged(first)) > 100 * EQUAL_WEIGHTS


def beside(layer: nn.Linear | nn.Conv2d, factors: list[torch.Tensor], strength: float) -> None:
    """Let a layer compute what a LoRA means, with no merge: its own result plus that of the thin layers beside it."""

    def add(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        result = inputs[0]
        for factor in factors:
            if isinstance(layer, nn.Linear):
                result = functional.linear(result, factor.flatten(1))
            elif factor.shape[2:] == layer.weight.shape[2:] != (1, 1):  # the one that sees the neighbourhood
                result = functional.conv2d(result, factor, stride=layer.stride, padding=layer.padding)
            else:
                result = functional.conv2d(result, factor)
        return output + strength * result

    layer.register_forward_hook(add)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, EQUAL_PICTURES), (torch.float16, EQUAL_PICTURES), (torch.bfloat16, EQUAL_PICTURES)],
    ids=["fp32", "fp16", "bf16"],
)
def test_alphas_and_middle_factors_draw_what_thin_layers_beside_the_model_draw(dtype, tolerance, factors, file):
    """What diffusers cannot check: it has no ``lora_mid``, and one alpha for all attention layers of a kohya file.

    Linear layers get factors with a 1x1 kernel, as files have that were trained where these were convolutions.
    """
    noise = torch.Generator().manual_seed(2)
    file_content: Tensors = {}
    reference = builtin.build("tiny")
    for index, ((network, name), (down, up)) in enumerate(factors.items()):
        layer = networks(reference)[network].get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        chain = [(down, "down"), (up, "up")]
        if down.shape[2:] == (3, 3):
            mid = 0.3 * torch.randn(RANK + 1, RANK, 3, 3, generator=noise)
            wide = 0.05 * torch.randn(len(up), RANK + 1, 1, 1, generator=noise)
            chain = [(down[:, :, :1, :1], "down"), (mid, "mid"), (wide, "up")]
        elif index % 2 and network == "unet":
            chain = [(factor.reshape(*factor.shape[:2], 1, 1), part) for factor, part in chain]
        chain = [(factor.to(dtype).contiguous(), part) for factor, part in chain]
        alpha = index % 5
        beside(layer, [factor.float() for factor, _ in chain], SCALE * alpha / RANK)
        prefix = "lora_unet_" if network == "unet" else "lora_te_text_model_"
        stem = prefix + name.replace(".", "_")
        file_content |= {f"{stem}.lora_{part}.weight": factor for factor, part in chain}
        file_content[f"{stem}.alpha"] = torch.tensor(alpha, dtype=dtype)
    save_file(file_content, file)

    expected = picture(reference)
    assert np.abs(picture(merged((file, SCALE))) - expected).max() < tolerance
    save_file({key: value for key, value in file_content.items() if not key.endswith("alpha")}, file)
    assert np.abs(picture(merged((file, SCALE))) - expected).max() > 100 * tolerance


def test_a_checkpoint_from_a_folder_is_merged_and_its_files_stay(factors, parts, file, tmp_path):
    save_file(as_kohya(factors), file)
    builtin.write_checkpoint(parts, tmp_path / "tiny")
    weights = tmp_path / "tiny" / "unet" / "diffusion_pytorch_model.safetensors"
    before = sha256_of(weights)
    checkpoint = open_checkpoint(str(tmp_path / "tiny"), None)
    merge(checkpoint, [opened(file, SCALE)])
    assert distance(checkpoint, merged((file, SCALE))) == 0
    assert sha256_of(weights) == before


def test_nothing_is_merged_if_one_file_does_not_fit(factors, parts, tmp_path):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_file(as_kohya(factors), good)
    save_file({"unet.conv_inn.lora_A.weight": torch.ones(1, 4), "unet.conv_inn.lora_B.weight": torch.ones(4, 1)}, bad)
    checkpoint = open_checkpoint("tiny", None)
    with pytest.raises(LoraError, match=r"bad\.safetensors"):
        merge(checkpoint, [opened(path) for path in (good, bad)])
    assert distance(checkpoint, parts) == 0


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("style.safetensors", "style.safetensors", 1.0),
        ("style.safetensors:0.8", "style.safetensors", 0.8),
        ("style.safetensors:-1", "style.safetensors", -1.0),
        ("style.safetensors:.5", "style.safetensors", 0.5),
        ("style.safetensors:+2e-1", "style.safetensors", 0.2),
        ("C:\\loras\\style.safetensors", "C:\\loras\\style.safetensors", 1.0),
        ("a:b/style:0.5", "a:b/style", 0.5),
        ("style:2:0.5", "style:2", 0.5),
        ("style:nan", "style:nan", 1.0),
        ("style:0x1", "style:0x1", 1.0),
        ("style:", "style:", 1.0),
    ],
)
def test_only_a_number_after_the_last_colon_is_a_scale(text, path, scale):
    assert parse_lora(text) == LoraFile(Path(path), scale)


def pair(layer: str, out: int = 32, inside: int = 32, rank: int = 2) -> Tensors:
    """Two kohya factors for one linear layer."""
    return {
        f"{layer}.lora_down.weight": torch.ones(rank, inside),
        f"{layer}.lora_up.weight": torch.ones(out, rank),
    }


ATTENTION = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
FITTING = pair(ATTENTION)
NAN = torch.full((2, 32), math.nan)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param({}, "it holds no tensors", id="empty"),
        pytest.param({"conv_in.weight": torch.ones(1)}, "'conv_in.weight' is no part of a LoRA", id="a checkpoint"),
        pytest.param({f"{ATTENTION}.oft_blocks": torch.ones(1)}, "oft_blocks' is of OFT", id="OFT"),
        pytest.param({"unet.conv_in.boft_R": torch.ones(1)}, "boft_R' is of BOFT", id="BOFT"),
        pytest.param({"unet.conv_in.vera_lambda_d": torch.ones(1)}, "vera_lambda_d' is of VeRA", id="VeRA"),
        pytest.param(
            {"text_encoder.embeddings.token_embedding.lora_embedding_A": torch.ones(2, 9)},
            "is of an embedding's LoRA",
            id="LoRA of an embedding",
        ),
        pytest.param({f"{ATTENTION}.hada_w1_a": torch.ones(2, 2)}, f"no hada_w1_b for '{ATTENTION}'", id="half a LoHa"),
        pytest.param(
            {f"{ATTENTION}.hada_w{side}_{end}": torch.ones(2, 3) for side in "12" for end in "ab"},
            "cannot be multiplied: hada_w1_a 2x3, hada_w1_b 2x3",
            id="ranks of LoHa",
        ),
        pytest.param({f"{ATTENTION}.lokr_w1": torch.ones(2, 2)}, "neither lokr_w2 nor both", id="half a LoKr"),
        pytest.param(
            {f"{ATTENTION}.lokr_w1": torch.ones(3, 3), f"{ATTENTION}.lokr_w2": torch.ones(3, 3)},
            f"'{ATTENTION}' changes 9x9 weights, the model has 32x32",
            id="size of LoKr",
        ),
        pytest.param(
            FITTING | {f"{ATTENTION}.dora_scale": torch.ones(31, 1)}, "has 31 magnitudes, not 32", id="magnitudes"
        ),
        pytest.param(
            FITTING | {f"{ATTENTION}.dora_scale": torch.ones(1, 16)},
            "has 16 magnitudes, not 32",
            id="magnitudes by input",
        ),
        pytest.param(
            FITTING | {f"{ATTENTION}.diff": torch.ones(32, 32)}, "it has diff beside down for", id="two kinds in one"
        ),
        pytest.param(
            FITTING | {f"{ATTENTION}.diff_b": torch.ones(32)}, "a bias, and the model's layer has none", id="no bias"
        ),
        pytest.param(
            {"lora_unet_conv_norm_out.w_norm": torch.ones(31)}, "changes 31 weights, the model has 32", id="norm"
        ),
        pytest.param(
            {"unet.conv_in.lora_A.bias": torch.ones(1)},
            "'unet.conv_in.lora_A.bias' is no part of a LoRA",
            id="bias of A",
        ),
        pytest.param(
            pair("transformer.single_transformer_blocks.0.attn.to_q"),
            "it is for Flux, or another model with a transformer: 1 of its 1 layers",
            id="Flux",
        ),
        pytest.param(
            pair("base_model.model.conv_in"),
            "adapter_config.json is not beside it",
            id="PEFT's file without its config",
        ),
        pytest.param({f"{ATTENTION}.lora_up.weight": torch.ones(32, 2)}, f"no down for '{ATTENTION}'", id="no down"),
        pytest.param({f"{ATTENTION}.alpha": torch.tensor(1.0)}, f"no down for '{ATTENTION}'", id="alpha alone"),
        pytest.param(
            FITTING | {f"{ATTENTION}.lora_A.weight": torch.ones(2, 32)}, f"down of '{ATTENTION}' twice", id="twice"
        ),
        pytest.param(
            FITTING | {f"{ATTENTION}.lora_up.weight": torch.ones(32, 3)},
            "cannot be multiplied: down 2x32, up 32x3",
            id="ranks",
        ),
        pytest.param(
            FITTING | {f"{ATTENTION}.lora_mid.weight": torch.ones(2, 3, 3, 3)},
            "cannot be multiplied: down 2x32, mid 2x3x3x3, up 32x2",
            id="ranks of the middle",
        ),
        pytest.param(
            FITTING | {f"{ATTENTION}.lora_up.weight": torch.ones(32, 2, 3, 3)},
            "cannot be multiplied: down 2x32, up 32x2x3x3",
            id="two kernels",
        ),
        pytest.param(pair(ATTENTION, rank=0), "cannot be multiplied: down 0x32, up 32x0", id="rank 0"),
        pytest.param(FITTING | {f"{ATTENTION}.lora_down.weight": NAN}, "other values than finite floats", id="nan"),
        pytest.param(
            FITTING | {f"{ATTENTION}.lora_down.weight": torch.ones(2, 32, dtype=torch.int32)},
            "other values than finite floats",
            id="integers",
        ),
        pytest.param(FITTING | {f"{ATTENTION}.alpha": torch.ones(2)}, "is not one number", id="two alphas"),
        pytest.param(
            pair(ATTENTION.replace("attn1_to_q", "attn2_to_k"), inside=768),
            "for a text encoder of width 768 (Stable Diffusion 1), the model has one of 48",
            id="Stable Diffusion 1",
        ),
        pytest.param(
            pair("unet.mid_block.attentions.0.transformer_blocks.9.attn2.processor.to_v", inside=2048),
            "for a text encoder of width 2048 (Stable Diffusion XL), the model has one of 48",
            id="Stable Diffusion XL",
        ),
        pytest.param(
            FITTING | pair("lora_te2_text_model_encoder_layers_0_mlp_fc1"),
            "it is for Stable Diffusion XL: 1 of its 2 layers are not in the model: "
            "'lora_te2_text_model_encoder_layers_0_mlp_fc1' "
            "(the nearest name there is 'lora_te_text_model_encoder_layers_0_mlp_fc1')",
            id="a second text encoder",
        ),
        pytest.param(
            {key: value for index in range(9) for key, value in pair(f"evil\n\x1b[2J{index}" + "x" * 999).items()},
            "9 of its 9 layers are not in the model: 'evil\\n\\x1b[2J",
            id="names that would garble a terminal",
        ),
        pytest.param(
            pair(ATTENTION, inside=64), f"'{ATTENTION}' changes 32x64x1x1 weights, the model has 32x32x1x1", id="width"
        ),
        pytest.param(
            FITTING | pair("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
            "are the same layer",
            id="one layer in two spellings",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused_and_nothing_is_written(content, why, file, tmp_path, capsys):
    save_file(content, file)
    error = refused(file, tmp_path, capsys)
    assert error.startswith(f"nano-export: the LoRA {file} cannot be merged: ")
    assert why in error
    assert len(error) < 1000


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "cannot be read"),
        ("[]", None),  # nothing about any network
        ('["unet.r"]', "cannot be read"),
        ("5", "cannot be read"),
        ('{"unet.r": 2}', "cannot be read"),
        ('{"unet.lora_alpha": "two"}', "cannot be read"),
        ('{"unet.lora_alpha": 1e999}', "is not finite"),
        (f'{{"unet.lora_alpha": 1{"0" * 400}}}', "cannot be read"),
        ('{"unet.lora_alpha": 1, "unet.alpha_pattern": {"conv_in": NaN}}', "is not finite"),
        ('{"unet.lora_alpha": 1, "unet.alpha_pattern": {"(a+)+": 1}}', "'(a+)+' in its metadata"),
    ],
)
def test_a_config_that_is_not_pefts_is_refused(config, why, file):
    save_file(FITTING, file, metadata={"lora_adapter_metadata": config})
    if why is None:
        assert opened(file).layers.keys() == {ATTENTION}
        return
    with pytest.raises(LoraError) as caught:
        opened(file)
    assert why in caught.value.what


@pytest.mark.parametrize(
    "damage",
    [
        "missing",
        "a name too long",
        "an empty folder",
        "a pickle",
        "cut short",
        "longer than a LoRA",
        "a long header",
        "a false length",
    ],
)
def test_files_that_cannot_be_read_are_refused(damage, file, tmp_path, capsys):
    save_file(FITTING, file)
    if damage == "missing":
        file.unlink()
        why = "there is no such file or folder"
    elif damage == "a name too long":
        file = file.with_name("x" * 300 + ".safetensors")
        why = "it cannot be looked at (File name too long)"
    elif damage == "an empty folder":
        file.unlink()
        file.mkdir()
        why = "it holds neither pytorch_lora_weights.safetensors nor adapter_model.safetensors"
    elif damage == "a pickle":
        torch.save(FITTING, file)
        why = "it is not a safetensors file, or a damaged one"
    elif damage == "cut short":
        file.write_bytes(file.read_bytes()[:-1])
        why = "it is not a safetensors file, or a damaged one"
    elif damage == "a long header":
        save_file(FITTING, file, {"comment": "x" * (17 << 20)})
        why = "it is not a safetensors file, or a damaged one (a header of 1782"
    elif damage == "a false length":
        file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])
        why = "it is not a safetensors file, or a damaged one (a header of 18446744073709551615 bytes)"
    else:
        with file.open("r+b") as opened:
            opened.truncate(9 * 10**9)  # a hole
        why = "9.0 GB are more than it can have"
    assert f"the LoRA {file} cannot be merged: {why}" in refused(file, tmp_path, capsys)


@pytest.mark.parametrize("name", ["style.safetensors", "loras/style.safetensors", "place/other/style.safetensors"])
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no such file or folder" in refused(name, tmp_path, capsys)


@pytest.mark.parametrize(("scale", "why"), [("1e999", "the scale 1e999 is too large"), ("3e38", "makes")])
def test_scales_that_break_weights_are_refused(scale, why, file, tmp_path, capsys):
    save_file(FITTING | pair("lora_unet_time_embedding_linear_1", out=128), file)
    assert why in refused(f"{file}:{scale}", tmp_path, capsys)


def refused(lora: Path | str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command and return the line that says why it refused."""
    place = folder / "place"
    place.mkdir()
    assert cli.main(["tiny", "-o", str(place / "bundle"), "--lora", str(lora)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert list(place.iterdir()) == []
    lines = err[err.index("nano-export: ") :].splitlines()
    assert len(lines) == 2
    return lines[0]


@pytest.mark.slow
def test_an_int8_bundle_draws_with_the_lora_and_names_it(factors, parts, file, tmp_path, capsys):
    save_file(as_kohya(factors), file)
    bundle = tmp_path / "bundle"

    arguments = [
        "tiny",
        "-o",
        str(bundle),
        "--int8",
        "--size",
        "64",
        "--backend",
        "onnxruntime",
        "--lora",
        f"{file}:{STRONG}",
    ]
    assert cli.main(arguments) == 0

    capsys.readouterr()
    manifest = read_manifest(bundle)
    assert manifest.options["loras"] == [{"name": file.name, "sha256": sha256_of(file), "scale": STRONG}]
    pipeline = Pipeline.from_pretrained(bundle, backend="onnxruntime")
    drawn = pipeline("a red fox", num_inference_steps=2, scheduler="pndm", seed=0, output_type="np").images[0]
    assert isinstance(drawn, np.ndarray)
    # 25 dB is what random weights in INT8 score at least (tests/contract/test_int8.py).
    near, far = (psnr_db(drawn, picture(other), 1.0) for other in (fused((file, STRONG)), parts))
    assert near > 25
    assert far < near - 6
