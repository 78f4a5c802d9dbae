"""``Result.save``: one call writes every picture of a call with what it takes to draw it again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.results import arrays
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime import Progress, Result, read_parameters
from nano_runtime.errors import NoParametersError, OptionError, OutputError

ASKED: dict[str, Any] = {"seed": 7, "num_inference_steps": 2}


@pytest.fixture
def pipe(hoisted):
    return pipeline_of(FakeGraphs(hoisted))


@pytest.mark.parametrize("name", ["fox.png", "fox.PNG", "fox.webp", "fox.jpg"])
def test_one_picture_has_the_name_and_its_parameters(pipe, tmp_path, name):
    result = pipe("a red fox", **ASKED)
    assert result.save(tmp_path / name) == [tmp_path / name]
    assert read_parameters(tmp_path / name) == result.parameters[0]
    with Image.open(tmp_path / name) as picture:
        assert picture.size == result.images[0].size
        assert name.endswith("jpg") or np.array_equal(np.asarray(picture), np.asarray(result.images[0]))
    result.images[0].save(tmp_path / "pillow.png")
    with Image.open(tmp_path / "pillow.png") as picture:
        assert not picture.info


def test_what_was_saved_is_drawn_again(pipe, tmp_path):
    result = pipe("a red fox", negative_prompt="blurry", scheduler="euler_a", **ASKED)
    result.save(str(tmp_path / "fox.png"))
    again = pipe(read_parameters(tmp_path / "fox.png").repeated())
    assert np.array_equal(again.images[0], result.images[0])
    other = pipe("a red fox", scheduler="euler_a", **ASKED)
    assert not np.array_equal(other.images[0], result.images[0])


def test_several_are_numbered_by_their_place_in_the_call(pipe, tmp_path):
    for event in pipe.stream("a red fox", num_images_per_prompt=3, **ASKED):
        if isinstance(event, Progress) and event.step_index == 0:
            event.cancel(1)
    assert isinstance(event, Result)
    assert event.save(tmp_path / "fox.png") == [tmp_path / "fox-1.png", tmp_path / "fox-3.png"]
    assert [read_parameters(tmp_path / f"fox-{place}.png").options.seed for place in (1, 3)] == [7, 9]


def test_a_prompt_that_fits_into_no_jpeg_is_left_out_with_a_warning(pipe, tmp_path, caplog):
    result = pipe("a red fox " * 1900, negative_prompt="blurry " * 2700, **ASKED)
    result.save(tmp_path / "fox.webp")
    assert read_parameters(tmp_path / "fox.webp") == result.parameters[0]
    caplog.clear()
    result.save(tmp_path / "fox.jpg")
    assert "so long a prompt" in caplog.text
    with pytest.raises(NoParametersError, match=r"fox\.jpg"):
        read_parameters(tmp_path / "fox.jpg")


def test_arrays_are_pictures_and_latents_are_none(pipe, tmp_path):
    result = pipe("a red fox", output_type="np", **ASKED)
    result.save(tmp_path / "fox.png")
    with Image.open(tmp_path / "fox.png") as picture:
        assert np.array_equal(np.asarray(picture), (arrays(result)[0] * 255).round().astype(np.uint8))
    with pytest.raises(OptionError, match="latents are no pictures"):
        pipe("a red fox", output_type="latent", **ASKED).save(tmp_path / "latents.png")
    assert not (tmp_path / "latents.png").exists()


@pytest.mark.parametrize("name", ["fox", "fox.gif", "", None, 7, "fox\0.png"])
def test_a_name_that_is_no_pictures_is_refused(pipe, tmp_path, name):
    with pytest.raises(OptionError, match="path"):
        pipe("a red fox", **ASKED).save(name if not isinstance(name, str) else str(tmp_path / name))


def test_a_folder_that_is_missing_is_named(pipe, tmp_path):
    with pytest.raises(OutputError, match="missing"):
        pipe("a red fox", **ASKED).save(tmp_path / "missing" / "fox.png")
