"""Single files in the original layout: loaded as diffusers' ``from_single_file`` loads them, or refused in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub import constants
from safetensors.torch import load_file
from tests.exporter.original_layout import (
    networks,
    original,
    original_unet,
    write_configs,
    write_file,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from nano_export import Options, export
from nano_export.errors import CheckpointError, PickleFileError, SingleFileError, VocabularyNotFoundError
from nano_export.options import NOTHING_ASKED, SingleFileOptions
from nano_export.source.checkpoint import Checkpoint, load, open_checkpoint
from nano_export.source.place import find_model
from nano_export.source.single_file import vocabulary as clip_vocabulary
from nano_export.source.single_file.opening import SingleFile
from nano_export.source.single_file.shapes import unet_config
from nano_export.source.single_file.vocabulary import Vocabulary, find_vocabulary, write_tokenizer
from nano_runtime import DrawOptions, Pipeline

EPSILON = {"modelspec.prediction_type": "epsilon"}
V = SingleFileOptions(prediction_type="v_prediction")
SD = "model.diffusion_model."
PROMPT = "a photograph of an astronaut, riding a horse!"
# Published scheduler configs of Stable Diffusion 1.5, 2.1 and 1.5 for inpainting.
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
PUBLISHED = {
    **BETAS,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
LETTERS = sorted(ByteLevel.alphabet())
TOKENS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
SMALL = Vocabulary({token: index for index, token in enumerate(TOKENS)}, [])
KINDS = {
    "1": (1, 4, "StableDiffusionPipeline", "PNDMScheduler", "epsilon"),
    "2 v": (2, 4, "StableDiffusionPipeline", "DDIMScheduler", "v_prediction"),
    "1 inpainting": (1, 9, "StableDiffusionInpaintPipeline", "DDIMScheduler", "epsilon"),
    "2 inpainting": (2, 9, "StableDiffusionInpaintPipeline", "PNDMScheduler", "epsilon"),
}


@pytest.fixture(scope="module")
def vocabulary():
    """CLIP's, from the package that ``make setup`` installs."""
    return find_vocabulary(Path("nowhere/file.safetensors"), None)


@pytest.fixture(scope="module")
def sd2(tmp_path_factory):
    """A folder for a Stable Diffusion 2 with few words, and its tensors."""
    folder = tmp_path_factory.mktemp("sd2")
    clip_of(folder)
    return folder, original(networks(2, words=600), torch.float16)


@pytest.fixture(scope="module")
def tensors():
    """A whole Stable Diffusion 1 with few words."""
    return original(networks(1, words=600), torch.float16)


def clip_of(folder: Path, name: str = "tokenizer") -> Path:
    """Write a small vocabulary where it is found for the files in a folder; return its own folder."""
    write_tokenizer(folder / name, SMALL, 1, 77)
    return folder / name


