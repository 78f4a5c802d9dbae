"""Weights in folders: which files are taken (diffusers' own choice), and what is refused in which words."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from nano_export.errors import CheckpointError, PickleOnlyError, UnsupportedModelError
from nano_export.source import builtin
from nano_export.source.checkpoint import open_checkpoint
from nano_export.source.folder import open_folder
from nano_export.source.layout import choose_weights
from nano_export.source.network_loading import load_network

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
HALF = (TEXT, UNET, VAE)
CONFIGS = ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> StableDiffusionPipeline:
    """A model in diffusers' own hands, which writes it in every form."""
    folder = tmp_path_factory.mktemp("original") / "nano"
    builtin.write_checkpoint(builtin.build("tiny"), folder)
    return StableDiffusionPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def plain(pipeline, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "nano"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(plain, tmp_path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "nano"))


def half(path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def renamed(path: Path, variant: str) -> Path:
    return path.rename(path.with_suffix(f".{variant}.safetensors"))


def marked(path: Path, value: float) -> None:
    """Write one number into a file, by which it is recognised."""
    tensors = load_file(path)
    tensors[mark_of(path)].view(-1)[0] = value
    save_file(tensors, path, {"format": "pt"})


def mark_of(path: Path) -> str:
    return "conv_in.bias" if path.parent.name == "unet" else "decoder.conv_in.bias"


def loaded(folder: Path, component: str, variant: str | None = None):
    """One network as an export loads it; the others cost time."""
    found = open_folder(folder, variant)
    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}[component]
    return load_network(kind, component, found.configs[component], found.weights[component])


def read_mark(folder: Path, variant: str | None = None) -> float:
    return loaded(folder, "unet", variant).conv_in.bias[0].item()


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
def test_a_folder_that_diffusers_wrote_as_fp16_holds_what_diffusers_reads(sharded, pipeline, tmp_path):
    halves = {name: part.half() for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    try:
        pipeline.save_pretrained(tmp_path, variant="fp16", **({"max_shard_size": "200KB"} if sharded else {}))
    finally:
        for part in halves.values():
            part.float()
    assert (len(list(tmp_path.glob("unet/*.safetensors"))) > 1) is sharded
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path, variant="fp16", torch_dtype=torch.float32)
    ours = open_checkpoint(str(tmp_path), None)
    for name in ("text_encoder", "unet", "vae"):
        expected, found = getattr(theirs, name).state_dict(), getattr(ours, name).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
        assert next(iter(found.values())).dtype == torch.float32


def sharded(folder: Path, index: str = "diffusion_pytorch_model.safetensors.index.json") -> Path:
    """Put a UNet's weights into two shards; return the index."""
    tensors = load_file(folder / UNET)
    (folder / UNET).unlink()
    names = sorted(tensors)
    table: dict[str, str] = {}
    for number, part in enumerate((names[:40], names[40:]), 1):
        file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / "unet" / file, {"format": "pt"})
        table |= dict.fromkeys(part, file)
    path = folder / "unet" / index
    path.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return path


