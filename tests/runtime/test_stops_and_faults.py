"""Drawings that stop early, and graphs that compute nonsense: what comes of them, and what is said."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from tests.results import run_through
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime.drawing.events import Progress, Result
from nano_runtime.errors import NonFiniteError

ASKED: dict[str, Any] = {"seed": 7, "output_type": "latent"}


@pytest.fixture
def graphs(hoisted) -> FakeGraphs:
    return FakeGraphs(hoisted)


def test_an_interrupted_drawing_is_decoded_as_it_is_and_says_so(graphs):
    pipe = pipeline_of(graphs)

    def stop(pipe, index, _timestep, _tensors):
        pipe.interrupt = index == 1

    result = pipe("a red fox", seed=7, output_type="latent", callback_on_step_end=stop)
    events, again = run_through(pipe.stream("a red fox", **ASKED))
    np.testing.assert_array_equal(result.images, events[1].latents)
    assert [of.interrupted_after for of in result.parameters] == [2]
    assert [of.interrupted_after for of in again.parameters] == [None]  # the next call draws to its end
    assert pipe.interrupt is False


def test_pictures_of_groups_that_did_not_begin_are_left_out(graphs):
    pipe = pipeline_of(graphs)
    for event in pipe.stream("a red fox", num_images_per_prompt=6, **ASKED):
        if isinstance(event, Progress) and event.call == 3:
            pipe.interrupt = True
    assert isinstance(event, Result)
    assert (len(event.images), event.seeds, len(event.parameters)) == (3, (7, 8, 9), 3)
    assert {of.interrupted_after for of in event.parameters} == {3}


@pytest.mark.parametrize("at", [4, 6])
def test_pictures_that_were_finished_before_an_interrupt_do_not_say_that_they_were_stopped(graphs, at):
    """They are what they would have been; the number is that of the picture's own calls."""
    pipe = pipeline_of(graphs)
    for event in pipe.stream("a red fox", num_images_per_prompt=6, **ASKED):
        if isinstance(event, Progress) and event.call == at:
            pipe.interrupt = True
    assert isinstance(event, Result)
    assert [of.interrupted_after for of in event.parameters] == [None] * 3 + [2] * (3 if at > 4 else 0)


def test_an_interrupt_after_the_last_call_interrupts_nothing(graphs):
    pipe = pipeline_of(graphs)
    for event in pipe.stream("a red fox", **ASKED):
        if isinstance(event, Progress) and event.call == 4:
            pipe.interrupt = True
    assert isinstance(event, Result)
    assert event.parameters[0].interrupted_after is None


@pytest.mark.parametrize(
    ("component", "words"),
    [
        ("text_encoder", r"the text_encoder computed values that are not finite \(output 'last_hidden_state'\)"),
        ("unet_time", r"the unet_time computed .* \(output 'time_0'\)"),
        ("unet", r"the unet computed values that are not finite \(call 1 of 4, timestep 751\)"),
        ("unet_shallow", r"the unet_shallow computed .* \(call 2 of 4, timestep 501\)"),
        ("vae_decoder", r"the vae_decoder computed .* \(output 'sample'\)"),
    ],
)
def test_a_graph_that_computes_nan_is_named_with_its_call(graphs, hoisted, component, words):
    specs = {spec.name: spec for spec in hoisted.component(component).outputs}

    def broken(**feeds):
        rows = len(next(iter(feeds.values())))
        shapes = {name: [8 if size == "tokens" else size for size in spec.shape[1:]] for name, spec in specs.items()}
        return {name: np.full((rows, *shape), np.nan) for name, shape in shapes.items()}

    asked: dict[str, Any] = {"seed": 7, "cache_interval": 2}
    pipeline_of(graphs)("a red fox", **asked)  # negative control
    with pytest.raises(NonFiniteError, match=words) as caught:
        pipeline_of(FakeGraphs(hoisted, instead={component: broken}))("a red fox", **asked)
    assert caught.value.component == component


def test_a_sampler_that_overflows_is_not_taken_for_the_network(hoisted):
    graphs = FakeGraphs(
        hoisted,
        instead={"unet": lambda sample, **_: {"out_sample": np.full_like(sample, 3e38), "deep_feature": sample[:, :2]}},
    )
    with np.errstate(over="ignore"), pytest.raises(NonFiniteError, match=r"the sampler .*call \d of 4"):
        pipeline_of(graphs)("a red fox", **ASKED)


def test_a_blank_picture_is_named_in_the_log_with_the_graph_that_made_it(hoisted, caplog):
    flat = {"vae_decoder": lambda latent_sample: {"sample": np.zeros((len(latent_sample), 3, 32, 32))}}
    with caplog.at_level(logging.WARNING):
        pipeline_of(FakeGraphs(hoisted, instead=flat))("a red fox", seed=7)
        assert "the picture of seed 7 is blank: the vae_decoder made it constant" in caplog.text
        caplog.clear()
        pipeline_of(FakeGraphs(hoisted))("a red fox", seed=7)
        assert caplog.text == ""


def test_whoever_wraps_the_runner_sees_every_run(graphs):
    seen = []

    class Watching:
        def __init__(self, runner):
            self.runner = runner

        def run(self, component, feeds, *, batch):
            seen.append(component)
            return self.runner.run(component, feeds, batch=batch)

    pipeline_of(graphs, around=Watching)("a red fox", seed=7)
    assert seen == [run.component for run in graphs.runs]
    assert len(seen) == 2 + 2 + 1 + 4 + 1
