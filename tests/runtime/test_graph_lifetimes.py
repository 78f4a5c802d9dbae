"""Which graphs a pipeline loads ahead, keeps and frees, and how groups shrink where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime.drawing.events import Progress, Result
from nano_runtime.errors import MachineError, NonFiniteError, OutOfMemoryError

ALL = {"text_encoder", "unet_prompt", "unet", "vae_decoder"}
UNETS = {"unet", "unet_shallow"}
ASKED: dict[str, Any] = {"seed": 7, "output_type": "latent"}


@pytest.fixture
def graphs(hoisted) -> FakeGraphs:
    return FakeGraphs(hoisted)


def words(graphs: FakeGraphs, *kinds: str) -> list[str]:
    """Loads, closes and so on, as a line each, in order."""
    return [" ".join(map(str, entry)) for entry in graphs.log if entry[0] in kinds]


def test_a_pipeline_that_keeps_graphs_frees_only_the_one_for_timesteps(graphs):
    pipe = pipeline_of(graphs, keep_loaded=True)
    pipe("a red fox", seed=7)
    assert graphs.loaded == ALL
    assert words(graphs, "close") == ["close unet_time"]
    pipe("a blue owl", seed=7)
    assert words(graphs, "load") == ["load text_encoder 1 1", "load unet_prompt 1 1", "load unet_time 4 1"]
    pipe.close()
    assert graphs.loaded == graphs.waiting == set()


def test_a_pipeline_that_frees_graphs_does_so_as_soon_as_each_is_done(graphs):
    pipe = pipeline_of(graphs, keep_loaded=False)
    pipe("a red fox", seed=7)
    assert graphs.loaded == graphs.waiting == set()
    order = ["text_encoder", "unet_time", "unet_prompt", "unet", "vae_decoder"]
    assert words(graphs, "close") == [f"close {name}" for name in order]


def test_text_encoder_unet_and_decoder_are_never_loaded_together(graphs):
    stream = pipeline_of(graphs, keep_loaded=False).stream("a red fox", seed=7)
    assert [graphs.loaded for event in stream if isinstance(event, Progress)] == [{"unet"}] * 4
    kept = [graphs.loaded for _ in pipeline_of(graphs, keep_loaded=True).stream("a red fox", seed=7)]
    assert kept[0] == ALL - {"vae_decoder"}  # negative control


@pytest.mark.parametrize(
    ("options", "ahead"),
    [
        ({}, ["ahead unet 2 8", "ahead vae_decoder 1 1"]),
        ({"guidance_scale": 1}, ["ahead unet 1 8", "ahead vae_decoder 1 1"]),
        ({"num_images_per_prompt": 5}, ["ahead unet 6 8", "ahead vae_decoder 1 1"]),
        ({"output_type": "latent"}, ["ahead unet 2 8"]),
        ({"quality": "balanced"}, ["ahead unet 2 8", "ahead unet_shallow (1, 2) 8", "ahead vae_decoder 1 1"]),
        ({"cache_interval": 2}, ["ahead unet 2 8", "ahead unet_shallow 2 8", "ahead vae_decoder 1 1"]),
    ],
    ids=str,
)
def test_what_is_loaded_ahead_is_what_runs(graphs, options, ahead):
    pipeline_of(graphs)("a red fox", **{"seed": 7, **options})
    assert words(graphs, "ahead") == ahead
    loaded = {line.split()[1] for line in words(graphs, "load")}
    first_group = [line.split()[1] for line in ahead]
    if options != {"num_images_per_prompt": 5}:  # whose second group is smaller
        assert loaded.isdisjoint(first_group)
    assert graphs.waiting == set()


@pytest.mark.parametrize("change", [{"backend": "openvino"}, {"low_memory": True}], ids=str)
def test_nothing_is_loaded_ahead_where_it_costs_more_than_it_gains(hoisted, change):
    graphs = FakeGraphs(hoisted, change.get("backend", "onnxruntime"))
    pipeline_of(graphs, low_memory=change.get("low_memory", False))("a red fox", seed=7)
    assert words(graphs, "ahead") == []
    assert {line.split()[1] for line in words(graphs, "load")} == {*ALL, "unet_time"}


def test_the_largest_graphs_are_checked_first_and_the_encoder_only_to_start_from_a_picture(graphs):
    from PIL import Image  # noqa: PLC0415 - the other tests show that drawing latents needs no Pillow

    pipe = pipeline_of(graphs)
    pipe("a red fox", **ASKED)
    pipe("a red fox", image=Image.new("RGB", (32, 32)), **ASKED)
    assert words(graphs, "prepare") == ["prepare unet vae_decoder", "prepare unet vae_encoder vae_decoder"]


def test_low_memory_draws_one_by_one_and_keeps_nothing(graphs, hoisted):
    pipe = pipeline_of(graphs, keep_loaded=True, low_memory=True)
    together = pipeline_of(FakeGraphs(hoisted))("a red fox", num_images_per_prompt=3, **ASKED).images
    for _ in range(2):
        np.testing.assert_array_equal(pipe("a red fox", num_images_per_prompt=3, **ASKED).images, together)
        assert graphs.loaded == set()
    assert {run.batch for run in graphs.ran("unet")} == {2}
    assert len(graphs.ran("text_encoder")) == 4  # no prompt is remembered beside the UNet


def test_closing_a_stream_frees_what_it_loaded(graphs):
    stream = pipeline_of(graphs, keep_loaded=False).stream("a red fox", seed=7)
    next(stream)
    assert (graphs.loaded, graphs.waiting) == ({"unet"}, {"vae_decoder"})
    assert isinstance(stream, Generator)
    stream.close()
    assert graphs.loaded == graphs.waiting == set()


def test_an_error_in_the_middle_frees_what_was_loaded(hoisted):
    graphs = FakeGraphs(hoisted, instead={"unet": lambda sample, **_: {"out_sample": sample * np.nan}})
    with pytest.raises(NonFiniteError):
        pipeline_of(graphs, keep_loaded=False)("a red fox", seed=7)
    assert graphs.loaded == graphs.waiting == set()
    assert words(graphs, "close")[-1] == "close vae_decoder"  # it was loaded ahead


def test_a_stream_that_nobody_asks_does_nothing(graphs):
    pipeline_of(graphs).stream("a red fox", seed=7)
    assert (graphs.runs, graphs.log) == ([], [])


@pytest.mark.parametrize(
    ("most_rows", "drawn", "halvings"),
    [
        (4, [2, 2], 1),
        (2, [1, 1, 1, 1], 2),
        (4, [2, 1], 1),
        (6, [2, 2], 1),
        (4, [2, 2, 2, 1], 1),
        (6, [3, 2], 0),  # negative control
    ],
    ids=str,
)
def test_where_memory_runs_out_smaller_groups_draw_the_same_pictures(hoisted, caplog, most_rows, drawn, halvings):
    count = sum(drawn)
    expected = pipeline_of(FakeGraphs(hoisted))("a red fox", num_images_per_prompt=count, **ASKED)
    graphs = FakeGraphs(hoisted, most_rows=most_rows)
    with caplog.at_level(logging.WARNING):
        result = pipeline_of(graphs)("a red fox", num_images_per_prompt=count, **ASKED)
    np.testing.assert_array_equal(result.images, expected.images)
    assert result.seeds == expected.seeds
    rows = [len(run.feeds["sample"]) for run in graphs.ran("unet")]
    assert rows == [2 * size for size in drawn for _ in range(4)]
    assert caplog.text.count("memory ran out with") == halvings


def test_both_unets_are_freed_before_a_smaller_group_is_tried(hoisted):
    graphs = FakeGraphs(hoisted, most_rows=4)
    pipeline_of(graphs)("a red fox", num_images_per_prompt=4, cache_interval=2, **ASKED)
    about_unets = [line for line in words(graphs, "ahead", "load", "close") if line.split()[1] in UNETS]
    assert about_unets == [
        *("ahead unet 8 8", "ahead unet_shallow 8 8"),
        *("close unet", "close unet_shallow"),
        *("load unet 4 8", "load unet_shallow 4 8"),
    ]


def test_a_group_that_runs_out_of_memory_late_begins_again(hoisted):
    """The second group fails after the first is done: the first is not drawn again, and progress goes back."""
    graphs = FakeGraphs(hoisted)
    pipe = pipeline_of(graphs)
    expected = pipe("a red fox", num_images_per_prompt=8, **ASKED).images
    calls, failed = [], False
    stream = pipe.stream("a red fox", num_images_per_prompt=8, **ASKED)
    for event in stream:
        if isinstance(event, Progress):
            calls.append((event.call, event.calls))
            if event.call == 6 and not failed:
                graphs.run_out_of_memory_once()
                failed = True
    assert calls == [(call, 8) for call in range(1, 7)] + [(call, 12) for call in range(5, 13)]
    assert isinstance(event, Result)
    np.testing.assert_array_equal(event.images, expected)


def test_a_single_picture_without_memory_is_an_error_of_this_machine(hoisted):
    graphs = FakeGraphs(hoisted, most_rows=1)
    with pytest.raises(OutOfMemoryError, match="running the unet") as caught:
        pipeline_of(graphs, keep_loaded=False)("a red fox", num_images_per_prompt=2, **ASKED)
    assert isinstance(caught.value, MachineError)
    assert graphs.loaded == set()
    assert len(pipeline_of(graphs)("a red fox", guidance_scale=1, **ASKED).images) == 1  # half of the rows
