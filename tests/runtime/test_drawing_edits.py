"""Drawing from a picture, with formulas for graphs: where it begins, what a mask keeps, against the same by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.results import run_through
from tests.runtime.by_hand import SHARES, Kept, conditions, draw_by_hand, timesteps_by_hand
from tests.runtime.fakes import FORMULAS, FakeGraphs, pipeline_of

from nano_runtime.errors import (
    ConflictError,
    ImageError,
    MaskSizeError,
    MissingArgumentError,
    StrengthError,
    UsageError,
)
from nano_runtime.sampling.noise import TorchGenerator

FOX, EMPTY = conditions(["a", "red", "fox"]), conditions([])
SHAPE = (1, 4, 4, 4)
TOLERANCE, MISTAKE = 1e-5, 1e-2  # as in test_drawing
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
PHOTO = Image.fromarray(PIXELS)
LEFT = np.zeros((32, 32), np.uint8)
LEFT[:, :16] = 255  # white: the left half is drawn anew
MASK = np.zeros(SHAPE)
MASK[..., :2] = 1


@pytest.fixture
def graphs(hoisted) -> FakeGraphs:
    return FakeGraphs(hoisted)


@pytest.fixture
def draw(graphs):
    """The final latents of a call with a picture to start from."""
    pipe = pipeline_of(graphs)
    asked: dict[str, Any] = {"seed": 7, "output_type": "latent", "image": PHOTO}
    return lambda prompt="a red fox", **options: pipe(prompt, **{**asked, **options}).images


def distance(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


def stream(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The encoded picture and the noise of a seed: its first two draws. 0.25 is the bundle's scaling factor."""
    generator = TorchGenerator(seed)
    pixels = PIXELS.transpose(2, 0, 1)[np.newaxis] / 255 * 2 - 1
    mean, logvar = np.split(FORMULAS["hoisted"]["vae_encoder"](pixels)["latent_parameters"], 2, axis=1)
    clean = 0.25 * (mean + np.exp(logvar / 2) * generator.randn(SHAPE))
    return clean, generator.randn(SHAPE).astype(np.float64)


def by_hand(letters: str, *, steps: int = 4, seed: int = 7, swapped: bool = False) -> np.ndarray:
    """A picture made of another in the last calls of a schedule; ``swapped``: by a mistake in the order of draws."""
    clean, noise = stream(seed)
    if swapped:
        clean, noise = noise, clean
    share = SHARES[timesteps_by_hand(steps)[-len(letters)]]
    start = share**0.5 * clean + (1 - share) ** 0.5 * noise
    return draw_by_hand(start, FOX, EMPTY, scale=3.0, letters=letters, steps=steps)


@pytest.mark.parametrize(
    ("strength", "calls"), [(None, 3), (0.8, 3), (0.5, 2), (0.74, 2), (0.25, 1), (1.0, 4)], ids=str
)
def test_drawing_begins_at_the_call_that_the_strength_says(draw, graphs, strength, calls):
    expected = by_hand("W" * calls)
    assert distance(draw(strength=strength), expected) < TOLERANCE
    assert len(graphs.ran("unet")) == calls
    assert len(graphs.ran("vae_encoder")) == 1
    others = [by_hand("W" * other) for other in {1, 2, 3, 4} - {calls}]
    assert min(distance(other, expected) for other in others) > MISTAKE
    assert distance(by_hand("W" * calls, swapped=True), expected) > MISTAKE


def test_pictures_of_a_group_start_from_their_own_noise(draw):
    together = draw(strength=0.5, num_images_per_prompt=3)
    for picture in range(3):
        assert distance(together[picture : picture + 1], by_hand("WW", seed=7 + picture)) < TOLERANCE
    assert distance(together[0], together[1]) > MISTAKE


def test_progress_counts_only_the_calls_that_are_made(graphs):
    asked: dict[str, Any] = {"seed": 7, "image": PHOTO, "strength": 0.5, "output_type": "latent"}
    events, _ = run_through(pipeline_of(graphs).stream("a red fox", **asked))
    told = [(event.call, event.calls, event.step_index, event.timestep) for event in events]
    assert told == [(1, 2, 0, 251), (2, 2, 1, 1)]


def test_shortcuts_count_from_the_first_call_that_is_made(draw):
    expected = by_hand("WSws", steps=5)
    drawn = draw(strength=0.8, num_inference_steps=5, cache_interval=2, guidance_interval=(0, 0.6))
    assert distance(drawn, expected) < TOLERANCE
    assert distance(by_hand("WSWs", steps=5), expected) > MISTAKE  # guided for 0.6 of all five calls


