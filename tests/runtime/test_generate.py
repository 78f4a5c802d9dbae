"""``nano-generate`` from the command line to its files, with formulas for graphs."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.runtime.fakes import IMAGE, FakeGraphs, pipeline_of

from nano_runtime.cli import generate
from nano_runtime.options import DrawOptions
from nano_runtime.pictures.png import read_parameters
from nano_runtime.pipeline import Pipeline


@pytest.fixture
def opened() -> list[dict[str, Any]]:
    """The keywords of every ``Pipeline.from_pretrained``."""
    return []


@pytest.fixture
def graphs(hoisted) -> FakeGraphs:
    return FakeGraphs(hoisted)


@pytest.fixture
def run(graphs, opened, tmp_path, monkeypatch):
    """The command in an empty folder; whatever bundle it asks for, the formulas draw."""

    def from_pretrained(_bundle, *_engine, **options) -> Pipeline:
        opened.append(options)
        return pipeline_of(graphs, keep_loaded=options["keep_loaded"], low_memory=options["low_memory"])

    monkeypatch.setattr(Pipeline, "from_pretrained", from_pretrained)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: generate.main([*map(str, arguments), "--no-cache"])


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def pixels(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image)


def test_a_prompt_becomes_a_file_with_the_pictures_of_the_call(run, hoisted, capsys):
    assert run("a red fox", "--seed", 7, "-o", "a.png") == 0
    out, err = capsys.readouterr()
    assert out == "a.png\n"
    assert "formulas on onnxruntime: 4 steps of ddim = 4 UNet calls" in err
    assert "seed 7" in err
    expected = pipeline_of(FakeGraphs(hoisted))("a red fox", seed=7).images[0]
    np.testing.assert_array_equal(pixels("a.png"), np.asarray(expected))
    assert files() == ["a.png"]


def test_every_flag_reaches_the_options_of_the_picture(run, tmp_path):
    Image.new("RGB", (IMAGE, IMAGE), "teal").save(tmp_path / "photo.png")
    Image.new("L", (IMAGE, IMAGE), "white").save(tmp_path / "mask.png")
    told = {
        "--negative-prompt": "blurry",
        "--seed": 8,
        "--steps": 6,
        "--guidance": 2.5,
        "--scheduler": "euler",
        "--image": "photo.png",
        "--mask": "mask.png",
        "--mask-blur": 2,
        "--strength": 0.5,
        "--variation-seed": 3,
        "--variation-strength": 0.25,
        "--cache-interval": 3,
        "--guidance-interval": "0:0.5",
    }
    flat = [str(part) for pair in told.items() for part in pair]
    assert run("a (red:1.5) fox", *flat, "--weights", "--long-prompt", "-o", "a.png") == 0
    assert read_parameters("a.png").options == DrawOptions(
        prompt="a (red:1.5) fox",
        negative_prompt="blurry",
        seed=8,
        num_inference_steps=6,
        guidance_scale=2.5,
        scheduler="euler",
        keep_unmasked=True,
        mask_blur=2.0,
        height=IMAGE,
        width=IMAGE,
        prompt_weighting=True,
        long_prompts=True,
        strength=0.5,
        variation_seed=3,
        variation_strength=0.25,
        cache_interval=3,
        guidance_interval=(0.0, 0.5),
    )
    assert read_parameters("a.png").masked


def test_a_mask_keeps_the_pixels_outside_also_for_a_picture_that_had_none(run, tmp_path):
    Image.new("RGB", (IMAGE, IMAGE), "teal").save(tmp_path / "photo.png")
    Image.new("L", (IMAGE, IMAGE), "white").save(tmp_path / "mask.png")
    picture, mask = ["--image", "photo.png"], ["--mask", "mask.png"]
    assert run("a red fox", "--seed", 7, *picture, "-o", "plain.png") == 0
    assert run("--from", "plain.png", *picture, *mask, "-o", "kept.png") == 0
    assert run("a red fox", "--seed", 7, *picture, *mask, "--no-keep-unmasked", "-o", "open.png") == 0
    assert run("--from", "open.png", *picture, *mask, "-o", "again.png") == 0
    assert run("--from", "kept.png", *picture, "-o", "without.png") == 0
    for name, keeps in {"plain": False, "kept": True, "open": False, "again": False, "without": False}.items():
        options = read_parameters(f"{name}.png").options
        assert (options.keep_unmasked, options.mask_blur) == ((True, 4.0) if keeps else (False, 0.0)), name


def test_a_picture_is_repeated_from_its_file_but_for_what_is_said(run):
    assert run("a red fox", "--seed", 7, "--steps", 3, "--quality", "balanced", "-o", "a.png") == 0
    assert run("--from", "a.png", "-o", "b.png") == 0
    assert run("--from", "a.png", "--guidance", 1, "-o", "c.png") == 0
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    assert not np.array_equal(pixels("a.png"), pixels("c.png"))
    assert read_parameters("a.png") == read_parameters("b.png")
    assert read_parameters("c.png").options.cache_interval == 2


def test_a_sheet_has_a_picture_for_each_value_and_keeps_the_graphs(run, graphs, opened, capsys):
    assert run("a red fox", "--grid", "steps=1,2,3", "--grid", "guidance=1,4", "--json", "-o", "sheet.png") == 0
    report = json.loads(capsys.readouterr().out)
    drawn = [(of["steps"], of["guidance_scale"]) for of in report["images"]]
    assert drawn == [(1, 1), (2, 1), (3, 1), (1, 4), (2, 4), (3, 4)]
    assert len({of["seed"] for of in report["images"]}) == 1
    assert report["unet_calls"] == len(graphs.ran("unet")) == 12
    assert pixels("sheet.png").shape[1] > 3 * IMAGE
    assert opened[0]["keep_loaded"] is True


def test_several_pictures_get_numbers_and_the_report_names_them(run, capsys):
    assert run("a red fox", "--seed", 7, "-n", 3, "-o", "a.png", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [(of["path"], of["seed"]) for of in report["images"]] == [("a-1.png", 7), ("a-2.png", 8), ("a-3.png", 9)]
    assert report["unet_calls"] == 4
    assert files() == ["a-1.png", "a-2.png", "a-3.png"]


def test_a_preview_shows_the_pictures_while_they_are_drawn(run):
    assert run("a red fox", "--seed", 7, "-n", 3, "-o", "a.png", "--preview", "now.png") == 0
    assert pixels("now.png").shape == (2 * IMAGE, 2 * IMAGE, 3)  # three in a square
    assert np.ptp(pixels("now.png")) > 0


def test_without_metadata_the_files_say_nothing(run, opened):
    assert run("a red fox", "--no-metadata", "-o", "a.png") == 0
    with Image.open("a.png") as image:
        image.load()
        assert image.info == {}
    assert opened[0]["keep_prompts"] is False


def test_counting_tokens_draws_nothing(run, graphs, capsys):
    assert run("a red fox , a blue owl", "--count-tokens") == 0
    assert capsys.readouterr().out == "7 tokens, room for 6 in 1 chunk\nnot used: owl\n"
    assert (graphs.runs, files()) == ([], [])


def test_the_prompt_may_come_from_standard_input(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO("a blue owl\n"))
    assert run("-", "-o", "a.png") == 0
    assert read_parameters("a.png").options.prompt == "a blue owl"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "there is no prompt"),
        (["a fox", "--steps", 0], "0 steps cannot be run"),
        (["a fox", "--scheduler", "DPM++ SDE"], "there is no scheduler 'DPM++ SDE'"),
        (["a fox", "--strength", 0.5], "--strength means nothing without --image"),
        (["a fox", "--grid", "steps=1,2", "-n", 2], "--grid and --count exclude each other"),
        (["a fox", "--grid", "steps=1", "--grid", "steps=2"], "--grid 'steps steps'"),
        (["--", "a fox", "--seed", 1], "'--seed' stands after --, where everything is text"),
        (["a fox", "--size", "x128"], "argument --size: 'x128' is not PX or PXxPX"),
        (["a fox", "--size", "128 \u00d7 64"], "not 128 x 64"),
        (["a fox", "-o", "a.gif"], "a.gif is not the name of a picture"),
        (["a fox", "--image", "none.png"], "none.png cannot be opened: No such file or directory"),
        (["--from", "none.png"], "none.png cannot be opened: No such file or directory"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_told_in_two_lines_before_anything_runs(run, graphs, capsys, arguments, words):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert (out, len(err.splitlines())) == ("", 2)
    assert (graphs.runs, files()) == ([], [])