def theirs(folder: Path, variant: str | None = None) -> float:
    """The number that diffusers' own loading finds."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", variant=variant, low_cpu_mem_usage=False)
    return unet.conv_in.bias[0].item()


def both_variants(folder: Path) -> None:
    shutil.copy(folder / UNET, folder / "unet/diffusion_pytorch_model.non_ema.safetensors")
    marked(folder / UNET, 7.0)


def shards_beside_one_file(folder: Path) -> None:
    whole = shutil.copy(folder / UNET, folder / "copy")
    sharded(folder)
    shutil.move(whole, folder / UNET)
    marked(folder / UNET, 7.0)


@pytest.mark.parametrize(
    ("arrange", "variant"),
    [
        pytest.param(both_variants, None, id="plain beside non_ema"),
        pytest.param(both_variants, "non_ema", id="non_ema asked for"),
        pytest.param(shards_beside_one_file, None, id="shards beside one file"),
    ],
)
def test_of_several_copies_diffusers_is_taken(arrange, variant, folder):
    arrange(folder)
    assert read_mark(folder, variant) == theirs(folder, variant)


@pytest.mark.parametrize("missing", ["index", "shard"])
def test_leftover_shards_do_not_hide_the_whole_file(missing, folder):
    shards_beside_one_file(folder)
    next((folder / "unet").glob("*index.json" if missing == "index" else "*00002-of*")).unlink()
    assert read_mark(folder) == 7.0


@pytest.mark.parametrize(
    "index",
    [
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.safetensors.fp16.index.json",
        "diffusion_pytorch_model.fp16.safetensors.index.json",
    ],
)
def test_every_name_of_a_variants_index_is_known(index, folder):
    sharded(folder, index)
    for path in (folder / "unet").glob("*.safetensors"):
        path.rename(path.with_suffix(".fp16.safetensors"))
    text = (folder / "unet" / index).read_text().replace(".safetensors", ".fp16.safetensors")
    (folder / "unet" / index).write_text(text)
    found = open_folder(folder, None).weights["unet"]
    assert (len(found.files), found.variant) == (2, "fp16")


def test_the_most_precise_variant_is_found_and_one_of_two_unknown_ones_is_asked_for():
    stem = "diffusion_pytorch_model"
    names = [f"{stem}.{variant}.safetensors" for variant in ("non_ema", "fp16", "bf16")]
    choice = choose_weights("unet", names, None)
    assert choice is not None
    assert choice.names == (f"{stem}.fp16.safetensors",)
    assert choose_weights("unet", [names[0], f"{stem}.mine.safetensors"], None) is None


def whole_numbers(path: Path) -> None:
    tensors = load_file(path)
    tensors["conv_in.bias"] = tensors["conv_in.bias"].to(torch.int8)
    tensors["conv_in.bias.absmax"] = torch.zeros(1)
    save_file(tensors, path, {"format": "pt"})


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def replaced(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../../blobs/0123")


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def bad_index(target: str) -> Callable[[Path], None]:
    def arrange(folder: Path) -> None:
        index = sharded(folder)
        content = json.loads(index.read_text())
        content["weight_map"]["conv_in.bias"] = target
        index.write_text(json.dumps(content))

    return arrange


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3438167536\n"
EVERY_FILE = (*HALF, *CONFIGS, "tokenizer/vocab.json", "tokenizer/merges.txt", "text_encoder/config.json")


@pytest.fixture(scope="module")
def slow_tokenizer(tmp_path_factory) -> Path:
    """The same checkpoint with vocab.json and merges.txt."""
    folder = tmp_path_factory.mktemp("slow") / "nano"
    builtin.write_checkpoint(builtin.build("tiny"), folder)
    return folder


@pytest.fixture
def copy(slow_tokenizer, tmp_path) -> Path:
    return Path(shutil.copytree(slow_tokenizer, tmp_path / "nano"))


@pytest.mark.parametrize("name", EVERY_FILE)
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (as_link, "it is a link to ../../../blobs/0123, which is not there"),
        (as_folder, "it is a folder where a file is expected"),
        (lambda path: replaced(path, POINTER), "it is a Git LFS pointer"),
    ],
    ids=["link", "folder", "pointer"],
)
def test_a_file_that_cannot_be_read_is_named(damage, why, name, copy):
    damage(copy / name)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(copy), None)
    assert caught.value.what.startswith(f"{copy / name} is not a usable checkpoint: {why}")


def test_a_file_that_may_not_be_read_is_named(copy):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (copy / UNET).chmod(0)
    with pytest.raises(CheckpointError, match=r"it cannot be read \(Permission denied\)"):
        open_folder(copy, None)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"[1]", "it is not a JSON object"),
        (b"\xff\xfe{\x00}\x00", "it is not UTF-8 text"),
        (b"[" * 100_000, "it is not"),
    ],
    ids=["empty", "list", "UTF-16", "deep"],
)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_is_none_is_named(content, why, name, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder, None)
    assert caught.value.what.startswith(f"{folder / name} is not a usable checkpoint: {why}")


def test_a_byte_order_mark_is_skipped(folder):
    for name in CONFIGS:
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert loaded(folder, "unet").config.in_channels == 4


@pytest.mark.parametrize(
    ("damage", "error", "named", "why"),
    [
        pytest.param(lambda f: whole_numbers(f / UNET), CheckpointError, UNET, "quantized", id="int8"),
        pytest.param(
            lambda f: edit(f / "unet/config.json", quantization_config={"quant_method": "bitsandbytes"}),
            CheckpointError,
            "unet/config.json",
            "quantization_config",
            id="bitsandbytes",
        ),
        pytest.param(
            bad_index("missing.safetensors"), CheckpointError, "unet/missing.safetensors", "missing", id="gone"
        ),
        pytest.param(
            bad_index("../vae/diffusion_pytorch_model.safetensors"),
            CheckpointError,
            "unet/diffusion_pytorch_model.safetensors.index.json",
            "beside it",
            id="outside",
        ),
        pytest.param(
            bad_index("weights.bin"),
            CheckpointError,
            "unet/diffusion_pytorch_model.safetensors.index.json",
            "'weights.bin'",
            id="pickle",
        ),
        pytest.param(
            lambda f: (f / UNET).rename(f / "unet/diffusion_pytorch_model.fp16.bin"),
            PickleOnlyError,
            "unet",
            "pickles",
            id="fp16 pickle",
        ),
        pytest.param(
            lambda f: (f / UNET).rename(f / "unet/model.safetensors"),
            CheckpointError,
            "unet",
            "there is model.safetensors",
            id="another name",
        ),
        pytest.param(lambda f: renamed(f / UNET, "ema"), CheckpointError, "unet", "only of ema", id="another variant"),
        pytest.param(lambda f: None, CheckpointError, "", "none of its networks", id="no variant"),  # noqa: ARG005
    ],
)
def test_weights_that_cannot_be_taken_are_named(damage, error, named, why, folder):
    damage(folder)
    variant = "fp16" if "variant" in why or why in {"only of ema", "none of its networks"} else None
    with pytest.raises(error) as caught:
        open_folder(folder, variant)
    assert caught.value.what.startswith(f"{folder / named} ")
    assert why in caught.value.what


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_named_with_its_tensor_and_file(value, folder):
    marked(folder / VAE, value)
    with pytest.raises(CheckpointError) as caught:
        loaded(folder, "vae")
    assert caught.value.what.startswith(f"{folder / VAE} ")
    assert "1 of the 64 numbers of its tensor 'decoder.conv_in.bias' are not finite" in caught.value.what


def test_numbers_whose_sum_overflows_are_finite(folder):
    tensors = load_file(folder / VAE)
    tensors["decoder.conv_in.bias"][:] = 3e38
    save_file(tensors, folder / VAE, {"format": "pt"})
    assert loaded(folder, "vae").decoder.conv_in.bias.max() == 3e38


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_floats_are_loaded_as_diffusers_does(dtype, folder):
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / VAE).items()}
    save_file(tensors, folder / VAE, {"format": "pt"})
    expected = AutoencoderKL.from_pretrained(folder / "vae", low_cpu_mem_usage=False, torch_dtype=torch.float32)
    found = loaded(folder, "vae").state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.state_dict().items())


def test_old_buffers_and_tensors_that_no_network_has_are_left_out(folder):
    tensors = load_file(folder / TEXT)
    more = {
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "logit_scale": torch.ones(1),
        "num_updates": torch.tensor(9),
    }
    save_file(tensors | more, folder / TEXT, {"format": "pt"})
    assert loaded(folder, "text_encoder").config.max_position_embeddings == 77


def test_a_name_that_no_terminal_shows_is_written_plainly(folder):
    odd = folder.rename(folder.with_name("my\nmodel\x1b[31m"))
    assert open_checkpoint(str(odd), None).name == "my_model_[31m"


@pytest.mark.parametrize(
    ("edits", "why"),
    [
        ({"vocab_size": 1000}, "embeddings for 1000 tokens only"),
        ({"max_position_embeddings": 2}, "no room for a prompt"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(edits, why, copy):
    tensors = load_file(copy / TEXT)
    for name in tensors:
        if "token_embedding" in name:
            tensors[name] = tensors[name][: edits.get("vocab_size")].clone()
        if "position_embedding" in name:
            tensors[name] = tensors[name][: edits.get("max_position_embeddings")].clone()
    save_file(tensors, copy / TEXT, {"format": "pt"})
    edit(copy / "text_encoder/config.json", **edits)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(copy), None)
    assert caught.value.what.startswith(f"{copy / 'tokenizer'} ")
    assert why in caught.value.what


@pytest.mark.parametrize("side", ["padding_side", "truncation_side"])
def test_a_tokenizer_that_pads_or_cuts_at_the_beginning_is_refused(side, copy):
    edit(copy / "tokenizer/tokenizer_config.json", **{side: "left"})
    with pytest.raises(UnsupportedModelError, match=f"{side}='left'"):
        open_checkpoint(str(copy), None)


def test_a_tokenizers_own_padding_at_the_beginning_is_refused(copy):
    """In tokenizer.json, where transformers takes its side from; a limit of length there counts for nobody."""
    CLIPTokenizer.from_pretrained(copy / "tokenizer").save_pretrained(copy / "tokenizer")
    fill = {"strategy": {"Fixed": 9}, "pad_to_multiple_of": None, "pad_id": 3, "pad_type_id": 0, "pad_token": "!"}
    cut = {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0}
    edit(copy / "tokenizer/tokenizer.json", truncation=cut, padding={"direction": "Right", **fill})
    tokenizer = open_checkpoint(str(copy), None).tokenizer
    assert len(tokenizer("a cat " * 20, padding="max_length", truncation=True).input_ids) == 77
    edit(copy / "tokenizer/tokenizer.json", padding={"direction": "Left", **fill})
    with pytest.raises(UnsupportedModelError, match="padding_side='left'"):
        open_checkpoint(str(copy), None)


@pytest.mark.parametrize(("asked", "length"), [(None, 77), (10**30, 77), (40, 40)])
def test_prompts_are_as_long_as_tokenizer_and_text_encoder_allow(asked, length, copy):
    config = json.loads((copy / "tokenizer/tokenizer_config.json").read_text())
    del config["model_max_length"]
    more = {} if asked is None else {"model_max_length": asked}
    (copy / "tokenizer/tokenizer_config.json").write_text(json.dumps(config | more))
    assert open_checkpoint(str(copy), None).tokenizer.model_max_length == length
