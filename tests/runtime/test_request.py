"""Arguments are complete and in range after this boundary, or name themselves in an error."""

from __future__ import annotations

import numpy as np
import pytest

from nano_runtime.bundle.reading import read_manifest
from nano_runtime.drawing.request import Request
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

DEFAULTS = {
    "prompt": "a fox",
    "negative_prompt": None,
    "guidance_scale": 7.5,
    "seed": 5,
    "count": 1,
    "latents": None,
    "output_type": "pil",
    "size": (None, None),
    "image": None,
    "mask_image": None,
    "strength": None,
    "variation_seed": None,
    "variation_strength": None,
}


@pytest.fixture
def make(folder):
    manifest = read_manifest(folder)
    return lambda **changes: Request.checked(manifest, **{**DEFAULTS, **changes})


def test_defaults_are_filled_in(make):
    request = make()
    assert (request.prompts, request.negative_prompt, request.seeds) == (("a fox",), "", (5,))
    assert (request.latents, request.variation, request.edit) == (None, None, None)


def test_random_seeds_differ_and_can_be_used_again(make):
    one, other = make(seed=None), make(seed=None)
    assert one.seeds != other.seeds
    assert make(seed=one.seeds[0]).seeds == one.seeds


def test_variations_keep_the_seed_and_count_up_their_own(make):
    request = make(count=3, variation_seed=9, variation_strength=0.2)
    assert request.seeds == (5, 5, 5)
    assert (request.variation.seeds, request.variation.strength) == ((9, 10, 11), 0.2)
    one, other = make(variation_strength=1), make(variation_strength=1)
    assert one.variation.seeds != other.variation.seeds


def test_given_latents_are_copied(make):
    latents = np.ones((2, 4, 16, 16), np.float32)
    request = make(count=2, latents=latents)
    latents[:] = 0
    assert request.latents.min() == 1


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
        ({"seed": -1}, SeedError),
        ({"seed": 2**64}, SeedError),
        ({"seed": 2**64 - 1, "count": 2}, SeedError),
        ({"count": 0}, OptionError),
        ({"count": 1.5}, OptionError),
        ({"output_type": "jpeg"}, OptionError),
        ({"size": (128, 512)}, SizeError),
        ({"variation_strength": 1.1, "variation_seed": 1}, VariationError),
        ({"variation_strength": float("nan")}, VariationError),
        ({"variation_strength": 0.1, "variation_seed": 2**64 - 1, "count": 2}, SeedError),
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
    assert make(seed=2**64 - 2, count=2).seeds == (2**64 - 2, 2**64 - 1)
    assert make(guidance_scale=0).guidance_scale == 0
    assert make(size=(128, None))


def test_every_prompt_of_a_list_is_repeated_in_a_row(make):
    request = make(prompt=["a", "b"], count=2, seed=5)
    assert request.prompts == ("a", "a", "b", "b")
    assert request.seeds == (5, 6, 7, 8)
