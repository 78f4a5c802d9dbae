"""The options of ``nano-generate`` around pictures: start from one, repeat one, vary one, many on a sheet, previews."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nano_runtime.bundle.folder import DEMO
from nano_runtime.cli import generate
from nano_runtime.pictures.png import read_parameters

Generate = Callable[..., int]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def run(fp32, place) -> Generate:
    """The command in this process, with the tiny bundle unless another is named."""
    assert place.is_dir()

    def run(*arguments: object, bundle: Path | None = fp32) -> int:
        named = [] if bundle is None else ["--bundle", bundle]
        return generate.main([*map(str, (*arguments, *named)), "--backend", "onnxruntime"])

    return run


@pytest.fixture
def photo(tmp_path) -> Path:
    """A picture of another size than the bundle's."""
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(values).resize((300, 200)).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_picture_is_drawn_from_a_file_and_repeated_from_it(run, photo, place, tmp_path, capsys):
    mask = tmp_path / "mask.png"
    Image.linear_gradient("L").resize((300, 200)).save(mask)
    edit, few = ["--image", photo, "--mask", mask], ["--steps", 4, "--scheduler", "pndm"]
    assert run("a fox", *edit, "--strength", 0.7, *few, "--seed", 3, "-o", "a.png", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["unet_calls"], report["images"][0]["strength"], report["images"][0]["masked"]) == (3, 0.7, True)
    assert run("--from", "a.png", *edit, "-o", "b.png") == 0
    assert "warning" not in capsys.readouterr().err
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    assert read_parameters("a.png") == read_parameters("b.png")

    assert run("--from", "a.png", "--image", photo, "-o", "c.png") == 0  # without its mask
    assert "drawn from another picture or mask" in capsys.readouterr().err
    assert run("--from", "a.png", "-o", "d.png") == 2
    assert "a.png was drawn from another picture, which it does not hold" in capsys.readouterr().err
    assert sorted(path.name for path in place.iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_repeated_picture_is_the_same_but_for_what_is_said(run, capsys):
    said = ["--steps", 3, "--scheduler", "euler_a", "--guidance", 3, "--negative-prompt", "blurry", "--seed", 8]
    assert run("a fox", *said, "--variation-seed", 1, "--variation-strength", 0.3, "-o", "a.png") == 0
    assert run("--from", "a.png", "-o", "b.png") == 0
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    assert run("an owl", "--from", "a.png", "--steps", 2, "-o", "c.png") == 0
    first, changed = read_parameters("a.png").as_dict(), read_parameters("c.png").as_dict()
    assert {key: value for key, value in changed.items() if first[key] != value} == {"prompt": "an owl", "steps": 2}
    assert np.abs(pixels("a.png") - pixels("c.png")).max() > 10
    assert "warning" not in capsys.readouterr().err


def test_a_picture_of_another_bundle_is_refused_unless_one_is_named(run, int8, place, capsys):
    assert run("a fox", "--steps", 1, "-o", "a.png") == 0
    capsys.readouterr()
    assert run("--from", "a.png", "-o", "b.png", bundle=None) == 2
    error = capsys.readouterr().err
    assert f"a.png was drawn by the bundle tiny ({read_parameters('a.png').bundle_digest[:10]})" in error
    assert str(DEMO) in error
    assert [path.name for path in place.iterdir()] == ["a.png"]
    assert run("--from", "a.png", "-o", "b.png", bundle=int8) == 0
    assert "the picture will be another" in capsys.readouterr().err


def test_variations_are_siblings_of_the_seeds_picture(run, capsys):
    few = ["--steps", 2, "--seed", 5, "--scheduler", "ddim"]
    assert run("a fox", *few, "-o", "own.png") == 0
    assert run("a fox", *few, "--variation-strength", 0.05, "--variation-seed", 9, "-n", 2, "-o", "near.png") == 0
    assert run("a fox", *few, "--variation-strength", 1, "--variation-seed", 9, "-o", "far.png") == 0
    assert run("a fox", *few[:2], "--seed", 9, *few[4:], "-o", "other.png") == 0
    assert [read_parameters(f"near-{i}.png").options.variation_seed for i in (1, 2)] == [9, 10]
    assert [read_parameters(f"near-{i}.png").options.seed for i in (1, 2)] == [5, 5]
    own, far, other = pixels("own.png"), pixels("far.png"), pixels("other.png")
    near, sibling = pixels("near-1.png"), pixels("near-2.png")
    assert 0 < np.abs(near - own).mean() < np.abs(far - own).mean() / 3
    assert 0 < np.abs(near - sibling).mean() < np.abs(far - own).mean() / 3
    assert np.abs(far - other).mean() < np.abs(far - own).mean() / 3  # the other's noise, in the own magnitude
    assert "Variation seed: 9, Variation seed strength: 0.05, " in read_parameters("near-1.png").as_text()
    capsys.readouterr()


def test_a_grid_holds_the_pictures_that_its_values_draw(run, place, capsys):
    axes = ["--grid", "steps=1,3,2", "--grid", "scheduler=ddim,euler"]
    assert run("a fox", *axes, "--seed", 4, "-o", "grid.png", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [(one["steps"], one["scheduler"]) for one in report["images"]] == [
        (steps, name) for name in ("ddim", "euler") for steps in (1, 3, 2)
    ]
    assert {one["path"] for one in report["images"]} == {"grid.png"}
    assert report["unet_calls"] == 12
    assert run("a fox", "--steps", 3, "--scheduler", "euler", "--seed", 4, "-o", "one.png") == 0
    sheet, one = pixels("grid.png"), pixels("one.png")
    height, width, _ = sheet.shape
    cell = sheet[height - 128 :, width - 256 : width - 128]  # the second column of the second row
    np.testing.assert_array_equal(cell, one)
    assert np.abs(sheet[height - 256 : height - 128, width - 256 : width - 128] - one).max() > 5
    assert sorted(path.name for path in place.iterdir()) == ["grid.png", "one.png"]


def test_a_grid_without_a_seed_draws_one_seed_everywhere(run, capsys):
    assert run("a fox", "--steps", 1, "--grid", "variation-strength=0,0.1", "--json") == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert images[0]["seed"] == images[1]["seed"]
    assert [image["variation_strength"] for image in images] == [None, 0.1]


def test_a_preview_is_there_while_the_picture_is_drawn(run, place, monkeypatch, capsys):
    seen = []
    replace = Path.replace

    def watching(self: Path, target: Path) -> Path:
        done = replace(self, target)
        if Path(target).name == "now.png":
            seen.append(pixels(target))
        return done

    monkeypatch.setattr(Path, "replace", watching)
    assert run("a fox", "--steps", 3, "--scheduler", "ddim", "-n", 2, "--preview", "now.png", "-o", "fox.png") == 0
    assert len(seen) == 3
    assert [image.shape for image in seen] == [(128, 256, 3)] * 3
    assert not np.array_equal(seen[0], seen[2])
    assert sorted(path.name for path in place.iterdir()) == ["fox-1.png", "fox-2.png", "now.png"]
    capsys.readouterr()


BAD = {
    "no prompt": ([], "there is no prompt"),
    "a picture that is missing": (["x", "--image", "nowhere.png"], "nowhere.png cannot be opened: No such file"),
    "a picture that is none": (["x", "--image", "{text}"], "it is none of PNG, JPEG, WEBP"),
    "a mask that is none": (["x", "--image", "{photo}", "--mask", "{text}"], "it is none of PNG, JPEG, WEBP"),
    "a mask without a picture": (["x", "--mask", "{photo}"], "--mask means nothing without --image"),
    "a strength without a picture": (["x", "--strength", "0.5"], "--strength means nothing without --image"),
    "a mask of another size": (["x", "--image", "{photo}", "--mask", "{small}"], "the mask has 8 x 8 pixels"),
    "no strength": (["x", "--image", "{photo}", "--strength", "0"], "the strength 0.0 cannot be used"),
    "too much strength": (["x", "--image", "{photo}", "--strength", "1.5"], "the strength 1.5 cannot be used"),
    "a strength of no step": (
        ["x", "--image", "{photo}", "--strength", "0.1", "--steps", "4"],
        "the strength 0.1 cannot be used",
    ),
    "a variation of nothing": (["x", "--variation-seed", "1"], "--variation-seed means nothing without --var"),
    "too much variation": (["x", "--variation-strength", "1.1"], "the variation strength 1.1 cannot be used"),
    "no such variation": (
        ["x", "--variation-strength", "0.1", "--variation-seed", "-1"],
        "the seed -1 is out of range",
    ),
    "a picture without parameters": (["--from", "{small}"], "holds no drawing parameters"),
    "three axes": (
        ["x", "--grid", "steps=1", "--grid", "seed=1", "--grid", "guidance=1"],
        "steps seed guidance",
    ),
    "an axis twice": (["x", "--grid", "steps=1", "--grid", "steps=2"], "--grid 'steps steps' cannot be used"),
    "a grid of several": (["x", "--grid", "steps=1,2", "-n", "2"], "--grid and --count exclude each other"),
    "a grid whose last place is impossible": (["x", "--grid", "steps=1,2,0"], "0 steps cannot be run"),
    "a preview that is a folder": (["x", "--preview", "."], "is not the name of a PNG file"),
    "a preview that is no PNG": (["x", "--preview", "now.jpg"], "now.jpg is not the name of a PNG file"),
    "a preview that exists": (["x", "--preview", "{small}"], "exists already"),
}


@pytest.fixture
def files(tmp_path, photo) -> dict[str, Path]:
    """What the cases above mention."""
    files = {"photo": photo, "text": tmp_path / "text.png", "small": tmp_path / "small.png"}
    files["text"].write_text("not a picture")
    Image.new("L", (8, 8)).save(files["small"])
    return files


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_two_lines_and_leaves_nothing(case, run, files, place, capsys):
    arguments, words = BAD[case]
    assert run(*(argument.format(**files) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    error = [line for line in err.splitlines() if "UNet calls" not in line]  # the plan, told before
    assert out == ""
    assert error[0].startswith("nano-generate: ")
    assert words in error[0]
    assert len(error) == 2
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("axis", ["steps", "steps=", "steps=1,,2", "prompt=a,b", "steps=1.5", "=1", "guidance=two"])
def test_a_malformed_axis_is_a_malformed_command_line(axis, run, place, capsys):
    assert run("x", "--grid", axis) == 2
    assert axis in capsys.readouterr().err
    assert list(place.iterdir()) == []