@pytest.mark.parametrize("strength", [None, 0.75, 0.5])
def test_what_the_mask_leaves_black_stays_and_the_rest_is_drawn_by_hand(draw, strength):
    clean, noise = stream(7)
    calls = 4 if strength is None else int(4 * strength)
    share = SHARES[timesteps_by_hand(4)[-calls]]
    pure = strength is None  # a mask without a strength starts from pure noise
    start = noise if pure else share**0.5 * clean + (1 - share) ** 0.5 * noise
    kept = Kept(clean, noise, MASK)
    expected = draw_by_hand(start, FOX, EMPTY, scale=3.0, letters="W" * calls, steps=4, kept=kept)
    drawn = draw(strength=strength, mask_image=Image.fromarray(LEFT))
    assert distance(drawn, expected) < TOLERANCE
    assert distance(drawn[..., 2:], clean[..., 2:]) < 1e-6  # nothing but rounding to float32
    assert distance(drawn[..., :2], clean[..., :2]) > MISTAKE
    turned = Kept(clean, noise, 1 - MASK)
    mistake = draw_by_hand(start, FOX, EMPTY, scale=3.0, letters="W" * calls, steps=4, kept=turned)
    assert distance(mistake, expected) > MISTAKE


def test_kept_pixels_are_those_of_the_picture_and_the_others_are_drawn(draw):
    asked: dict[str, Any] = {"mask_image": Image.fromarray(LEFT), "output_type": "pil"}
    (plain,), (kept,), (soft,) = (
        [np.asarray(image) for image in draw(**asked, **options)]
        for options in ({}, {"keep_unmasked": True}, {"keep_unmasked": True, "mask_blur": 1.5})
    )
    np.testing.assert_array_equal(kept[:, 16:], PIXELS[:, 16:])
    np.testing.assert_array_equal(kept[:, :16], plain[:, :16])
    assert np.abs(plain[:, 16:].astype(int) - PIXELS[:, 16:]).max() > 20  # what diffusers' pipelines do with them
    np.testing.assert_array_equal(soft[:, 24:], PIXELS[:, 24:])  # far from the edge
    np.testing.assert_array_equal(soft[:, :8], plain[:, :8])
    low, high = np.minimum(plain, PIXELS)[:, 14:18], np.maximum(plain, PIXELS)[:, 14:18]
    assert ((soft[:, 14:18] >= low.astype(int) - 1) & (soft[:, 14:18] <= high.astype(int) + 1)).all()
    assert (soft[:, 14:18] != kept[:, 14:18]).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep_unmasked": True}, "keep_unmasked"),
        ({"mask_image": Image.fromarray(LEFT), "mask_blur": 2.0}, "keep_unmasked"),
        ({"mask_image": Image.fromarray(LEFT), "keep_unmasked": True, "mask_blur": -1.0}, "mask_blur"),
        ({"mask_image": Image.fromarray(LEFT), "keep_unmasked": True, "mask_blur": float("nan")}, "mask_blur"),
    ],
)
def test_pixels_are_kept_only_with_a_mask(draw, graphs, options, words):
    with pytest.raises(UsageError, match=words):
        draw(**options)
    assert not graphs.ran("vae_encoder")


def test_a_mask_draws_once_more_from_the_seed_before_the_sampler_does(draw):
    """A sampler with noise of its own sees the fourth draw with a mask, and the third without one."""
    white = Image.new("L", (32, 32), "white")
    without = draw(scheduler="ddim_a", num_inference_steps=4, strength=0.5)
    masked = draw(scheduler="ddim_a", num_inference_steps=4, strength=0.5, mask_image=white)
    assert distance(without, masked) > MISTAKE
    plain = draw(strength=0.5, mask_image=white)
    np.testing.assert_array_equal(plain, draw(strength=0.5))  # a white mask keeps nothing


def test_the_parameters_name_the_picture_and_its_mask(graphs):
    pipe = pipeline_of(graphs)
    asked: dict[str, Any] = {"seed": 7, "image": PHOTO, "output_type": "latent"}
    (plain,) = pipe("a red fox", **asked).parameters
    (masked,) = pipe("a red fox", mask_image=Image.fromarray(LEFT), **asked).parameters
    (other,) = pipe("a red fox", **{**asked, "image": PHOTO.rotate(90)}).parameters
    (none,) = pipe("a red fox", seed=7, output_type="latent").parameters
    assert (plain.masked, masked.masked, none.masked) == (False, True, False)
    assert len({plain.edited, masked.edited, other.edited, none.edited}) == 4
    assert none.edited is None
    assert (plain.options.strength, masked.options.strength, none.options.strength) == (0.8, 1.0, None)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"latents": np.zeros(SHAPE, np.float32)}, ConflictError, "latents and image exclude each other"),
        ({"image": None, "strength": 0.5}, MissingArgumentError, "strength means nothing without image"),
        ({"image": None, "mask_image": PHOTO}, MissingArgumentError, "mask_image means nothing without image"),
        ({"image": PIXELS}, ImageError, "image cannot be used: it is a ndarray"),
        ({"mask_image": PIXELS}, ImageError, "mask_image cannot be used: it is a ndarray"),
        ({"mask_image": PHOTO.resize((16, 32))}, MaskSizeError, "16 x 32 pixels and its picture 32 x 32"),
        ({"strength": 0.0}, StrengthError, "strength 0.0 cannot be used"),
        ({"strength": 0.2}, StrengthError, "strength 0.2 cannot be used"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_what_cannot_be_edited_is_refused_before_anything_runs(draw, graphs, changes, error, words):
    with pytest.raises(error, match=words):
        draw(**changes)
    assert (graphs.runs, graphs.log) == ([], [])
