"""Pictures of other programs are repeated as far as they can be, and the command says what is left out.

The texts are what the programs write: A1111's ``create_infotext``, ``get_image_params`` of stable-diffusion.cpp,
nodes that save ComfyUI's pictures for Civitai, and InvokeAI's metadata of 2.x and since 3.0.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tests.runtime.test_png import OPTIONS, PARAMETERS

from nano_runtime.cli import generate
from nano_runtime.errors import NoParametersError
from nano_runtime.pictures.foreign import foreign_of
from nano_runtime.pictures.picture_files import save_picture
from nano_runtime.pictures.png import read_foreign, read_parameters

A1111 = (
    "a castle on a (hill:1.2)\nsecond line\nNegative prompt: blurry, ugly\nSteps: 20, Sampler: DPM++ 2M, "
    "Schedule type: Karras, CFG scale: 7, Seed: 12345, Size: 512x768, Model hash: abc123def, Model: dreamshaper_8, "
    'Variation seed: 9, Variation seed strength: 0.2, Clip skip: 2, Lora hashes: "castle: dead, other: beef", '
    "Version: v1.10.1"
)
HIRES = (
    "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Denoising strength: 0.7, "
    "Hires upscale: 2, Hires upscaler: Latent, Version: v1.6.0"
)
IMG2IMG = (
    "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Denoising strength: 0.7, Version: v1.6.0"
)
SD_CPP = (
    "A sunflower field\nNegative prompt: Blue sky\nSteps: 30, CFG scale: 5.000000, Guidance: 3.500000, Eta: 0.000000, "
    "Seed: 1375127038, Size: 512x512, Model: v1-5-pruned-emaonly.safetensors, RNG: cuda, Sampler: dpm++2m karras, "
    "Version: stable-diffusion.cpp"
)
COMFY = (
    "a fox\nNegative prompt: \nSteps: 20, Sampler: dpmpp_2m_karras, CFG scale: 8.0, Seed: 156680208700286, "
    "Size: 512x512, Model hash: 6ce0161689, Model: v1-5, Version: ComfyUI, Civitai resources: "
    '[{"modelName":"Generic","air":"urn:air:sd1:checkpoint:civitai:1@2"}]'
)
INVOKE = {
    "app_version": "3.4.0",
    "generation_mode": "txt2img",
    "positive_prompt": "a castle on a hill",
    "negative_prompt": "blurry",
    "width": 512,
    "height": 512,
    "seed": 42,
    "cfg_scale": 7.5,
    "steps": 30,
    "scheduler": "euler_a",
    "clip_skip": 0,
    "model": {"model_name": "stable-diffusion-v1-5", "base_model": "sd-1"},
}
OLD_INVOKE = {
    "model": "stable diffusion",
    "model_weights": "stable-diffusion-1.5",
    "app_id": "invoke-ai/InvokeAI",
    "app_version": "2.3.5",
    "image": {
        "prompt": [{"prompt": "a lonely robot reading a book [blurry, text]", "weight": 1.0}],
        "steps": 50,
        "cfg_scale": 7.5,
        "seed": 1618033988,
        "type": "txt2img",
        "postprocessing": None,
        "sampler": "k_lms",
        "variations": [],
    },
}


def asked(foreign) -> tuple[object, ...]:
    of = foreign.options
    return of.prompt, of.negative_prompt, of.num_inference_steps, of.scheduler, of.guidance_scale, of.seed


@pytest.mark.parametrize(
    ("texts", "program", "model", "expected"),
    [
        ({"parameters": A1111}, "AUTOMATIC1111's web UI v1.10.1", "dreamshaper_8",
         ("a castle on a (hill:1.2)\nsecond line", "blurry, ugly", 20, "dpmpp_2m_karras", 7.0, 12345)),
        ({"parameters": SD_CPP}, "stable-diffusion.cpp", "v1-5-pruned-emaonly.safetensors",
         ("A sunflower field", "Blue sky", 30, "dpmpp_2m_karras", 5.0, 1375127038)),
        ({"parameters": COMFY, "prompt": "{}", "workflow": "{}"}, "ComfyUI", "v1-5",
         ("a fox", "", 20, "dpmpp_2m_karras", 8.0, 156680208700286)),
        ({"invokeai_metadata": json.dumps(INVOKE)}, "InvokeAI", "stable-diffusion-v1-5",
         ("a castle on a hill", "blurry", 30, "euler_a", 7.5, 42)),
        ({"sd-metadata": json.dumps(OLD_INVOKE)}, "InvokeAI", "stable-diffusion-1.5",
         ("a lonely robot reading a book", "blurry, text", 50, "lms", 7.5, 1618033988)),
    ],
)  # fmt: skip
def test_what_others_write_is_read(texts, program, model, expected):
    found = foreign_of(texts)
    assert found is not None
    assert (found.program, found.model, found.edited) == (program, model, False)
    assert asked(found) == expected
    assert found.left_out == (("Clip skip: 2",) if program.startswith("AUTO") else ())


def test_weights_and_variations_of_the_web_ui_are_kept():
    found = foreign_of({"parameters": A1111})
    assert found is not None
    of = found.options
    assert (of.prompt_weighting, of.long_prompts, of.variation_seed, of.variation_strength) == (True, True, 9, 0.2)
    plain = foreign_of({"parameters": HIRES})
    assert plain is not None
    assert not plain.options.prompt_weighting


@pytest.mark.parametrize(
    ("sampler", "expected", "left_out"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m_karras", ()),
        ("Euler a", "euler_a", ()),
        ("euler_ancestral_normal", "euler_a", ()),
        ("euler_a discrete", "euler_a", ()),
        ("PLMS", "pndm", ()),
        ("DDIM, Eta DDIM: 1", "ddim_a", ()),
        ("DDIM", "ddim", ()),
        ("Euler, Schedule type: Automatic", "euler", ()),
        ("Euler, Schedule type: SGM Uniform", "euler", ("Schedule type: SGM Uniform",)),
        ("DPM++ SDE", None, ("Sampler: DPM++ SDE",)),
    ],
)
def test_samplers_by_the_names_of_others(sampler, expected, left_out):
    found = foreign_of({"parameters": f"a cat\nSteps: 20, Sampler: {sampler}, CFG scale: 7, Seed: 1, Version: v1.6.0"})
    assert found is not None
    assert (found.options.scheduler, found.left_out) == (expected, left_out)


def test_an_enlarged_picture_is_none_that_was_drawn_from_a_picture():
    enlarged, edited = (foreign_of({"parameters": text}) for text in (HIRES, IMG2IMG))
    assert enlarged is not None
    assert edited is not None
    assert (enlarged.edited, enlarged.options.strength) == (False, None)
    assert enlarged.left_out == ("Hires upscale: 2", "Hires upscaler: Latent")
    assert (edited.edited, edited.options.strength) == (True, 0.7)


def test_weights_that_nobody_here_reads_are_named():
    found = foreign_of({"invokeai_metadata": json.dumps({**INVOKE, "positive_prompt": "a red++ fox"})})
    assert found is not None
    assert found.left_out == ("the weights in its prompt",)


@pytest.mark.parametrize(
    "options", [{}, {"scheduler": "ddim_a"}, {"prompt_weighting": True, "prompt": "a (red:1.3) fox"}]
)
def test_our_own_text_is_read_too_where_the_rest_was_lost(options: dict[str, Any]):
    written = replace(PARAMETERS, options=replace(OPTIONS, **options))
    found = foreign_of({"parameters": written.as_text()})
    assert found is not None
    of = written.options
    assert asked(found) == (of.prompt, "blurry", 20, of.scheduler, 7.5, 2**64 - 1)


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {"parameters": "a cat"},
        {"parameters": ""},
        {"prompt": '{"3": {"class_type": "KSampler"}}'},
        {"Comment": "hello"},
    ],
)
def test_other_texts_are_of_no_program(texts):
    assert foreign_of(texts) is None


@pytest.mark.parametrize(
    "texts",
    [
        {"invokeai_metadata": "{"},
        {"invokeai_metadata": "[]"},
        {"invokeai_metadata": '{"steps": "many"}'},
        {"invokeai_metadata": '{"positive_prompt": 3}'},
        {"sd-metadata": '{"image": 3}'},
        {"sd-metadata": '{"image": {"prompt": [3], "seed": "seven"}}'},
        {"invokeai_metadata": '{"a":' * 100_000},
        {"parameters": "a cat\nSteps: many, Sampler: Euler, CFG scale: 7, Seed: 1"},
        {"parameters": "a cat\nSteps: 20, Sampler: Euler, CFG scale: big, Seed: 1"},
        {"parameters": "a cat\nSteps: 20, Sampler: Euler, CFG scale: nan, Seed: " + "9" * 5000},
    ],
)
def test_damaged_texts_are_told(tmp_path, texts):
    chunks = PngInfo()
    for name, text in texts.items():
        chunks.add_itxt(name, text)
    Image.new("RGB", (8, 8)).save(tmp_path / "odd.png", pnginfo=chunks)
    with pytest.raises(NoParametersError, match=r"odd\.png"):
        read_foreign(tmp_path / "odd.png")


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_the_text_in_exif_is_read(tmp_path, suffix):
    path = tmp_path / f"fox.{suffix}"
    save_picture(Image.new("RGB", (16, 16)), path, PARAMETERS)
    assert read_parameters(path) == PARAMETERS
    assert asked(read_foreign(path))[3:] == ("dpmpp_2m", 7.5, 2**64 - 1)


def test_the_command_repeats_it_and_says_what_is_left_out(tmp_path, capsys):
    chunks = PngInfo()
    chunks.add_text("parameters", A1111.replace("castle", "rocket"))
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=chunks)
    arguments = ["--from", str(tmp_path / "theirs.png"), "--steps", "1", "--no-cache", "-o", str(tmp_path / "ours.png")]
    assert generate.main(arguments) == 0
    said = capsys.readouterr().err
    assert "was drawn by AUTOMATIC1111's web UI v1.10.1 with dreamshaper_8; demo draws another picture" in said
    assert "left out: Clip skip: 2" in said
    of = read_parameters(tmp_path / "ours.png").options
    assert (of.seed, of.num_inference_steps, of.scheduler, of.prompt_weighting) == (12345, 1, "dpmpp_2m_karras", True)
    with Image.open(tmp_path / "ours.png") as picture:
        assert np.asarray(picture).shape == (128, 128, 3)


def test_a_picture_that_was_drawn_from_a_picture_asks_for_it(tmp_path, capsys):
    chunks = PngInfo()
    chunks.add_text("parameters", IMG2IMG)
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=chunks)
    assert generate.main(["--from", str(tmp_path / "theirs.png"), "-o", str(tmp_path / "ours.png")]) == 2
    assert "--image" in capsys.readouterr().err
