"""Folders as people have them: other pipeline classes, what training leaves, and what is refused in which words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest

from nano_export.errors import CheckpointError, UnsupportedModelError
from nano_export.source import builtin
from nano_export.source.folder import open_folder
from nano_export.source.pipelines import task_of
from nano_runtime.errors import UsageError


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "nano"
    builtin.write_checkpoint(builtin.build("tiny"), folder)
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run" / "nano"))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("pipeline", "channels", "task"),
    [
        ("StableDiffusionPipeline", 4, "text-to-image"),
        ("StableDiffusionImg2ImgPipeline", 4, "text-to-image"),
        ("StableDiffusionInpaintPipeline", 4, "text-to-image"),
        ("StableDiffusionInpaintPipelineLegacy", 4, "text-to-image"),
        ("LatentConsistencyModelPipeline", 4, "text-to-image"),
        ("LatentConsistencyModelImg2ImgPipeline", 4, "text-to-image"),
        ("StableDiffusionInpaintPipeline", 9, "inpainting"),
        ("StableDiffusionPipeline", 9, "inpainting"),
        ("StableDiffusionInstructPix2PixPipeline", 8, "instruct-pix2pix"),
        (None, 4, "text-to-image"),
        (None, 9, "inpainting"),
    ],
)
def test_the_channels_tell_what_a_pipeline_draws(pipeline, channels, task, folder):
    if pipeline is None:
        (folder / "model_index.json").unlink()
    else:
        assert hasattr(diffusers, pipeline)
        edit(folder / "model_index.json", _class_name=pipeline)
    edit(folder / "unet/config.json", in_channels=channels)
    assert task_of(folder) == task


@pytest.mark.parametrize(
    ("index", "channels", "why"),
    [
        ({"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "X"]}, 4, "XLPipeline\n"),
        ({"_class_name": "StableDiffusionSAGPipeline"}, 4, "write that class into model_index.json"),
        ({"_class_name": ["pipeline", "Mine"]}, 4, r"the pipeline class \['pipeline', 'Mine'\]"),
        ({"_class_name": None}, 4, "the pipeline class None"),
        ({"vae": ["diffusers", "FlaxAutoencoderKL"]}, 4, "vae of the class FlaxAutoencoderKL"),
        ({"text_encoder": [None, None]}, 4, r"no text_encoder in model_index\.json"),
        ({"controlnet": ["diffusers", "ControlNetModel"]}, 4, "controlnet of the class ControlNetModel"),
        ({}, 5, "in_channels=5, as depth-to-image has"),
        ({}, 3, "in_channels=3, with the pipeline class StableDiffusionPipeline"),
        ({"_class_name": "StableDiffusionInstructPix2PixPipeline"}, 4, "in_channels=4, with"),
    ],
)
def test_other_pipelines_are_refused_in_words(index, channels, why, folder):
    edit(folder / "model_index.json", **index)
    edit(folder / "unet/config.json", in_channels=channels)
    with pytest.raises(UnsupportedModelError, match=why):
        task_of(folder)


@pytest.mark.parametrize("channels", ["4", -4, None, True, 4.5])
def test_channels_that_are_no_number_are_refused(channels, folder):
    edit(folder / "unet/config.json", in_channels=channels)
    with pytest.raises(CheckpointError, match=r"config\.json .* in_channels is "):
        task_of(folder)


def keep(folder: Path, *names: str) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def trained(folder: Path) -> None:
    """Make a training's checkpoint inside the folder of a finished model."""
    for path in [*folder.iterdir()]:
        shutil.move(path, folder.parent / path.name)
    shutil.move(folder.parent / "unet", folder / "unet_ema")


def only(name: str) -> Callable[[Path], None]:
    def arrange(folder: Path) -> None:
        keep(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")

    return arrange


CASES: list[Any] = [
    pytest.param(
        lambda f: keep(f, "unet"), "it lacks text_encoder/, vae/, tokenizer/, scheduler/; copy", id="unet alone"
    ),
    pytest.param(lambda f: shutil.rmtree(f / "scheduler"), "the folder scheduler/ is missing", id="no scheduler"),
    pytest.param(trained, r"it lacks .*rename it to unet/.*copy \.\./text_encoder/", id="checkpoint-500"),
    pytest.param(only("config.json"), "it is one network alone", id="a network"),
    pytest.param(only("pytorch_lora_weights.safetensors"), "with --lora", id="LoRA"),
    pytest.param(only("learned_embeds.safetensors"), "with --embedding", id="embedding"),
    pytest.param(only("dreamshaper_8.safetensors"), "dreamshaper_8.safetensors: give that file", id="single file"),
    pytest.param(only("checkpoint-500/optimizer.bin"), "only a training's checkpoints", id="training"),
    pytest.param(only("model/model_index.json"), "give the folder model/ in it", id="folder above"),
    pytest.param(
        only("notes.txt"), r"model_index\.json is not a usable checkpoint: it is missing", id="another folder"
    ),
]


@pytest.mark.parametrize(("arrange", "why"), CASES)
def test_a_folder_that_is_no_whole_model_is_described(arrange, why, folder):
    arrange(folder)
    (folder / "model_index.json").unlink(missing_ok=True)
    with pytest.raises(UsageError, match=why) as caught:
        open_folder(folder, None)
    assert caught.value.what.startswith(str(folder))
    assert "\n" not in caught.value.what
