"""Calls with lists of prompts, negative prompts and seeds: shared UNet calls, and each picture as it is alone."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from tests.results import arrays, run_through
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime.drawing.events import Progress, Result
from nano_runtime.errors import ListLengthError, NanoError, OptionError, PromptError, SeedError
from nano_runtime.pipeline import Pipeline

PROMPTS, NEGATIVES, SEEDS = ["a red fox", "a blue owl", "sea"], ["blurry", "", "snow"], [7, 2**64 - 1, 3]
ASKED: dict[str, Any] = {"output_type": "latent", "scheduler": "euler_a", "num_inference_steps": 4}
LONG = " ".join(["a red fox , a blue owl , one sea , two snow"] * 2)


@pytest.fixture(params=["hoisted", "standard"])
def graphs(request) -> FakeGraphs:
    return FakeGraphs(request.getfixturevalue(request.param))


@pytest.fixture
def pipe(graphs) -> Pipeline:
    return pipeline_of(graphs)


def test_each_picture_of_a_list_is_the_one_drawn_alone_in_shared_calls(pipe, graphs):
    result = pipe(PROMPTS, negative_prompt=NEGATIVES, seed=SEEDS, **ASKED)
    assert [len(run.feeds["sample"]) for run in graphs.ran("unet")] == [6] * 4
    assert (result.seeds, result.pictures) == (tuple(SEEDS), (0, 1, 2))
    for i, picture in enumerate(arrays(result)):
        alone = arrays(pipe(PROMPTS[i], negative_prompt=NEGATIVES[i], seed=SEEDS[i], **ASKED))[0]
        again = arrays(pipe(result.parameters[i].options, output_type="latent"))[0]
        np.testing.assert_array_equal(picture, alone)
        np.testing.assert_array_equal(picture, again)
        other = arrays(pipe(PROMPTS[i], negative_prompt=NEGATIVES[i - 1], seed=SEEDS[i], **ASKED))[0]
        assert np.abs(picture - other).max() > 1e-2  # negative control


def test_several_pictures_of_each_prompt_have_its_negative_prompt_and_their_own_seeds(pipe):
    seeds = range(10, 16)
    result = pipe(PROMPTS, negative_prompt=tuple(NEGATIVES), seed=seeds, num_images_per_prompt=2, **ASKED)
    assert result.seeds == tuple(seeds)
    assert [of.options.negative_prompt for of in result.parameters] == [n for n in NEGATIVES for _ in range(2)]
    for i, picture in enumerate(arrays(result)):
        alone = pipe(PROMPTS[i // 2], negative_prompt=NEGATIVES[i // 2], seed=10 + i, **ASKED)
        np.testing.assert_array_equal(picture, arrays(alone)[0])


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_longer_prompt_beside_it_changes_no_picture(graphs, low_memory):
    """Empty chunks behind a prompt would change what the UNet attends to; alone it has none."""
    pipe = pipeline_of(graphs, low_memory=low_memory)
    prompts, negatives = ["sea", LONG, "a fox", LONG, "owl"], ["", "blurry", LONG, "", "blurry"]
    asked: dict[str, Any] = {**ASKED, "long_prompts": True}
    plan = pipe.plan(prompts, negative_prompt=negatives, seed=[1, 2, 3, 4, 5], **asked)
    assert plan.groups == [[0], [4], [1], [2], [3]] if low_memory else plan.groups == [[0, 4], [1, 2, 3]]
    calls, result = run_through(pipe.draw(plan))
    assert (result.seeds, len(calls)) == ((1, 2, 3, 4, 5), plan.unet_calls)
    for i, picture in enumerate(arrays(result)):
        alone = pipe(prompts[i], negative_prompt=negatives[i], seed=i + 1, **asked)
        np.testing.assert_array_equal(picture, arrays(alone)[0])


def test_a_cancelled_picture_is_left_out_and_the_others_do_not_change(pipe, graphs):
    expected = arrays(pipe(PROMPTS * 2, seed=[1, 2, 3, 4, 5, 6], **ASKED))
    graphs.runs.clear()
    for event in pipe.stream(PROMPTS * 2, seed=[1, 2, 3, 4, 5, 6], **ASKED):
        if isinstance(event, Progress) and event.call == 2:
            assert event.pictures == (0, 1, 2)
            threading.Thread(target=event.cancel, args=(1, np.int64(3))).start()
    assert isinstance(event, Result)
    assert (event.pictures, event.seeds, len(event.parameters)) == ((0, 2, 4, 5), (1, 3, 5, 6), 4)
    np.testing.assert_array_equal(arrays(event), expected[[0, 2, 4, 5]])
    assert {of.interrupted_after for of in event.parameters} == {None}
    assert len(graphs.ran("unet")) == 8


def test_a_group_that_nobody_waits_for_makes_no_further_calls(pipe, graphs):
    expected = arrays(pipe("sea", seed=6, **ASKED))
    graphs.runs.clear()
    calls = []
    for event in pipe.stream(["a fox"] * 4 + ["owl"] * 4 + ["sea"], seed=[*range(8), 6], **ASKED):
        if isinstance(event, Progress):
            calls.append((event.call, event.calls))
            if event.call == 2:
                event.cancel(*range(8))
    assert isinstance(event, Result)
    assert event.pictures == (8,)
    np.testing.assert_array_equal(arrays(event), expected)
    assert len(graphs.ran("unet")) == 2 + 4
    assert calls[-1][0] == calls[-1][1] == 6


@pytest.mark.parametrize("form", ["pil", "np", "latent"])
def test_a_drawing_that_is_cancelled_whole_ends_with_no_pictures(pipe, graphs, form):
    for event in pipe.stream(PROMPTS, **{**ASKED, "output_type": form}):
        if isinstance(event, Progress):
            event.cancel()
    assert isinstance(event, Result)
    assert (len(event.images), event.seeds, event.parameters, event.pictures) == (0, (), (), ())
    assert (len(graphs.ran("unet")), len(graphs.ran("vae_decoder"))) == (1, 0)
    assert len(pipe(PROMPTS, **ASKED).images) == 3  # the next call is not


def test_cancelling_one_drawing_does_not_touch_another(pipe):
    expected = arrays(pipe("owl", seed=5, **ASKED))
    one, other = pipe.stream("sea", seed=4, **ASKED), pipe.stream("owl", seed=5, **ASKED)
    first = next(one)
    next(other)
    assert isinstance(first, Progress)
    first.cancel()
    *_, result = other
    *_, none = one
    assert isinstance(result, Result)
    assert isinstance(none, Result)
    np.testing.assert_array_equal(arrays(result), expected)
    assert none.pictures == ()


def test_an_interrupted_drawing_leaves_cancelled_pictures_out(pipe):
    for event in pipe.stream(PROMPTS, **ASKED):
        if isinstance(event, Progress):
            event.cancel(0)
            pipe.interrupt = True
    assert isinstance(event, Result)
    assert event.pictures == (1, 2)
    assert {of.interrupted_after for of in event.parameters} == {1}


@pytest.mark.parametrize("picture", [-1, 3, 1.5, "0", None])
def test_only_pictures_of_the_call_can_be_cancelled(pipe, picture):
    event = next(iter(pipe.stream(PROMPTS, **ASKED)))
    assert isinstance(event, Progress)
    with pytest.raises(OptionError):
        event.cancel(picture)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seed": [1, 2]}, ListLengthError, "seed lists 2, and there are 3 pictures"),
        ({"seed": []}, ListLengthError, "seed lists 0, and there are 3 pictures"),
        ({"seed": SEEDS, "num_images_per_prompt": 2}, ListLengthError, "seed lists 3, and there are 6 pictures"),
        ({"negative_prompt": ["blurry"]}, ListLengthError, "negative_prompt lists 1, and there are 3 prompts"),
        ({"negative_prompt": []}, PromptError, "the list of negative prompts is empty"),
        ({"negative_prompt": ["", None, ""]}, PromptError, "the negative prompt cannot be used: it is a NoneType"),
        ({"seed": [1, 2, -1]}, SeedError, "the seed -1 is out of range"),
        ({"seed": [1, 2**64, 1]}, SeedError, "the seed 18446744073709551616 is out of range"),
        ({"seed": [1, 1.5, 2]}, OptionError, r"seed\[1\]=1.5 cannot be used"),
        ({"seed": [1, None, 2]}, OptionError, r"seed\[1\]=None cannot be used"),
        ({"seed": [[1], 2, 3]}, OptionError, r"seed\[0\]=\[1\] cannot be used"),
        ({"seed": {1, 2, 3}}, OptionError, r"seed=\{1, 2, 3\} cannot be used"),
        ({"seed": "123"}, OptionError, "seed='123' cannot be used"),
        ({"seed": np.zeros((3, 1), int)}, OptionError, "cannot be used"),
        ({"seed": range(10**12)}, OptionError, "cannot be used"),
    ],
    ids=str,
)
def test_lists_that_do_not_fit_are_told(pipe, options, error, words):
    with pytest.raises(error, match=words) as caught:
        pipe(PROMPTS, **options)
    assert isinstance(caught.value, NanoError)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("seeds", [(1, 2, 3), range(1, 4), np.arange(1, 4), [1.0, np.int64(2), 3]], ids=repr)
def test_seeds_may_be_listed_in_any_way(pipe, seeds):
    assert pipe.plan(PROMPTS, seed=seeds).seeds == (1, 2, 3)
    assert pipe.plan("sea", seed=seeds, num_images_per_prompt=3).seeds == (1, 2, 3)
