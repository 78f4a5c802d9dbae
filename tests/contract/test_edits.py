"""Pictures drawn from a picture, with and without a mask, against diffusers' own pipelines at the same seed."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from PIL import Image, ImageDraw
from tests.results import arrays

from nano_export.judge.original import diffusers_pipeline
from nano_export.source import builtin
from nano_runtime.errors import NanoError
from nano_runtime.pipeline import Pipeline, Progress, Result

SCHEDULERS = {
    "pndm": "PNDMScheduler",
    "ddim": "DDIMScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}
PROMPT, NEGATIVE, SEED, STEPS = "A watercolor painting of an otter", "blurry", 7, 8
# Of the largest latent, or of white: engines sum in another order than torch, in the encoder and in every call.
TOLERANCE = 1e-4
# What every deliberate mistake must exceed.
MISTAKE = 20 * TOLERANCE


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A picture with everything between smooth and sharp."""
    across, down = np.meshgrid(np.linspace(0, 1, 128), np.linspace(0, 1, 128))
    image = Image.fromarray(np.uint8(255 * np.stack([across, down, (across * down) ** 2], axis=2)))
    ImageDraw.Draw(image).ellipse((30, 40, 90, 100), fill="red", outline="white", width=5)
    return image


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    """White in a corner and in a circle, gray around it."""
    image = Image.new("L", (128, 128), 127)
    draw = ImageDraw.Draw(image)
    draw.rectangle((64, 0, 127, 50), fill=128)
    draw.ellipse((10, 70, 60, 120), fill=255)
    return image


@pytest.fixture(scope="module")
def originals() -> dict[bool, Any]:
    """Diffusers' pipelines, without and with a mask, around the same parts."""
    parts = diffusers_pipeline(builtin.build("tiny")).components
    kinds = {False: StableDiffusionImg2ImgPipeline, True: StableDiffusionInpaintPipeline}
    made = {masked: kind(**parts, requires_safety_checker=False) for masked, kind in kinds.items()}
    for original in made.values():
        original.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def theirs(originals, picture, mask):
    """What diffusers makes of the picture."""
    config = dict(originals[False].scheduler.config)

    def draw(scheduler: str, strength: float, output: str = "latent", *, masked: bool = False) -> np.ndarray:
        original = originals[masked]
        original.scheduler = getattr(diffusers, SCHEDULERS[scheduler]).from_config(config)
        images = original(
            PROMPT,
            image=picture,
            strength=strength,
            negative_prompt=NEGATIVE,
            num_inference_steps=STEPS,
            guidance_scale=7.5,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type=output,
            **({"mask_image": mask, "height": 128, "width": 128} if masked else {}),
        ).images
        return images if output == "np" else images.numpy()

    return draw


@pytest.fixture(scope="module")
def ours(pipe, picture):
    def draw(scheduler: str, strength: float | None, output: str = "latent", **changes: Any) -> np.ndarray:
        arguments = {"image": picture, "seed": SEED, "num_inference_steps": STEPS, "guidance_scale": 7.5, **changes}
        return pipe(
            PROMPT,
            negative_prompt=NEGATIVE,
            scheduler=scheduler,
            strength=strength,
            output_type=output,
            **arguments,
        ).images

    return draw


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("scheduler", "strength"), [*((name, 0.6) for name in SCHEDULERS), ("heun", 0.3), ("euler_a", 1.0), ("pndm", 1.0)]
)
def test_a_picture_from_a_picture_is_diffusers(ours, theirs, scheduler, strength):
    assert distance(ours(scheduler, strength), theirs(scheduler, strength)) < TOLERANCE


@pytest.mark.parametrize(
    ("scheduler", "strength"), [*((name, 0.5) for name in SCHEDULERS), ("heun", 1.0), ("euler_a", 1.0), ("pndm", 1.0)]
)
def test_a_masked_picture_is_diffusers(ours, theirs, mask, scheduler, strength):
    expected = theirs(scheduler, strength, masked=True)
    assert distance(ours(scheduler, strength, mask_image=mask), expected) < TOLERANCE


def test_defaults_are_those_of_diffusers_and_so_are_the_pixels(ours, theirs, mask):
    assert distance(ours("pndm", None, "np"), theirs("pndm", 0.8, "np")) < TOLERANCE
    assert distance(ours("pndm", None, "np", mask_image=mask), theirs("pndm", 1.0, "np", masked=True)) < TOLERANCE


