"""One record of picture options: calls, the command line, sheets and PNG files have the same ones."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np
import pytest
from PIL import Image
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime.arrays import F32
from nano_runtime.cli.grid import GRID_OPTIONS, Axis, cells, parse_axis
from nano_runtime.cli.parser import number
from nano_runtime.cli.picture_flags import FLAGS
from nano_runtime.options import DrawKeywords, DrawOptions, stored_options
from nano_runtime.pictures.parameters import Parameters
from nano_runtime.pictures.png import read_parameters, save_png

NAMES = {field.name for field in fields(DrawOptions)}
# A value of each option that a file holds, none of them the default.
STORED: dict[str, Any] = {
    "prompt": "ein roter Fuchs 🦊",
    "negative_prompt": "blurry",
    "num_inference_steps": 3,
    "guidance_scale": 2.5,
    "seed": 2**64 - 1,
    "scheduler": "euler_a",
    "height": 32,
    "width": 64,
    "prompt_weighting": True,
    "long_prompts": True,
    "keep_unmasked": True,
    "mask_blur": 2.5,
    "strength": 0.75,
    "image_guidance_scale": 1.25,
    "variation_seed": 9,
    "variation_strength": 0.25,
    "cache_interval": 2,
    "guidance_interval": (0.25, 0.75),
}
DRAWN_BY: dict[str, Any] = {
    "bundle": "a",
    "bundle_digest": "0" * 64,
    "backend": "openvino",
    "precision": "f32",
    "version": "0.1.0",
}


def hints_of(kind: type) -> dict[str, Any]:
    """The types of a record, with the names that it imports for type checkers only."""
    return get_type_hints(kind, None, {"Image": Image.Image, "F32": F32})


def test_keywords_are_the_fields_of_the_record_but_for_the_prompt():
    record, keywords = hints_of(DrawOptions), hints_of(DrawKeywords)
    assert keywords == {name: kind for name, kind in record.items() if name != "prompt"}
    assert list(keywords) == [field.name for field in fields(DrawOptions)][1:]
    assert DrawKeywords.__required_keys__ == frozenset()
    assert {**keywords, "seed": str} != {name: kind for name, kind in record.items() if name != "prompt"}  # can fail


def test_every_field_is_documented():
    documented = {line.split(":")[0].strip() for line in str(DrawOptions.__doc__).splitlines() if line[:9].strip()}
    assert documented >= NAMES
    assert "nonsense" not in documented


def test_a_name_that_is_no_option_is_a_type_error(hoisted):
    pipe: Any = pipeline_of(FakeGraphs(hoisted))
    for call in (pipe, pipe.plan, lambda *args, **more: next(pipe.stream(*args, **more))):
        for prompt in ("a red fox", DrawOptions(prompt="a red fox")):
            with pytest.raises(TypeError, match="steps"):
                call(prompt, steps=3)


def test_keywords_beside_a_record_replace_its_fields_and_only_those():
    record = DrawOptions(prompt="a fox", seed=7, guidance_scale=2)
    changed = DrawOptions.of(record, seed=8)
    assert (changed.prompt, changed.seed, changed.guidance_scale) == ("a fox", 8, 2)
    assert record.seed == 7
    assert DrawOptions.of(record) == record
    assert DrawOptions.of("an owl", seed=8) == DrawOptions(prompt="an owl", seed=8)


def test_every_stored_option_survives_the_json_of_a_file():
    assert set(STORED) == set(stored_options())
    defaults = DrawOptions()
    assert [name for name, value in STORED.items() if getattr(defaults, name) == value] == []
    drawn = Parameters(DrawOptions(**STORED), **DRAWN_BY)
    again = Parameters.from_json(drawn.as_json())
    assert again == drawn
    assert {name: getattr(again.options, name) for name in STORED} == STORED


@pytest.mark.parametrize("name", STORED)
def test_an_option_that_is_missing_in_a_file_has_its_old_meaning_or_is_refused(name):
    written = json.loads(Parameters(DrawOptions(**STORED), **DRAWN_BY).as_json())
    del written["steps" if name == "num_inference_steps" else name]
    later = {
        "prompt_weighting": False,
        "long_prompts": False,
        "keep_unmasked": False,
        "mask_blur": 0.0,
        "strength": None,
        "image_guidance_scale": None,
        "variation_seed": None,
        "variation_strength": None,
        "cache_interval": 1,
        "guidance_interval": (0.0, 1.0),
    }
    if name in later:  # files of earlier releases lack it
        assert getattr(Parameters.from_json(json.dumps(written).encode()).options, name) == later[name]
    else:
        with pytest.raises(ValueError, match="missing"):
            Parameters.from_json(json.dumps(written).encode())


def test_a_file_may_know_more_but_not_other_types():
    written = json.loads(Parameters(DrawOptions(**STORED), **DRAWN_BY).as_json())
    assert Parameters.from_json(json.dumps({**written, "nonsense": 2}).encode()).options == DrawOptions(**STORED)
    for change in ({"seed": "7"}, {"steps": 2.5}, {"guidance_interval": [1]}, {"prompt": None}):
        with pytest.raises(ValueError, match=next(iter(change))):
            Parameters.from_json(json.dumps({**written, **change}).encode())


def test_every_flag_names_a_field_and_every_field_has_a_flag_but_those_for_programs():
    flagged = [flag.field for flag in FLAGS]
    assert len(set(flagged)) == len(flagged)
    assert set(flagged) <= NAMES
    assert NAMES - set(flagged) == {"prompt", "latents", "output_type"}


def test_sheets_vary_the_flags_that_say_so():
    on_sheets = [flag for flag in FLAGS if flag.on_sheets]
    assert [flag.option for flag in on_sheets] == list(GRID_OPTIONS)
    assert {"steps", "guidance", "scheduler", "seed", "strength"} <= set(GRID_OPTIONS)
    for flag in on_sheets:
        value = "2" if flag.read is number else "ddim"
        axis = parse_axis(f"{flag.option}={value}")
        assert (axis.field, axis.values) == (flag.field, (flag.read(value),))
        (cell,) = cells(DrawOptions(prompt="a fox"), [axis])
        assert getattr(cell, flag.field) == flag.read(value)


def test_places_of_a_sheet_differ_in_their_options_alone():
    across, down = Axis("steps", (2, 3)), Axis("guidance", (1.0, 5.0))
    places = list(cells(DrawOptions(prompt="a fox"), [across, down]))
    told = [(place.num_inference_steps, place.guidance_scale) for place in places]
    assert told == [(2, 1.0), (3, 1.0), (2, 5.0), (3, 5.0)]
    assert len({place.seed for place in places}) == 1
    assert places[0].seed is not None
    assert [label for axis in (across, down) for label in axis.labels] == [
        "steps 2",
        "steps 3",
        "guidance 1",
        "guidance 5",
    ]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"negative_prompt": "blurry", "guidance_scale": 1.5, "scheduler": "euler_a", "num_inference_steps": 3},
        {"quality": "balanced"},
        {"cache_interval": 2, "guidance_interval": (0.25, 0.75)},
        {"variation_seed": 5, "variation_strength": 0.2, "num_images_per_prompt": 3},
        {"prompt": ["a red fox", "an (owl:1.2)"], "prompt_weighting": True, "long_prompts": True},
        {"seed": None},
    ],
    ids=str,
)
def test_a_picture_drawn_again_from_its_file_is_the_same(hoisted, tmp_path, asked):
    pipe = pipeline_of(FakeGraphs(hoisted))
    result = pipe(DrawOptions(**{"prompt": "a red fox", "seed": 7, **asked}))
    for image, parameters in zip(result.images, result.parameters, strict=True):
        save_png(image, tmp_path / "a.png", parameters)
        read = read_parameters(tmp_path / "a.png")
        assert read.as_json() == parameters.as_json()
        again = pipe(read.repeated())
        np.testing.assert_array_equal(np.asarray(again.images[0]), np.asarray(image))
        assert again.parameters[0].as_json() == parameters.as_json()
        other = pipe(read.repeated(), seed=0)
        assert np.asarray(other.images[0]).tobytes() != np.asarray(image).tobytes()


def test_parameters_name_what_drew_the_picture(hoisted):
    (drawn,) = pipeline_of(FakeGraphs(hoisted, "openvino"))("a red fox", seed=7, output_type="latent").parameters
    assert (drawn.bundle, drawn.bundle_digest) == ("formulas", hoisted.digest)
    assert (drawn.backend, drawn.precision, drawn.edited, drawn.masked) == ("openvino", "f32", None, False)
    of = drawn.options
    assert (of.num_inference_steps, of.scheduler, of.guidance_scale, of.height, of.width) == (4, "ddim", 3.0, 32, 32)
    assert drawn.repeated().height is None
