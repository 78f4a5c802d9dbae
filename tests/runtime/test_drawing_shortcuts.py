"""Step caching and guidance intervals, with formulas for graphs: what runs, on what, and what comes of it by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.runtime.by_hand import conditions, draw_by_hand
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime.errors import NoShortcutError
from nano_runtime.sampling.noise import randn

FOX, BLURRY = conditions(["a", "red", "fox"]), conditions(["blurry"])
TOLERANCE, MISTAKE = 1e-5, 1e-3  # of test_drawing; a mistake in a single shallow call is smaller than one in a prompt


@pytest.fixture
def graphs(hoisted) -> FakeGraphs:
    return FakeGraphs(hoisted)


@pytest.fixture
def draw(graphs):
    """The final latents of a call in eight steps."""
    pipe = pipeline_of(graphs)
    asked: dict[str, Any] = {"negative_prompt": "blurry", "num_inference_steps": 8, "seed": 7, "output_type": "latent"}
    return lambda **options: pipe("a red fox", **{**asked, **options}).images


def by_hand(letters: str, seed: int = 7) -> np.ndarray:
    return draw_by_hand(randn(seed, (1, 4, 4, 4)), FOX, BLURRY, scale=3.0, letters=letters, steps=8)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


@pytest.mark.parametrize(
    ("options", "letters", "mistakes"),
    [
        ({"cache_interval": 2}, "WSWSWSWS", ["WWWWWWWW", "WSWSWSSS"]),
        ({"cache_interval": 3}, "WSSWSSWS", ["WSWSWSWS", "WSSSWSSW"]),
        ({"guidance_interval": (0.25, 0.75)}, "wwWWWWww", ["WWWWWWWW", "wwwWWWww", "wwWWWWWw"]),
        ({"cache_interval": 2, "guidance_interval": (0.25, 0.75)}, "wsWSWSws", ["WSWSWSWS", "wwWSWSws"]),
        ({"cache_interval": 3, "guidance_interval": (0.125, 0.5)}, "wWSWssws", ["wWSWsssw", "wWSWswss"]),
        ({"cache_interval": 99}, "WSSSSSSS", ["WSSSSSSW"]),
        ({"quality": "balanced"}, "WSWSWSws", ["WSWSWSWS", "WSSWSSWS"]),
        ({"quality": "fast"}, "WSSWssws", ["WSWSWSws"]),
        ({"quality": "fast", "cache_interval": 2}, "WSWSwsws", ["WSSWssws"]),
        ({"quality": "exact"}, "WWWWWWWW", ["WSWSWSWS"]),
    ],
    ids=str,
)
def test_what_is_left_out_is_what_the_options_say(draw, graphs, options, letters, mistakes):
    expected = by_hand(letters)
    assert distance(draw(**options), expected) < TOLERANCE
    ran = [(run.component == "unet", len(run.feeds["sample"])) for run in graphs.ran("unet", "unet_shallow")]
    assert ran == [(letter in "Ww", 2 if letter.isupper() else 1) for letter in letters]
    assert min(distance(by_hand(wrong), expected) for wrong in mistakes) > MISTAKE


def test_shallow_calls_get_the_forecast_and_whole_calls_make_it(draw, graphs):
    draw(cache_interval=3, num_inference_steps=6)  # WSSWSS, at the timesteps 831, 665, 499, 333, 167, 1
    first, one, two, second, three, four = graphs.ran("unet", "unet_shallow")
    feature, later = first.outputs["deep_feature"], second.outputs["deep_feature"]
    np.testing.assert_array_equal(one.feeds["deep_feature"], feature)  # no direction is known yet
    np.testing.assert_array_equal(two.feeds["deep_feature"], feature)
    for run, share in ((three, 166 / 498), (four, 332 / 498)):
        np.testing.assert_allclose(run.feeds["deep_feature"], later + share * (later - feature), atol=1e-6)
    assert distance(feature, later) > 0.01


def test_one_loaded_graph_serves_guided_and_unguided_calls(draw, graphs):
    draw(guidance_interval=(0.25, 0.75), cache_interval=2, num_images_per_prompt=3)
    assert {run.batch for run in graphs.ran("unet")} == {(3, 6)}
    assert {run.batch for run in graphs.ran("unet_shallow")} == {(3, 6)}
    assert [entry for entry in graphs.log if entry[0] == "load" and "unet" in entry] == []  # it was loaded ahead
    draw(num_images_per_prompt=3)
    assert graphs.ran("unet")[-1].batch == 6


def test_pictures_of_a_group_equal_those_drawn_alone(draw):
    asked = {"cache_interval": 3, "guidance_interval": (0.125, 0.5)}
    together = draw(num_images_per_prompt=5, **asked)
    alone = [draw(seed=7 + picture, **asked)[0] for picture in range(5)]
    np.testing.assert_array_equal(together, alone)
    assert distance(together[:1], by_hand("wWSWssws")) < TOLERANCE


def test_the_longest_intervals_are_exact(draw):
    np.testing.assert_array_equal(draw(cache_interval=1, guidance_interval=(0.0, 1.0)), draw())
    np.testing.assert_array_equal(draw(guidance_interval=(0.5, 0.5)), draw(guidance_scale=1))


def test_the_plan_says_what_will_run(draw, graphs):
    pipe = pipeline_of(graphs)
    plan = pipe.plan("a red fox", num_inference_steps=8, quality="fast", num_images_per_prompt=5)
    assert plan.unet_calls == 16
    assert plan.unet_rows == {"unet": (3, 6), "unet_shallow": (3, 6)}
    assert list(plan.shortcuts.described()) == ["one in 3 of them whole", "guided from 0% to 50%"]
    assert list(pipe.plan("a red fox").shortcuts.described()) == []
    assert pipe.plan("a red fox", num_images_per_prompt=2).unet_rows == {"unet": 4}
    assert graphs.runs == []
    draw(quality="fast", num_images_per_prompt=5)
    assert len(graphs.ran("unet", "unet_shallow")) == 16


def test_a_bundle_without_a_shallow_unet_refuses_to_cache_steps(standard):
    pipe = pipeline_of(FakeGraphs(standard))
    with pytest.raises(NoShortcutError, match="shallow UNet"):
        pipe.plan("a red fox", cache_interval=2)
    with pytest.raises(NoShortcutError, match="preset 'fast'"):
        pipe.plan("a red fox", quality="fast")
    assert pipe.plan("a red fox", guidance_interval=(0, 0.5)).unet_calls == 4