@pytest.mark.slow
def test_the_other_engine_draws_the_same(fp32, theirs, picture, mask):
    pipe = Pipeline.from_pretrained(fp32, "openvino")
    options: dict[str, Any] = {"negative_prompt": NEGATIVE, "scheduler": "ddim", "num_inference_steps": STEPS}
    options |= {"guidance_scale": 7.5}
    options |= {"image": picture, "seed": SEED, "output_type": "latent", "strength": 0.5}
    assert distance(arrays(pipe(PROMPT, **options)), theirs("ddim", 0.5)) < TOLERANCE
    assert distance(arrays(pipe(PROMPT, mask_image=mask, **options)), theirs("ddim", 0.5, masked=True)) < TOLERANCE
    pipe.close()


def test_other_settings_are_far_away(ours, theirs, picture, mask):
    """Negative controls: what the tests above compare depends on each setting."""
    plain, masked = theirs("ddim", 0.8), theirs("ddim", 0.5, masked=True)
    assert distance(ours("ddim", 0.7), plain) > MISTAKE  # a step less
    assert distance(ours("ddim", 0.8, seed=SEED + 1), plain) > MISTAKE
    assert distance(ours("ddim", 0.8, image=picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), plain) > MISTAKE
    assert distance(ours("ddim", 0.5), masked) > MISTAKE
    assert distance(ours("ddim", 0.5, mask_image=mask.point(lambda value: 255 - value)), masked) > MISTAKE
    nearly = mask.copy()
    ImageDraw.Draw(nearly).rectangle((0, 0, 7, 7), fill=255)  # one latent more
    assert distance(ours("ddim", 0.5, mask_image=nearly), masked) > MISTAKE


def test_a_mask_without_white_keeps_the_latents_of_the_picture(ours, caplog):
    kept = ours("ddim", 0.5, mask_image=Image.new("L", (128, 128)))
    assert "nothing is painted anew" in caplog.text
    np.testing.assert_array_equal(kept, ours("euler", 0.9, mask_image=Image.new("RGBA", (128, 128))))
    assert distance(kept, ours("ddim", 0.5, mask_image=Image.new("L", (128, 128), 255))) > MISTAKE


def test_pictures_edited_together_are_those_edited_alone(ours, mask):
    for scheduler in ("euler_a", "pndm"):
        together = ours(scheduler, 0.6, mask_image=mask, num_images_per_prompt=2)
        for index in range(2):
            alone = ours(scheduler, 0.6, mask_image=mask, seed=SEED + index)
            assert distance(together[index : index + 1], alone) < TOLERANCE
            assert distance(together[1 - index : 2 - index], alone) > MISTAKE


def test_calls_are_counted_from_the_first_that_is_made(pipe, picture):
    for scheduler, calls in (("ddim", 4), ("pndm", 5), ("heun", 7)):
        options = {"num_inference_steps": 8, "scheduler": scheduler, "image": picture, "strength": 0.5}
        events = list(pipe.stream("a fox", **options))
        steps = [event for event in events if isinstance(event, Progress)]
        assert pipe.plan("a fox", **options).unet_calls == calls == len(steps)
        assert [(step.call, step.calls, step.step_index) for step in steps] == [(i + 1, calls, i) for i in range(calls)]
        assert isinstance(events[-1], Result)


def test_what_was_edited_is_remembered_with_the_picture(pipe, picture, mask):
    def parameters(**options):
        return pipe("a fox", num_inference_steps=2, seed=3, **options).parameters[0]

    plain, edited, masked = parameters(), parameters(image=picture), parameters(image=picture, mask_image=mask)
    assert (plain.edited, plain.options.strength, plain.masked) == (None, None, False)
    assert (edited.options.strength, edited.masked) == (0.8, False)
    assert (masked.options.strength, masked.masked) == (1.0, True)
    assert len({plain.edited, edited.edited, masked.edited}) == 3
    assert "Denoising strength: 0.8, " in edited.as_text()
    assert "Denoising" not in plain.as_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": None, "strength": 0.5}, "strength means nothing without image"),
        ({"image": None, "mask_image": Image.new("L", (8, 8))}, "mask_image means nothing without image"),
        ({"image": "fox.png"}, "it is a str"),
        ({"mask_image": Image.new("L", (64, 64))}, "64 x 64 pixels and its picture 128 x 128"),
        ({"strength": 0.0}, "the strength 0.0 cannot be used"),
        ({"strength": 1.01}, "the strength 1.01 cannot be used"),
        ({"strength": float("nan")}, "the strength nan cannot be used"),
        ({"strength": 0.1}, "the strength 0.1 cannot be used"),  # of 8 steps
        ({"latents": np.zeros((1, 4, 16, 16), np.float32)}, "latents and image exclude each other"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_what_cannot_be_edited_is_told(pipe, picture, options, words):
    with pytest.raises(NanoError, match=words) as caught:
        pipe("a fox", **{"image": picture, "num_inference_steps": 8, **options})
    assert caught.value.exit_code == 2
