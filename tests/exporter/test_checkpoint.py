"""Checkpoints in folders: what is loaded, and what is refused in which words."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from nano_export.errors import CheckpointError, PickleOnlyError, UnsupportedModelError
from nano_export.source import builtin
from nano_export.source.checkpoint import open_checkpoint

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
WEIGHTS = (TEXT, UNET, VAE)
PICKLES = ("text_encoder/pytorch_model.bin", "unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin")
CARD = "---\nlicense: creativeml-openrail-m\n---\n# Stable Diffusion Nano\n"


class Bomb:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def parts():
    return builtin.build("tiny")


@pytest.fixture(scope="module")
def original(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "nano"
    builtin.write_checkpoint(parts, folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "nano"))


def cut(path: Path) -> None:
    """Leave the first half of a file, as a download that broke off does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def without_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors[min(tensors)]
    save_file(tensors, path, metadata={"format": "pt"})


def with_a_tensor_too_long(path: Path) -> None:
    tensors = load_file(path)
    tensors[min(tensors)] = torch.zeros(7)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_folder_like_nanos_repository_is_loaded_from_safetensors_alone(folder, parts, tmp_path):
    mark = tmp_path / "a pickle was read"
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    (folder / "README.md").write_text(CARD)

    checkpoint = open_checkpoint(str(folder), None)

    assert not mark.exists()
    for name in ("text_encoder", "unet", "vae"):
        built, loaded = getattr(parts, name).state_dict(), getattr(checkpoint, name).state_dict()
        assert built.keys() == loaded.keys()
        assert all(torch.equal(built[key], loaded[key]) for key in built)
        assert not getattr(checkpoint, name).training
    assert checkpoint.tokenizer("a watercolor")["input_ids"] == parts.tokenizer("a watercolor")["input_ids"]
    assert {**checkpoint.scheduler, **builtin.SCHEDULER} == checkpoint.scheduler  # with the defaults of its class
    assert (checkpoint.name, checkpoint.source.model, checkpoint.source.revision) == ("nano", "nano", None)
    assert checkpoint.card == CARD
    assert checkpoint.licence.id == "creativeml-openrail-m"


def test_the_mark_above_would_have_been_left(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark")))  # noqa: S301 - our own
    assert (tmp_path / "mark").exists()


def test_half_precision_is_loaded_as_single(folder):
    save_file({key: value.half() for key, value in load_file(folder / UNET).items()}, folder / UNET, {"format": "pt"})
    unet = open_checkpoint(str(folder), None).unet
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.float32}


def test_no_bar_of_a_library_is_shown(folder, parts, capfd):
    shutil.rmtree(folder / "unet")
    parts.unet.save_pretrained(folder / "unet", max_shard_size="500KB")
    assert len([*(folder / "unet").glob("*.safetensors")]) > 1
    capfd.readouterr()
    open_checkpoint(str(folder), None)
    assert capfd.readouterr() == ("", "")
    UNet2DConditionModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False)  # others' bars are left alone
    CLIPTextModel.from_pretrained(folder / "text_encoder")
    bars = capfd.readouterr().err
    assert "Loading checkpoint shards" in bars
    assert "Loading weights" in bars


def test_libraries_say_nothing_of_what_a_checkpoint_calls_its_tensors(folder):
    """Control: by themselves they do, with every control character."""
    name, said = "\x1b]0;evil\x07", []
    for path in (
        folder / "text_encoder" / "model.safetensors",
        folder / "unet" / "diffusion_pytorch_model.safetensors",
    ):
        save_file({**load_file(path), name: torch.zeros(1)}, path, metadata={"format": "pt"})
    for path in (folder / "scheduler" / "scheduler_config.json", folder / "unet" / "config.json"):
        edit(path, **{name: name})
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(library) for library in ("transformers", "diffusers")]
    try:
        for logger in loggers:
            logger.addHandler(handler)
        open_checkpoint(str(folder), None)
        assert said == []
        CLIPTextModel.from_pretrained(folder / "text_encoder")
        UNet2DConditionModel.from_config(json.loads((folder / "unet" / "config.json").read_bytes()))
        assert name in "".join(said)
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def test_a_card_in_another_encoding_is_no_obstacle(folder):
    (folder / "README.md").write_bytes(CARD.encode() + b"caf\xe9")
    assert open_checkpoint(str(folder), None).licence.id == "creativeml-openrail-m"


