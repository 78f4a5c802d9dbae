"""Arguments are complete and in range after this boundary, or name themselves in an error."""

from __future__ import annotations

import numpy as np
import pytest

from nano_runtime.bundle.folder import Bundle
from nano_runtime.drawing.defaults import Defaults
from nano_runtime.drawing.plan import plan_of
from nano_runtime.errors import (
    ConflictError,
    GuidanceError,
    LatentsError,
    MissingArgumentError,
    OptionError,
    PromptError,
    SeedError,
    SizeError,
    VariationError,
)
from nano_runtime.options import DrawOptions
from nano_runtime.sampling.schedule import Schedule


@pytest.fixture
def make(folder):
    bundle = Bundle.open(folder)
    schedule = Schedule.from_config(bundle.manifest.scheduler)
    defaults = Defaults.of(bundle, schedule)
    asked = {"prompt": "a fox", "guidance_scale": 7.5, "seed": 5}
    return lambda **changes: plan_of(DrawOptions(**{**asked, **changes}), bundle, schedule, defaults, at_once=4)


def test_defaults_are_filled_in(make):
    plan = make()
    assert (plan.prompts, plan.negative_prompts, plan.seeds) == (("a fox",), ("",), (5,))
    assert (plan.latents, plan.variation, plan.edit) == (None, None, None)


def test_random_seeds_differ_and_can_be_used_again(make):
    one, other = make(seed=None), make(seed=None)
    assert one.seeds != other.seeds
    assert make(seed=one.seeds[0]).seeds == one.seeds


def test_variations_keep_the_seed_and_count_up_their_own(make):
    plan = make(num_images_per_prompt=3, variation_seed=9, variation_strength=0.2)
    assert plan.seeds == (5, 5, 5)
    assert (plan.variation.seeds, plan.variation.strength) == ((9, 10, 11), 0.2)
    one, other = make(variation_strength=1), make(variation_strength=1)
    assert one.variation.seeds != other.variation.seeds


def test_given_latents_are_copied(make):
    latents = np.ones((2, 4, 16, 16), np.float32)
    plan = make(num_images_per_prompt=2, latents=latents)
    latents[:] = 0
    assert plan.latents.min() == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"prompt": []}, PromptError),
        ({"prompt": ["a", 3]}, PromptError),
        ({"prompt": None}, PromptError),
        ({"negative_prompt": 3}, PromptError),
        ({"guidance_scale": -1}, GuidanceError),
        ({"guidance_scale": float("nan")}, GuidanceError),
        ({"guidance_scale": float("inf")}, GuidanceError),
        ({"guidance_scale": 4e158}, GuidanceError),  # a UNet's numbers would not be finite, and the bundle be blamed
        ({"seed": -1}, SeedError),
        ({"seed": 2**64}, SeedError),
        ({"seed": 2**64 - 1, "num_images_per_prompt": 2}, SeedError),
        ({"num_images_per_prompt": 0}, OptionError),
        ({"num_images_per_prompt": 1.5}, OptionError),
        ({"output_type": "jpeg"}, OptionError),
        ({"height": 128, "width": 512}, SizeError),
        ({"variation_strength": 1.1, "variation_seed": 1}, VariationError),
        ({"variation_strength": float("nan")}, VariationError),
        ({"variation_strength": 0.1, "variation_seed": 2**64 - 1, "num_images_per_prompt": 2}, SeedError),
        ({"variation_seed": 1}, MissingArgumentError),
        ({"latents": np.ones((1, 4, 16, 16), np.float32), "variation_strength": 0.1}, ConflictError),
        ({"latents": [[1.0]]}, LatentsError),
        ({"latents": np.ones((1, 4, 16, 16))}, LatentsError),
        ({"latents": np.ones((2, 4, 16, 16), np.float32)}, LatentsError),
        ({"latents": np.full((1, 4, 16, 16), np.nan, np.float32)}, LatentsError),
    ],
)
def test_what_is_out_of_range_names_itself(make, changes, error):
    with pytest.raises(error):
        make(**changes)


def test_the_extremes_are_allowed(make):
    assert make(seed=0).seeds == (0,)
    assert make(seed=2**64 - 2, num_images_per_prompt=2).seeds == (2**64 - 2, 2**64 - 1)
    assert make(guidance_scale=0).guidance_scale == 0
    assert make(height=128)


def test_every_prompt_of_a_list_is_repeated_in_a_row(make):
    plan = make(prompt=["a", "b"], num_images_per_prompt=2, seed=5)
    assert plan.prompts == ("a", "a", "b", "b")
    assert plan.seeds == (5, 6, 7, 8)
