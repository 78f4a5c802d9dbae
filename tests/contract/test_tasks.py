"""Checkpoints whose UNet sees a picture, from the exporter to the engines, against diffusers' own pipelines.

Inpainting checkpoints have UNets with 9 channels, instruct-pix2pix has 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw

from nano_export import exporting
from nano_export.judge.pictures import calls_for, pictures_for
from nano_export.source import builtin
from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Default
from nano_runtime.cli import bundle as bundle_command
from nano_runtime.cli import generate
from nano_runtime.engines import BACKENDS, EngineOptions
from nano_runtime.engines.base import Batch, Runner
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.pipeline import Pipeline

SIZE = 64
UNET: dict[str, Any] = {
    "sample_size": SIZE // 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
CHANNELS = {"inpainting": 9, "instruct-pix2pix": 8}
PIPELINES = {"inpainting": StableDiffusionInpaintPipeline, "instruct-pix2pix": StableDiffusionInstructPix2PixPipeline}
SCHEDULERS = {
    "pndm": "PNDMScheduler",
    "ddim": "DDIMScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
}
PROMPT, NEGATIVE, SEED, STEPS = "A watercolor painting of an otter", "blurry", 7, 5
TOLERANCE = 1e-4  # of the largest latent, or of white; as in test_edits
MISTAKE = 20 * TOLERANCE


@pytest.fixture(scope="module")
def parts() -> dict[str, builtin.Parts]:
    """``tiny`` with other and smaller UNets."""
    made = {}
    for task, channels in CHANNELS.items():
        tiny = builtin.build("tiny")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(channels)
            unet = UNet2DConditionModel(
                **UNET, in_channels=channels, cross_attention_dim=tiny.unet.config.cross_attention_dim
            )
        made[task] = replace(tiny, unet=unet)
    return made


@pytest.fixture(scope="module")
def bundles(parts, tmp_path_factory, exported) -> dict[str, Path]:
    """Those checkpoints, exported for both engines; the sampler is not measured, which takes most of the time."""
    few = Default(scheduler="ddim", steps=STEPS, fidelity={})
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "JUDGE_STEPS", 2)
        patch.setattr(exporting, "choose_default", lambda *_: iter([(1.0, few)]))
        patch.setattr(exporting, "choose_presets", lambda *_: iter([(1.0, {})]))
        for task, of in parts.items():
            checkpoint = tmp_path_factory.mktemp("checkpoint") / task
            builtin.write_checkpoint(of, checkpoint)
            made[task] = exported(task, str(checkpoint), "--size", str(SIZE))
    return made


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A picture with everything between smooth and sharp."""
    across, down = np.meshgrid(np.linspace(0, 1, SIZE), np.linspace(0, 1, SIZE))
    image = Image.fromarray(np.uint8(255 * np.stack([across, down, (across * down) ** 2], axis=2)))
    ImageDraw.Draw(image).ellipse((15, 20, 45, 50), fill="red", outline="white", width=3)
    return image


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    """White to the border, and to edges that no latent has; gray on both sides of the middle."""
    image = Image.new("L", (SIZE, SIZE), 127)
    draw = ImageDraw.Draw(image)
    draw.rectangle((37, 0, SIZE, 29), fill=128)
    draw.ellipse((3, 30, 33, 61), fill=255)
    return image