def test_a_built_in_model_needs_no_files(parts):
    checkpoint = open_checkpoint("tiny", None)
    assert checkpoint.source.model == "tiny"
    assert torch.equal(checkpoint.unet.conv_in.weight, parts.unet.conv_in.weight)
    assert checkpoint.licence.id == "Apache-2.0"


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".safetensors"])
def test_a_name_that_no_system_takes_is_refused(name):
    with pytest.raises(CheckpointError, match=r"it cannot be looked at \(File name too long\)"):
        open_checkpoint(name, None)


def test_what_is_neither_a_folder_nor_a_hub_id_is_named():
    with pytest.raises(CheckpointError, match=r"^no/such/folder is not a usable checkpoint: there is no such folder"):
        open_checkpoint("no/such/folder", None)


@pytest.mark.parametrize(
    ("damage", "error", "named", "why"),
    [
        pytest.param(lambda f: shutil.rmtree(f / "vae"), CheckpointError, "", "vae/", id="no vae"),
        pytest.param(lambda f: shutil.rmtree(f / "tokenizer"), CheckpointError, "", "tokenizer/", id="no tokenizer"),
        *(
            pytest.param(lambda f, name=name: (f / name).unlink(), CheckpointError, name, "missing", id=f"no {name}")
            for name in (
                "scheduler/scheduler_config.json",
                "text_encoder/config.json",
                "tokenizer/merges.txt",
                "tokenizer/vocab.json",
                "unet/config.json",
                "vae/config.json",
            )
        ),
        *(
            pytest.param(
                lambda f, name=name: cut(f / name), CheckpointError, name, "it is not JSON", id=f"half of {name}"
            )
            for name in (
                "model_index.json",
                "scheduler/scheduler_config.json",
                "text_encoder/config.json",
                "tokenizer/special_tokens_map.json",
                "tokenizer/tokenizer_config.json",
                "tokenizer/vocab.json",
                "unet/config.json",
                "vae/config.json",
            )
        ),
        pytest.param(
            lambda f: (f / "vae/config.json").write_text("[]"),
            CheckpointError,
            "vae/config.json",
            "object",
            id="a list",
        ),
        pytest.param(
            lambda f: (f / "tokenizer/merges.txt").write_bytes(b"\xff"),
            CheckpointError,
            "tokenizer",
            "UTF-8",
            id="merges",
        ),
        *(
            pytest.param(lambda f, name=name: cut(f / name), CheckpointError, name, "cut short", id=f"half of {name}")
            for name in WEIGHTS
        ),
        *(
            pytest.param(
                lambda f, name=name: without_a_tensor(f / name),
                CheckpointError,
                name.partition("/")[0],
                "1 of its tensors are missing",
                id=f"a tensor less in {name}",
            )
            for name in WEIGHTS
        ),
        *(
            pytest.param(
                lambda f, name=name: with_a_tensor_too_long(f / name),
                CheckpointError,
                name.partition("/")[0],
                "shape",
                id=f"another shape in {name}",
            )
            for name in WEIGHTS
        ),
        pytest.param(lambda f: (f / UNET).unlink(), CheckpointError, "unet", UNET.partition("/")[2], id="no weights"),
        pytest.param(
            lambda f: (f / UNET).rename(f / "unet/diffusion_pytorch_model.bin"),
            PickleOnlyError,
            "unet",
            ".bin",
            id="only a pickle",
        ),
        pytest.param(
            lambda f: edit(f / "model_index.json", _class_name="StableDiffusionXLPipeline"),
            UnsupportedModelError,
            "",
            "StableDiffusionXLPipeline",
            id="SDXL",
        ),
        pytest.param(
            lambda f: edit(f / "unet/config.json", addition_embed_type="text_time"),
            UnsupportedModelError,
            "unet",
            "addition_embed_type='text_time'",
            id="SDXL's UNet",
        ),
        pytest.param(
            lambda f: edit(f / "vae/config.json", block_out_channels=[32]),
            CheckpointError,
            "vae",
            "its config.json is that of no AutoencoderKL",
            id="levels that are not there",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(damage, error, named, why, folder):
    damage(folder)
    with pytest.raises(error) as caught:
        open_checkpoint(str(folder), None)
    assert type(caught.value) is error
    assert caught.value.exit_code == 2
    assert caught.value.what.startswith(f"{folder / named} ")
    assert why in caught.value.what
    assert "\n" not in caught.value.what
