"""Lists of prompts, negative prompts and seeds against diffusers' one call with a list of generators."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from PIL import Image
from tests.results import arrays

from nano_export.judge.original import diffusers_pipeline
from nano_export.source import builtin

PROMPTS, NEGATIVES = ["an otter", "a red fox in snow", "a city at night"], ["blurry", "", "text"]
SEEDS = [7, 2**64 - 1, 12345678901]
# Ours, diffusers' class, and what its pipeline has to be told.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "pndm": ("PNDMScheduler", {}),
    "ddim_a": ("DDIMScheduler", {"eta": 1.0}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "tcd": ("TCDScheduler", {"eta": 0.3}),
    "lcm": ("LCMScheduler", {}),
}
TOLERANCE = 1e-4  # of the largest latent: engines sum in another order than torch
MISTAKE = 20 * TOLERANCE


@pytest.fixture(scope="module")
def originals() -> dict[str, Any]:
    plain = diffusers_pipeline(builtin.build("tiny"))
    parts = plain.components
    made = {
        "text": plain,
        "image": StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False),
        "mask": StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False),
    }
    for original in made.values():
        original.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 1, 128), np.linspace(0, 1, 128))
    return Image.fromarray(np.uint8(255 * np.stack([across, down, (across * down) ** 2], axis=2)))


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    image = Image.new("L", (128, 128))
    image.paste(255, (40, 0, 128, 70))
    return image


@pytest.fixture(scope="module")
def theirs(originals, picture, mask):
    """All pictures of one call; ``listed`` gives image and mask once for each picture."""
    config = dict(originals["text"].scheduler.config)

    def draw(task: str, sampler: str, *, listed: bool = True, prompts: Any = PROMPTS, count: int = 1) -> np.ndarray:
        kind, told = SAMPLERS[sampler]
        original = originals[task]
        original.scheduler = getattr(diffusers, kind).from_config(config)
        many = len(PROMPTS) if listed else 1
        given: dict[str, Any] = {} if task == "text" else {"image": [picture] * many, "strength": 0.6}
        if task == "mask":
            given |= {"mask_image": [mask] * many, "height": 128, "width": 128}
        drawn = original(
            prompts,
            negative_prompt=NEGATIVES if isinstance(prompts, list) else "blurry",
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
            num_images_per_prompt=count,
            num_inference_steps=5,
            guidance_scale=7.5,
            output_type="latent",
            **given,
            **told,
        ).images
        return drawn.numpy()

    return draw


@pytest.fixture(scope="module")
def ours(pipe, picture, mask):
    def draw(task: str, sampler: str, prompts: Any = PROMPTS, **changes: Any) -> np.ndarray:
        given: dict[str, Any] = {} if task == "text" else {"image": picture, "strength": 0.6}
        given |= {"mask_image": mask} if task == "mask" else {}
        asked = {"negative_prompt": NEGATIVES, "seed": SEEDS, "num_inference_steps": 5, "guidance_scale": 7.5}
        return arrays(pipe(prompts, scheduler=sampler, output_type="latent", **{**asked, **given, **changes}))

    return draw


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("task", ["text", "image", "mask"])
def test_lists_draw_what_diffusers_draws_with_a_list_of_generators(ours, theirs, task, sampler):
    drawn, expected = ours(task, sampler), theirs(task, sampler)
    assert distance(drawn, expected) < TOLERANCE
    alone = ours(task, sampler, PROMPTS[1], negative_prompt=NEGATIVES[1], seed=SEEDS[1])
    assert distance(drawn[1:2], alone) < TOLERANCE
    assert distance(drawn[1:2], expected[:1]) > MISTAKE


@pytest.mark.parametrize("task", ["text", "image"])
def test_several_pictures_of_one_prompt_are_those_of_a_list_of_generators(ours, theirs, task):
    expected = theirs(task, "euler_a", prompts="an otter", count=3, listed=False)
    drawn = ours(task, "euler_a", "an otter", negative_prompt="blurry", num_images_per_prompt=3)
    assert distance(drawn, expected) < TOLERANCE


def test_the_exception_is_one_masked_image_for_several_pictures(ours, theirs):
    """diffusers then samples the image's latents from the first generator alone; ours are those drawn one by one."""
    drawn, expected = ours("mask", "euler_a"), theirs("mask", "euler_a", listed=False)
    assert distance(drawn[:1], expected[:1]) < TOLERANCE
    assert distance(drawn[1:], expected[1:]) > MISTAKE
