"""Drawing with formulas for graphs: every picture against the one that is drawn by hand, alone, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.results import arrays, run_through
from tests.runtime.by_hand import SHARES, conditions, draw_by_hand, pixels_by_hand, timesteps_by_hand
from tests.runtime.fakes import FakeGraphs, make_bundle, pipeline_of

from nano_runtime.drawing.events import Progress, Result
from nano_runtime.errors import NoPreviewError
from nano_runtime.sampling.noise import randn

FOX, OWL, BLURRY, EMPTY = (conditions(text.split()) for text in ("a red fox", "owl", "blurry", ""))
SHAPE = (1, 4, 4, 4)
# Float32 against float64: 2e-6 was seen in latents around 1. Every deliberate mistake must exceed 1000 times this.
TOLERANCE, MISTAKE = 1e-5, 1e-2


@pytest.fixture(params=["hoisted", "standard"])
def bundle(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def graphs(bundle) -> FakeGraphs:
    return FakeGraphs(bundle)


@pytest.fixture
def draw(graphs):
    """The final latents of a call."""
    pipe = pipeline_of(graphs)
    asked: dict[str, Any] = {"seed": 7, "output_type": "latent"}
    return lambda prompt="a red fox", **options: pipe(prompt, **{**asked, **options}).images


def distance(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


def by_hand(positive=FOX, negative=EMPTY, *, seed=7, scale=3.0, letters="WWWW") -> np.ndarray:
    return draw_by_hand(randn(seed, SHAPE), positive, negative, scale=scale, letters=letters, steps=len(letters))


def test_a_picture_is_the_one_drawn_by_hand(draw):
    expected = by_hand(negative=BLURRY, scale=2.5, letters="WWWWW")
    asked = {"negative_prompt": "blurry", "guidance_scale": 2.5, "num_inference_steps": 5}
    assert distance(draw(**asked), expected) < TOLERANCE
    mistakes = {
        "prompts swapped": by_hand(BLURRY, FOX, scale=2.5, letters="WWWWW"),
        "another prompt": by_hand(OWL, BLURRY, scale=2.5, letters="WWWWW"),
        "no negative prompt": by_hand(scale=2.5, letters="WWWWW"),
        "another scale": by_hand(negative=BLURRY, scale=3.0, letters="WWWWW"),
        "a step less": by_hand(negative=BLURRY, scale=2.5),
        "another seed": by_hand(negative=BLURRY, seed=8, scale=2.5, letters="WWWWW"),
    }
    assert {name for name, wrong in mistakes.items() if distance(wrong, expected) < MISTAKE} == set()


def test_a_call_that_says_nothing_takes_sampler_steps_and_guidance_from_the_bundle(draw):
    assert distance(draw(), by_hand(letters="WWWW", scale=3.0)) < TOLERANCE
    assert distance(draw(scheduler="pndm"), by_hand()) > MISTAKE  # negative control: the checkpoint's own sampler


def test_the_negative_rows_come_first(draw, graphs):
    draw(["a red fox", "owl"], negative_prompt="blurry")
    told = "value_0" if graphs.bundle.manifest.graph == "hoisted" else "encoder_hidden_states"
    alone = {text: FakeGraphs(graphs.bundle) for text in ("blurry", "a red fox", "owl")}
    for text, one in alone.items():
        pipeline_of(one)(text, guidance_scale=1, output_type="latent")
    rows = [alone[text].ran("unet")[0].feeds[told] for text in ("blurry", "blurry", "a red fox", "owl")]
    for run in graphs.ran("unet"):
        np.testing.assert_array_equal(run.feeds[told], np.concatenate(rows))
        np.testing.assert_array_equal(run.feeds["sample"][:2], run.feeds["sample"][2:])
    assert len(graphs.ran("unet")) == 4


@pytest.mark.parametrize("scale", [0, 0.5, 1])
def test_without_guidance_each_picture_is_one_row_and_the_negative_prompt_is_not_encoded(draw, graphs, scale):
    assert distance(draw(guidance_scale=scale, negative_prompt="blurry"), by_hand(letters="wwww")) < TOLERANCE
    assert {len(run.feeds["sample"]) for run in graphs.ran("unet")} == {1}
    assert len(graphs.ran("text_encoder")) == 1
    draw(guidance_scale=1.5, negative_prompt="blurry")
    assert len(graphs.ran("text_encoder")) == 2


@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "euler_a", "dpmpp_2m_sde", "lcm", "heun"])
def test_pictures_of_a_group_equal_those_drawn_alone(draw, scheduler):
    asked = {"scheduler": scheduler, "num_inference_steps": 3}
    together = draw(num_images_per_prompt=6, **asked)
    alone = [draw(seed=7 + picture, **asked)[0] for picture in range(6)]
    np.testing.assert_array_equal(together, alone)
    assert distance(together[0], together[1]) > MISTAKE


@pytest.mark.parametrize(("count", "groups"), [(1, [1]), (4, [4]), (5, [3, 2]), (8, [4, 4]), (9, [3, 3, 3])], ids=str)
def test_at_most_four_pictures_share_a_call(draw, graphs, count, groups):
    draw(num_images_per_prompt=count, num_inference_steps=1)
    assert [len(run.feeds["sample"]) for run in graphs.ran("unet")] == [2 * size for size in groups]
    assert len(graphs.ran("vae_decoder")) == 0  # latents were asked for


def test_seeds_count_up_over_every_repeated_prompt(graphs):
    result = pipeline_of(graphs)(["a red fox", "owl"], seed=7, num_images_per_prompt=2, output_type="latent")
    assert result.seeds == (7, 8, 9, 10)
    assert [of.options.seed for of in result.parameters] == [7, 8, 9, 10]
    assert [of.options.prompt for of in result.parameters] == ["a red fox", "a red fox", "owl", "owl"]
    for picture, (seed, told) in enumerate([(7, FOX), (8, FOX), (9, OWL), (10, OWL)]):
        assert distance(arrays(result)[picture : picture + 1], by_hand(told, seed=seed)) < TOLERANCE


def test_variations_lie_on_the_arc_between_two_seeds(draw):
    own, other = (randn(seed, SHAPE).astype(np.float64) for seed in (7, 22))
    angle = np.arccos((own * other).sum() / np.linalg.norm(own) / np.linalg.norm(other))
    scaled = other * np.linalg.norm(own) / np.linalg.norm(other)
    noise = (np.sin(0.7 * angle) * own + np.sin(0.3 * angle) * scaled) / np.sin(angle)
    expected = draw_by_hand(noise, FOX, EMPTY, scale=3.0, letters="WWWW", steps=4)
    drawn = draw(num_images_per_prompt=3, variation_seed=20, variation_strength=0.3)
    assert distance(drawn[2:], expected) < TOLERANCE
    assert distance(drawn[:1], expected) > MISTAKE
    np.testing.assert_array_equal(draw(variation_seed=22, variation_strength=0), draw())


def test_given_latents_take_the_place_of_the_seeds_noise(draw):
    latents = np.concatenate([randn(30, SHAPE), randn(31, SHAPE)])
    drawn = draw(latents=latents, num_images_per_prompt=2)
    for picture in range(2):
        assert distance(drawn[picture : picture + 1], by_hand(seed=30 + picture)) < TOLERANCE
    np.testing.assert_array_equal(draw(latents=latents, num_images_per_prompt=2, seed=99), drawn)


def test_each_output_type_is_the_same_picture(draw):
    unit = pixels_by_hand(by_hand())
    assert distance(draw(output_type="latent"), by_hand()) < TOLERANCE
    values = draw(output_type="np")
    assert values.dtype == np.float32
    assert distance(values, unit) < TOLERANCE
    (image,) = draw(output_type="pil")
    assert (image.size, image.mode) == ((32, 32), "RGB")
    assert distance(np.asarray(image)[np.newaxis] / 255, unit) < 0.51 / 255
    assert distance(unit, pixels_by_hand(by_hand(OWL))) > 10 / 255  # negative control


def test_progress_tells_of_every_call_and_the_result_comes_last(graphs):
    asked: dict[str, Any] = {"seed": 7, "num_images_per_prompt": 5, "output_type": "latent"}
    events, result = run_through(pipeline_of(graphs).stream("a red fox", **asked))
    assert [event.call for event in events] == list(range(1, 9))
    assert {event.calls for event in events} == {8}
    assert [event.step_index for event in events] == [0, 1, 2, 3] * 2
    assert [event.timestep for event in events] == timesteps_by_hand(4) * 2
    assert [len(event.latents) for event in events] == [3] * 4 + [2] * 4
    np.testing.assert_array_equal(result.images, np.concatenate([events[3].latents, events[7].latents]))


def test_previews_show_what_the_network_believes_in(graphs):
    (first, *_), _ = run_through(pipeline_of(graphs).stream("a red fox", seed=7))
    assert first.timestep == 751
    run = graphs.ran("unet")[0]
    away, noise = run.outputs["out_sample"]
    predicted = (randn(7, SHAPE)[0] - (1 - SHARES[751]) ** 0.5 * (away + 3 * (noise - away))) / SHARES[751] ** 0.5
    assert distance(first.predicted[0], predicted) < TOLERANCE
    weights = np.array(graphs.bundle.manifest.preview)
    colours = np.clip(predicted.transpose(1, 2, 0) @ weights[:-1] + weights[-1], 0, 1)
    (preview,) = first.preview()
    height, width = graphs.bundle.manifest.image_size
    small = Image.fromarray((colours * 255).round().astype(np.uint8))
    enlarged = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    assert np.abs(np.asarray(preview) - enlarged).max() <= 2  # one step of rounding, before and after
    assert np.ptp(np.asarray(preview)) > 50


def test_a_bundle_without_a_matrix_draws_but_has_no_previews(tmp_path):
    pipe = pipeline_of(FakeGraphs(make_bundle(tmp_path / "bundle", preview=None)))
    (first, *_), result = run_through(pipe.stream("a red fox", seed=7, output_type="latent"))
    with pytest.raises(NoPreviewError):
        first.preview()
    assert distance(arrays(result), by_hand()) < TOLERANCE


def test_what_is_written_into_the_latents_is_drawn_on(graphs):
    pipe = pipeline_of(graphs)
    events = pipe.stream("a red fox", seed=7, output_type="latent")
    for event in events:
        if isinstance(event, Progress) and event.call == 2:
            event.latents[:] = 0.5
    assert isinstance(event, Result)
    expected = draw_by_hand(np.full(SHAPE, 0.5), FOX, EMPTY, scale=3.0, letters="WW", steps=4)
    assert distance(arrays(event), expected) < TOLERANCE

    def replace(_pipe, index, timestep, tensors):
        assert timestep == timesteps_by_hand(4)[index]
        return {"latents": np.full_like(tensors["latents"], 0.5)} if index == 1 else None

    result = pipe("a red fox", seed=7, output_type="latent", callback_on_step_end=replace)
    np.testing.assert_array_equal(result.images, event.images)


def test_a_record_of_options_draws_what_keywords_draw(graphs):
    pipe = pipeline_of(graphs)
    plan = pipe.plan("a red fox", seed=7, output_type="latent", guidance_scale=2)
    expected = arrays(pipe("a red fox", seed=7, output_type="latent", guidance_scale=2))
    np.testing.assert_array_equal(pipe(plan.options).images, expected)
    _, result = run_through(pipe.draw(plan))
    np.testing.assert_array_equal(result.images, expected)
    assert distance(arrays(pipe(plan.options, guidance_scale=3)), by_hand()) < TOLERANCE
    assert distance(expected, by_hand()) > MISTAKE


def test_timings_count_the_runs_of_each_graph(graphs):
    timings = pipeline_of(graphs)("a red fox", seed=7, num_images_per_prompt=2).timings
    counted = {name: len(samples) for name, samples in timings.run_ms.items()}
    assert counted == {name: len(graphs.ran(name)) for name in counted}
    assert (counted["unet"], counted["text_encoder"], counted["vae_decoder"]) == (4, 2, 2)