@pytest.fixture(scope="module")
def theirs(parts, picture, mask) -> Callable[..., np.ndarray]:
    """What diffusers draws."""
    originals = {}
    for task, of in parts.items():
        modules = {name: getattr(of, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
        scheduler = diffusers.PNDMScheduler.from_config(of.scheduler)
        none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        originals[task] = PIPELINES[task](**modules, **none, scheduler=scheduler)
        originals[task].set_progress_bar_config(disable=True)

    def draw(task: str, scheduler: str, output: str = "latent", **changes: Any) -> np.ndarray:
        original = originals[task]
        original.scheduler = getattr(diffusers, SCHEDULERS[scheduler]).from_config(parts[task].scheduler)
        seed = changes.pop("seed", SEED)
        sized = {"mask_image": mask, "height": SIZE, "width": SIZE} if task == "inpainting" else {}
        asked = {"num_inference_steps": STEPS, "guidance_scale": 7.5, "negative_prompt": NEGATIVE, "image": picture}
        generator = torch.Generator("cpu").manual_seed(seed)
        drawn = original(PROMPT, generator=generator, output_type=output, **{**asked, **sized, **changes}).images
        return drawn if output == "np" else drawn.numpy()

    return draw


@pytest.fixture(scope="module")
def pipes(bundles, compiled) -> Iterator[dict[tuple[str, str], Pipeline]]:
    opened: dict[tuple[str, str], Pipeline] = {
        (task, backend): Pipeline.from_pretrained(bundles[task], backend, keep_prompts=False, cache=compiled)
        for task in bundles
        for backend in BACKENDS
    }
    yield opened
    for pipe in opened.values():
        pipe.close()


@pytest.fixture(scope="module")
def ours(pipes, picture, mask) -> Callable[..., np.ndarray]:
    def draw(
        task: str, scheduler: str, output: str = "latent", backend: str = "onnxruntime", **changes: Any
    ) -> np.ndarray:
        asked = {"num_inference_steps": STEPS, "guidance_scale": 7.5, "negative_prompt": NEGATIVE, "image": picture}
        asked |= {"seed": SEED, "scheduler": scheduler, "output_type": output}
        masked = {"mask_image": mask} if task == "inpainting" else {}
        return np.asarray(pipes[task, backend](PROMPT, **{**asked, **masked, **changes}).images)

    return draw


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


CASES = [
    *(("inpainting", scheduler, {}) for scheduler in ("pndm", "euler_a")),
    *(("inpainting", scheduler, {"strength": 0.6}) for scheduler in ("ddim", "euler_a", "heun", "dpmpp_2m")),
    ("inpainting", "ddim", {"guidance_scale": 1.0}),
    *(("instruct-pix2pix", scheduler, {}) for scheduler in ("pndm", "euler_a", "dpmpp_2m")),
    ("instruct-pix2pix", "ddim", {"image_guidance_scale": 1.0, "guidance_scale": 3.0}),
    ("instruct-pix2pix", "ddim", {"guidance_scale": 1.0}),
    ("instruct-pix2pix", "ddim", {"image_guidance_scale": 0.9}),
]


@pytest.mark.parametrize(("task", "scheduler", "changes"), CASES, ids=str)
def test_pictures_are_those_of_diffusers(ours, theirs, task, scheduler, changes):
    assert distance(ours(task, scheduler, **changes), theirs(task, scheduler, **changes)) < TOLERANCE


@pytest.mark.parametrize(("task", "changes"), [("inpainting", {"strength": 0.6}), ("instruct-pix2pix", {})])
def test_the_other_engine_draws_the_same_and_so_are_the_pixels(ours, theirs, task, changes):
    expected = theirs(task, "euler_a", **changes)
    assert distance(ours(task, "euler_a", backend="openvino", **changes), expected) < TOLERANCE
    assert distance(ours(task, "ddim", "np"), theirs(task, "ddim", "np")) < TOLERANCE


@pytest.mark.parametrize("task", CHANNELS)
def test_pictures_drawn_together_are_diffusers_at_each_seed(ours, theirs, task):
    together = ours(task, "euler_a", num_images_per_prompt=3)
    expected = [theirs(task, "euler_a", seed=SEED + index) for index in range(3)]
    for picture, one in zip(together, expected, strict=True):
        assert distance(picture[np.newaxis], one) < TOLERANCE
    assert distance(together[:1], expected[1]) > MISTAKE


LISTS = {
    "negative_prompt": ["", NEGATIVE, "text"],
    "num_inference_steps": STEPS,
    "guidance_scale": 7.5,
    "output_type": "latent",
}


@pytest.mark.parametrize("task", CHANNELS)
def test_lists_are_diffusers_with_a_list_of_generators(pipes, parts, picture, mask, task):
    seeds, prompts = [7, 3, 12345], [PROMPT, "a red fox", "snow"]
    given: dict[str, Any] = {"image": picture}
    given |= {"mask_image": mask, "strength": 0.6} if task == "inpainting" else {}
    modules = {name: getattr(parts[task], name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(parts[task].scheduler)
    original = PIPELINES[task](**modules, **none, scheduler=scheduler)
    original.set_progress_bar_config(disable=True)
    expected = original(
        prompts,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        **LISTS,
        **{name: one if name == "strength" else [one] * 3 for name, one in given.items()},
        **({"height": SIZE, "width": SIZE} if task == "inpainting" else {}),
    ).images.numpy()
    drawn = pipes[task, "onnxruntime"](prompts, seed=seeds, scheduler="euler_a", **LISTS, **given).images
    assert distance(np.asarray(drawn), expected) < TOLERANCE


class Swapped:
    """Runs graphs as always, but for a mistake in the order of the channels behind the latents."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        if component == "unet":
            sample = feeds["sample"]
            feeds = {**feeds, "sample": np.concatenate([sample[:, :4], np.roll(sample[:, 4:], 1, axis=1)], axis=1)}
        return self.runner.run(component, feeds, batch=batch)


def test_other_pictures_masks_and_channels_are_far_away(ours, theirs, bundles, picture, mask):
    """Negative controls: what the tests above compare depends on each of them."""
    turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    inpainted, instructed = theirs("inpainting", "ddim"), theirs("instruct-pix2pix", "ddim")
    assert distance(ours("inpainting", "ddim", image=turned), inpainted) > MISTAKE
    assert distance(ours("inpainting", "ddim", mask_image=mask.point(lambda value: 255 - value)), inpainted) > MISTAKE
    assert distance(ours("instruct-pix2pix", "ddim", image=turned), instructed) > MISTAKE
    assert distance(ours("instruct-pix2pix", "ddim", image_guidance_scale=2.0), instructed) > MISTAKE

    asked = {"image": picture, "seed": SEED, "scheduler": "ddim", "num_inference_steps": STEPS, "guidance_scale": 7.5}
    asked |= {"negative_prompt": NEGATIVE, "output_type": "latent"}
    for task, masked, expected in (
        ("inpainting", {"mask_image": mask}, inpainted),
        ("instruct-pix2pix", {}, instructed),
    ):
        for around, least, most in ((Swapped, MISTAKE, 1e6), (None, 0, TOLERANCE)):
            graphs = LoadedGraphs(Bundle.open(bundles[task]), "onnxruntime", EngineOptions(threads=1, precision="f32"))
            drawn = Pipeline(graphs, keep_loaded=False, around=around)(PROMPT, **{**asked, **masked}).images
            assert least < distance(np.asarray(drawn), expected) < most


@pytest.mark.parametrize("task", CHANNELS)
def test_exports_say_what_they_are_for_and_were_judged_with_pictures(bundles, task):
    manifest = Bundle.open(bundles[task]).manifest
    assert manifest.task == task
    assert manifest.latent_shape == (4, SIZE // 8, SIZE // 8)
    assert min(manifest.fidelity[f"{backend}.image_psnr_db"] for backend in BACKENDS) > 70
    assert "--image picture.png" in (bundles[task] / "README.md").read_text()


def test_the_exporters_pictures_are_the_same_in_every_export_and_differ_by_prompt():
    one, again, other = (pictures_for("inpainting", SIZE, prompt) for prompt in ("a fox", "a fox", "an owl"))
    assert one["image"].tobytes() == again["image"].tobytes() != other["image"].tobytes()
    assert 0.05 < np.asarray(one["mask_image"]).mean() / 255 < 0.8
    assert pictures_for("text-to-image", SIZE, "a fox") == {}
    assert [tuple(call.prompt) for call in calls_for("abcd", "instruct-pix2pix", SIZE)] == [("a", "b", "c"), ("d",)]
    assert [tuple(call.prompt) for call in calls_for("abcd", "text-to-image", SIZE)] == [tuple("abcd")]


@pytest.fixture
def place(tmp_path, picture, mask, monkeypatch) -> Path:
    """An empty folder but for the picture and its mask."""
    monkeypatch.chdir(tmp_path)
    picture.save("photo.png")
    mask.save("mask.png")
    return tmp_path


@pytest.mark.parametrize("task", CHANNELS)
def test_commands_draw_and_refuse(bundles, task, place, capsys):
    pictures = ["--image", "photo.png", *(["--mask", "mask.png"] if task == "inpainting" else [])]
    on = ["--bundle", str(bundles[task]), "--steps", "2", "--no-cache"]
    assert generate.main(["a fox", *on, *pictures, "--seed", "3", "-n", "2"]) == 0
    with Image.open(place / "nano-3.png") as drawn:
        assert drawn.size == (SIZE, SIZE)
    assert generate.main(["a fox", *on]) == 2
    assert f"the bundle is for {task}, and there is no --image" in capsys.readouterr().err
    assert bundle_command.main(["info", str(bundles[task])]) == 0
    assert task in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("task", CHANNELS)
def test_int8_exports_measure_all_they_do_with_pictures_and_try_deeply(parts, tmp_path, exported, task):
    checkpoint = tmp_path / task
    builtin.write_checkpoint(parts[task], checkpoint)
    folder = exported(f"{task}-int8", str(checkpoint), "--size", str(SIZE), "--int8")
    manifest = Bundle.open(folder).manifest
    assert manifest.fidelity["onnxruntime.image_psnr_db"] > 20
    assert set(manifest.presets) == {"balanced", "fast"}
    assert manifest.default is not None
    assert bundle_command.main(["verify", "--deep", str(folder)]) == 0