def with_configs(folder: Path, kind: str, vocabulary: Vocabulary) -> tuple[Path, Path]:
    """Write a file in fp16, its tokenizer beside it and, apart, the folder of configs that diffusers wants."""
    family, channels, pipeline, scheduler, prediction = KINDS[kind]
    model = networks(family, channels, words=len(vocabulary.words))
    file = write_file(folder / "model.safetensors", original(model, torch.float16))
    config = {"_class_name": scheduler, **PUBLISHED, "prediction_type": prediction}
    configs = write_configs(folder / "apart", model, config, pipeline)
    write_tokenizer(configs / "tokenizer", vocabulary, family, 77)
    write_tokenizer(folder / "tokenizer", vocabulary, family, 77)
    return file, configs


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config says, without notes on where it came from."""
    said = {key: value for key, value in config.items() if not key.startswith("_")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key].float()) for key in ours)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_what_diffusers_reads_in_it(kind, tmp_path):
    file, configs = with_configs(tmp_path, kind, SMALL)
    pipeline = StableDiffusionInpaintPipeline if "inpainting" in kind else StableDiffusionPipeline
    theirs = pipeline.from_single_file(str(file), config=str(configs), local_files_only=True)

    ours = open_checkpoint(str(file), None, asked=V if kind == "2 v" else NOTHING_ASKED)

    for name in ("text_encoder", "unet", "vae"):
        assert same_weights(getattr(ours, name), getattr(theirs, name))
        assert not getattr(ours, name).training
    assert plain(ours.unet.config) == plain(theirs.unet.config)
    assert ours.vae.config.scaling_factor == theirs.vae.config.scaling_factor
    assert ours.text_encoder.config.hidden_act == theirs.text_encoder.config.hidden_act
    assert plain(type(theirs.scheduler).from_config(ours.scheduler).config) == plain(theirs.scheduler.config)
    assert ours.scheduler["_class_name"] == type(theirs.scheduler).__name__
    assert ours.task == ("inpainting" if "inpainting" in kind else "text-to-image")
    for prompt in (PROMPT, ""):
        assert ours.tokenizer(prompt, padding="max_length") == theirs.tokenizer(prompt, padding="max_length")
    assert ours.tokenizer.pad_token_id == (len(TOKENS) - 1 if kind.startswith("1") else 0)
    assert (ours.name, ours.source.revision) == ("model", None)


def test_an_autoencoder_comes_from_elsewhere(tensors, tmp_path):
    clip_of(tmp_path)
    model = networks(1, words=600)
    model.vae.save_pretrained(tmp_path / "other" / "vae")
    file = write_file(tmp_path / "bare.safetensors", without(tensors, "first_stage_model."))
    for folder in (tmp_path / "other", tmp_path / "other" / "vae"):
        assert same_weights(load(find_model(str(file), None, None, vae=folder)).vae, model.vae)
    with pytest.raises(SingleFileError, match="without its VAE") as caught:
        find_model(str(file), None, None)
    assert "--vae FOLDER" in str(caught.value.hint)


@pytest.mark.slow
def test_a_bundle_draws_what_diffusers_draws(vocabulary, tmp_path):
    file, configs = with_configs(tmp_path, "2 v", vocabulary)
    shutil.rmtree(file.parent / "tokenizer")  # the package has it
    bundle = tmp_path / "bundle"
    asked = Options(model=str(file), output=bundle, backends=("onnxruntime",), size=64, single_file=V)
    *_, _exported = export(asked)
    theirs = StableDiffusionPipeline.from_single_file(str(file), config=str(configs), local_files_only=True)
    theirs.set_progress_bar_config(disable=True)

    expected = theirs(
        PROMPT,
        height=64,
        width=64,
        num_inference_steps=6,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).images.numpy()
    pipeline = Pipeline.from_pretrained(bundle, backend="onnxruntime")
    options = DrawOptions(num_inference_steps=6, seed=7, scheduler="ddim", output_type="latent")
    drawn, other = (
        np.asarray(pipeline(replace(options, prompt=prompt)).images).reshape(expected.shape)
        for prompt in (PROMPT, "a cat")
    )
    assert np.abs(drawn - expected).max() < 1e-4 * np.ptp(expected)
    assert np.abs(other - expected).max() > 1e-3 * np.ptp(expected)


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        pytest.param(4, {"cross_attention_dim": 768, "attention_head_dim": 8}, id="1.5"),
        pytest.param(
            4,
            {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
            id="2.1",
        ),
        pytest.param(9, {"cross_attention_dim": 768, "attention_head_dim": 8}, id="inpainting"),
        pytest.param(4, {"cross_attention_dim": 768, "attention_head_dim": 8, "mid_block_type": None}, id="BK-SDM"),
    ],
)
def test_the_published_architectures_are_told_by_their_shapes(channels, options):
    with torch.device("meta"):
        unet = UNet2DConditionModel(in_channels=channels, sample_size=64, **options)
    shapes = {key: tuple(value.shape) for key, value in original_unet(unet).items()}
    config = unet_config(shapes, 1 if options["cross_attention_dim"] == 768 else 2)
    with torch.device("meta"):
        ours = UNet2DConditionModel.from_config({**config, "sample_size": 64})
    assert plain(ours.config) == plain(unet.config)


def test_names_of_2022_and_copies_that_are_not_used(tmp_path):
    sd1 = networks(1, words=600)
    plain = original(sd1)
    clip_of(tmp_path)
    old = {key.replace(".transformer.text_model.", ".transformer."): value for key, value in plain.items()}
    others = {
        "model_ema.decay": torch.tensor(0.9),
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(3),
        "alphas_cumprod": torch.zeros(1000),
        "first_stage_model.loss.logvar": torch.zeros(1),
    }
    file = write_file(tmp_path / "old.safetensors", {**old, **others})
    ours = open_checkpoint(str(file), None)
    for name in ("text_encoder", "unet", "vae"):
        assert same_weights(getattr(ours, name), getattr(sd1, name))
    folder = find_model(str(file), None, None).folder
    assert folder is not None
    for name, weights in folder.weights.items():  # which the estimate of memory counts
        count = sum(parameter.numel() for parameter in getattr(sd1, name).parameters())
        assert weights.parameters == count
        assert weights.stored_bytes == pytest.approx(4 * count, rel=0.01)


def opened(tensors, path: Path, asked: SingleFileOptions = NOTHING_ASKED, **metadata: str) -> Checkpoint:
    return open_checkpoint(str(write_file(path, tensors, **metadata)), None, asked=asked)


def some(*keys: str, shape: tuple[int, ...] = (4, 4)) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(shape) for key in keys}


AVERAGED = "a model whose UNet is there as its moving average alone"
FIRST = {f"{SD}input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}
SDXL = FIRST | {f"{SD}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(640, 2048)}


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (some("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"), "a LoRA", "--lora"),
        (some("unet.down_blocks.0.attentions.0.to_q.lora_A.weight"), "a LoRA", "--lora"),
        (some("lora_unet_x.hada_w1_a"), "a LoRA", "--lora"),
        (some("emb_params"), "an embedding", "--embedding"),
        (some("<cat>", shape=(768,)), "an embedding", "--embedding"),
        (some("first_stage_model.decoder.conv_in.weight"), "a VAE alone", "--vae"),
        (some("encoder.conv_in.weight", "decoder.conv_in.weight"), "a VAE alone", "--vae"),
        (some("conditioner.embedders.1.model.ln_final.weight", f"{SD}out.0.bias"), "Stable Diffusion XL", "Supported"),
        (SDXL, "Stable Diffusion XL", "Supported"),
        (some("model.diffusion_model.double_blocks.0.img_attn.proj.weight"), "Flux", "Supported"),
        (some("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"), "Stable Diffusion 3", "Supported"),
        (some("control_model.time_embed.0.weight"), "a ControlNet", "no place"),
        (some("input_blocks.0.0.weight"), "a UNet alone", "whole folder"),
        (some("down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"), "a UNet alone, in diffusers'", "whole folder"),
        (some("text_model.encoder.layers.0.mlp.fc1.weight"), "a text encoder alone", "whole folder"),
        (some("model_ema.diffusion_modelout2bias", "first_stage_model.decoder.conv_in.weight"), AVERAGED, "pruned"),
        (some(*"abcde"), "no Stable Diffusion; one of its 5 tensors is a", "Supported"),
        ({}, "a file without tensors", "whole folder"),
    ],
)
def test_files_given_by_mistake_are_recognised(content, what, remedy, tmp_path):
    with pytest.raises(SingleFileError) as caught:
        opened(content, tmp_path / "given.safetensors")
    assert f"it is {what}" in str(caught.value)
    assert remedy in str(caught.value.hint)


def without(tensors, *prefixes: str):
    return {key: value for key, value in tensors.items() if not key.startswith(prefixes)}


RESNET = f"{SD}input_blocks.1.0.in_layers.2.weight"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        pytest.param(lambda t: without(t, "first_stage_model."), "without its VAE", id="no VAE"),
        pytest.param(lambda t: without(t, "cond_stage_model."), "without its text encoder", id="no text encoder"),
        pytest.param(lambda t: without(t, f"{SD}middle_block.1.norm"), "lacks 2 tensors", id="tensors missing"),
        pytest.param(lambda t: without(t, f"{SD}input_blocks.2.0.op.bias"), "lacks 1 tensors", id="one missing"),
        pytest.param(lambda t: t | some(f"{SD}input_blocks.1.2.motion.weight"), "input_blocks.1.2.mo", id="one more"),
        pytest.param(
            lambda t: t | {RESNET: t[RESNET][:, :5].contiguous()}, "has the shape [64, 5, 3, 3]", id="another shape"
        ),
        pytest.param(lambda t: t | {RESNET: t[RESNET].to(torch.int8)}, "int8: it is quantized", id="quantized"),
        pytest.param(
            lambda t: t | {f"{SD}input_blocks.0.0.weight": torch.zeros(64, 5, 3, 3)}, "depth-to-image", id="depth"
        ),
        pytest.param(lambda t: t | some(f"{SD}label_emb.0.0.weight"), "unCLIP", id="unCLIP"),
    ],
)
def test_what_is_missing_or_left_over_is_named(damage, why, tensors, tmp_path):
    clip_of(tmp_path)
    with pytest.raises(SingleFileError) as caught:
        opened(damage(tensors), tmp_path / "damaged.safetensors")
    assert why in str(caught.value)


def test_what_is_wrong_with_its_configs_is_said_of_the_file(tensors, tmp_path):
    """They are written into a folder that nobody has seen, and that is gone by then."""
    clip_of(tmp_path)
    seven = {f"{SD}input_blocks.0.0.weight": torch.zeros(64, 7, 3, 3)}
    with pytest.raises(SingleFileError, match=r"seven\.safetensors cannot be exported: its unet has in_channels=7"):
        opened(tensors | seven, tmp_path / "seven.safetensors")
    file = write_file(tmp_path / "odd.safetensors", tensors)
    file.with_suffix(".yaml").write_text("model: {params: {timesteps: 1e9}}")
    with pytest.raises(SingleFileError, match=r"odd\.safetensors .* its scheduler/scheduler_config.json .*1000000000"):
        open_checkpoint(str(file), None)
    for text in ("model: {params: " + "[" * 5000, "model: {params: &a {parameterization: [*a]}}", f"a: 0x{'f' * 600}"):
        file.with_suffix(".yaml").write_text(text)
        with pytest.raises(SingleFileError, match=r"odd\.yaml .* no config of a Stable Diffusion"):
            open_checkpoint(str(file), None)


def test_a_pickle_is_refused_and_converted_by_the_command_in_the_refusal(tmp_path):
    file = tmp_path / "it's old.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2, 3).T, "step": 7}}, file)
    with pytest.raises(PickleFileError) as caught:
        open_checkpoint(str(file), None)
    command = str(caught.value.hint).split("convert it: ")[1].replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - as a user pastes it
    assert torch.equal(load_file(file.with_suffix(".safetensors"))["a"], torch.ones(3, 2))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("missing.safetensors", None, "it is missing"),
        ("missing.ckpt", None, "it is missing"),
        ("page.safetensors", b"<!DOCTYPE html><html></html>", "web page"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("pickle.safetensors", b"PK\x03\x04 and so on", "a pickle"),
        ("half.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "cut short"),
        ("empty.safetensors", b"", "cut short"),
        ("other.gguf", b"GGUF", "it is GGUF"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_never_looked_up(name, content, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    for model in (name, f"./{name}", str(tmp_path / name)):
        with pytest.raises((CheckpointError, SingleFileError), match=why):
            open_checkpoint(model, None)


@pytest.mark.parametrize(
    ("yaml", "metadata", "asked", "prediction"),
    [
        (None, {}, SingleFileOptions(prediction_type="epsilon"), "epsilon"),
        ("model: {params: {parameterization: v}}", {}, NOTHING_ASKED, "v_prediction"),
        ("model: {params: {linear_start: 0.001}}", {}, NOTHING_ASKED, "epsilon"),
        (None, {"modelspec.prediction_type": "v"}, NOTHING_ASKED, "v_prediction"),
        (None, {"modelspec.architecture": "stable-diffusion-v2-512"}, NOTHING_ASKED, "epsilon"),
        (None, {}, NOTHING_ASKED, "nothing says whether its network predicts noise"),
        ("model: {params: {parameterization: v}}", EPSILON, NOTHING_ASKED, "is not clear what its network predicts"),
        ("model: {params: {parameterization: v}}", EPSILON, V, "v_prediction"),
        ("model: [", {}, NOTHING_ASKED, "no config of a Stable Diffusion"),
    ],
)
def test_what_a_stable_diffusion_2_predicts(yaml, metadata, asked, prediction, sd2):
    folder, tensors = sd2
    (folder / "sd2.yaml").unlink(missing_ok=True)
    if yaml is not None:
        (folder / "sd2.yaml").write_text(yaml)
    if prediction in {"epsilon", "v_prediction"}:
        file = write_file(folder / "sd2.safetensors", tensors, **metadata)
        hints = SingleFile.open(str(file), asked).hints
        assert hints.prediction == prediction
        assert hints.schedule == ({"beta_start": 0.001} if yaml is not None and "linear" in yaml else {})
    else:
        with pytest.raises(SingleFileError, match=prediction) as caught:
            opened(tensors, folder / "sd2.safetensors", asked, **metadata)
        assert "--prediction-type" in str(caught.value.hint) or "yaml" in str(caught.value)


def test_a_mark_for_velocity_counts_in_stable_diffusion_1_too(tensors, tmp_path):
    clip_of(tmp_path)
    assert (
        opened(tensors | {"v_pred": torch.zeros(0)}, tmp_path / "v.safetensors").scheduler["prediction_type"]
        == "v_prediction"
    )


def test_configs_beside_the_file_decide(tensors, tmp_path):
    model = networks(1, words=600)
    scheduler = {"_class_name": "EulerDiscreteScheduler", **BETAS, "prediction_type": "v_prediction"}
    configs = write_configs(tmp_path / "config", model, scheduler, "StableDiffusionPipeline")
    (configs / "unet" / "config.json").write_text(json.dumps({**model.unet.config, "attention_head_dim": 4}))
    clip_of(configs)
    ours = opened(tensors, tmp_path / "small.safetensors")
    assert ours.unet.config.attention_head_dim == 4
    assert {key: ours.scheduler[key] for key in scheduler} == scheduler
    assert len(ours.tokenizer) == 514
    shutil.move(configs, tmp_path / "elsewhere")
    asked = SingleFileOptions(config=tmp_path / "elsewhere")
    assert open_checkpoint(str(tmp_path / "small.safetensors"), None, asked=asked).unet.config.attention_head_dim == 4
    with pytest.raises(SingleFileError, match="its text encoder has 600 words, and the vocabulary"):
        open_checkpoint(str(tmp_path / "small.safetensors"), None)
    with pytest.raises(CheckpointError, match="are for single files"):
        open_checkpoint("tiny", None, asked=asked)


def test_configs_beside_the_file_may_leave_out_what_is_the_default(tensors, tmp_path):
    """As diffusers and transformers leave it out: four channels, PNDM, and CLIP's words and length."""
    model = networks(1, words=600)
    scheduler = {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": True}
    configs = write_configs(tmp_path / "config", model, scheduler, "StableDiffusionPipeline")
    clip_of(configs)
    (configs / "model_index.json").unlink()
    (configs / "scheduler" / "scheduler_config.json").write_text(json.dumps(BETAS))
    unet, text = (configs / part / "config.json" for part in ("unet", "text_encoder"))
    shorter = {key: value for key, value in json.loads(unet.read_text()).items() if key != "in_channels"}
    unet.write_text(json.dumps(shorter))
    asked = SingleFileOptions(config=configs)
    ours = opened(tensors, tmp_path / "small.safetensors", asked)
    assert (ours.unet.config.in_channels, ours.scheduler["_class_name"]) == (4, "PNDMScheduler")
    shutil.rmtree(configs / "tokenizer")
    clip_of(tmp_path)
    whole = json.loads(text.read_text())
    text.write_text(json.dumps({**whole, "max_position_embeddings": "77"}))
    with pytest.raises(CheckpointError, match="max_position_embeddings is '77', not a whole number"):
        opened(tensors, tmp_path / "small.safetensors", asked)
    text.write_text(json.dumps({key: value for key, value in whole.items() if key != "vocab_size"}))
    with pytest.raises(SingleFileError, match=r"token_embedding.*49408"):
        opened(tensors, tmp_path / "small.safetensors", asked)
    (configs / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": ["epsilon"]}))
    with pytest.raises(CheckpointError, match="prediction_type is"):
        opened(tensors, tmp_path / "small.safetensors", asked)


SPECIAL = {"<|startoftext|>": 0, "<|endoftext|>": 1}


@pytest.mark.parametrize(
    "content",
    [
        {"model": 3},
        {"model": {"vocab": SPECIAL, "merges": [5]}},
        {"model": {"vocab": SPECIAL, "merges": [["a", "b", "c"]]}},
        {"model": {"vocab": ["a"]}, "added_tokens": 5},
    ],
)
def test_a_damaged_tokenizer_is_no_vocabulary(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(SingleFileError, match="holds no vocabulary"):
        find_vocabulary(tmp_path / "file", tmp_path)


def test_places_of_the_vocabulary(vocabulary, tmp_path, monkeypatch):
    file = tmp_path / "models" / "some.safetensors"
    monkeypatch.setattr(clip_vocabulary, "_PACKAGE", "no_such_package")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(VocabularyNotFoundError, match="holds no vocabulary"):
        find_vocabulary(file, None)
    other = tmp_path / "hub" / "models--some--other" / "snapshots" / "a" / "tokenizer"
    clip_of(other.parent)  # another model's: not CLIP's
    assert (other / "merges.txt").is_file()
    with pytest.raises(VocabularyNotFoundError, match="holds no vocabulary"):
        find_vocabulary(file, None)
    cached = tmp_path / "hub" / "models--x--sd" / "snapshots" / "b" / "tokenizer"
    write_tokenizer(cached, vocabulary, 1, 77)
    assert find_vocabulary(file, None) == vocabulary
    clip_of(file.parent)
    assert len(find_vocabulary(file, None).words) == 514
    assert find_vocabulary(file, cached) == vocabulary
    (cached / "added_tokens.json").write_text('{"<cat>": 49408}')
    with pytest.raises(SingleFileError, match="words beyond its vocabulary: <cat>"):
        find_vocabulary(file, cached)
    (cached / "vocab.json").unlink()
    with pytest.raises(SingleFileError, match=r"neither vocab.json and merges.txt nor tokenizer.json"):
        find_vocabulary(file, cached)


def test_a_tokenizer_in_one_file_has_the_same_vocabulary(vocabulary, tmp_path):
    write_tokenizer(tmp_path / "four", vocabulary, 1, 77)
    CLIPTokenizer.from_pretrained(tmp_path / "four").save_pretrained(tmp_path / "one")
    assert not (tmp_path / "one" / "vocab.json").exists()
    assert find_vocabulary(tmp_path / "file", tmp_path / "one") == vocabulary
