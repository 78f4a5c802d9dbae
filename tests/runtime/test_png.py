"""Pixels are diffusers' pixels, and a PNG remembers how it was drawn."""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from nano_runtime.errors import NoParametersError, OutputError
from nano_runtime.errors.escaping import escaped
from nano_runtime.networks.weighting import Fragment, parse
from nano_runtime.options import DrawOptions
from nano_runtime.pictures.parameters import Parameters
from nano_runtime.pictures.pixels import to_pil, to_uint8, to_unit_range
from nano_runtime.pictures.png import read_parameters, save_png

OPTIONS = DrawOptions(
    prompt="ein roter Fuchs 🦊",
    negative_prompt="blurry",
    seed=2**64 - 1,
    num_inference_steps=20,
    scheduler="dpmpp_2m",
    guidance_scale=7.5,
    height=128,
    width=128,
    cache_interval=1,
    guidance_interval=(0.0, 1.0),
)
PARAMETERS = Parameters(
    OPTIONS,
    bundle="nano",
    bundle_digest="0123456789abcdef" * 4,
    backend="openvino",
    precision="f32",
    version="0.1.0",
)


def changed(**options) -> Parameters:
    return replace(PARAMETERS, options=replace(OPTIONS, **options))


@pytest.fixture
def picture():
    return to_pil(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3))


def test_known_values_become_known_pixels():
    decoded = np.array([-1.5, -1, -0.5, 0, 0.25, 1, 1.5], np.float32).reshape(1, 1, 1, 7).repeat(3, axis=1)
    pixels = to_uint8(to_unit_range(decoded))
    # 0.25 * 255 = 63.75, 0.5 * 255 = 127.5 (half to even: 128), 0.625 * 255 = 159.375
    assert pixels[0, 0, :, 0].tolist() == [0, 0, 64, 128, 159, 255, 255]


def test_channels_move_last():
    decoded = np.zeros((2, 3, 4, 5), np.float32)
    decoded[:, 1] = 1
    unit = to_unit_range(decoded)
    assert unit.shape == (2, 4, 5, 3)
    assert unit[0, 0, 0].tolist() == [0.5, 1, 0.5]


def test_every_pixel_value_survives_the_round_trip():
    pixels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(pixels.astype(np.float32) / np.float32(255)), pixels)


def test_a_png_holds_pixels_and_parameters(tmp_path, picture):
    save_png(picture, tmp_path / "a.png", PARAMETERS)
    assert read_parameters(tmp_path / "a.png") == PARAMETERS
    with Image.open(tmp_path / "a.png") as again:
        assert np.array_equal(np.asarray(again), np.asarray(picture))
        assert again.info["parameters"] == (
            "ein roter Fuchs 🦊\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 7.5, "
            "Seed: 18446744073709551615, Size: 128x128, Model hash: 0123456789, Model: nano, "
            "Version: nano-runtime 0.1.0"
        )


def test_what_earlier_releases_stored_is_still_read(tmp_path, picture):
    """A picture has fields for edits and variations only since there are such."""
    later = ("edited", "strength", "masked", "variation_seed", "variation_strength", "interrupted_after")
    chunks = PngInfo()
    chunks.add_itxt("nano", json.dumps({key: value for key, value in PARAMETERS.as_dict().items() if key not in later}))
    picture.save(tmp_path / "old.png", pnginfo=chunks)
    assert read_parameters(tmp_path / "old.png") == PARAMETERS


def test_viewers_are_told_of_edits_and_variations_in_their_words():
    text = changed(strength=0.6, variation_seed=3, variation_strength=0.25).as_text()
    assert ", Denoising strength: 0.6, Variation seed: 3, Variation seed strength: 0.25, Model hash: 01" in text


def test_viewers_are_told_of_what_was_left_out_and_of_ancestral_ddim():
    text = changed(scheduler="ddim_a", cache_interval=3, guidance_interval=(0.0, 0.4)).as_text()
    assert ", Sampler: DDIM, " in text
    assert ", Eta DDIM: 1, Cache interval: 3, Guidance interval: 0-0.4, Model hash: 01" in text
    assert not any(word in PARAMETERS.as_text() for word in ("Eta", "interval"))


ITEM = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')  # the web UI's, modules/infotext_utils.py


@pytest.mark.parametrize(
    "name",
    [
        "x, Seed: 666, Size: 8192x8192, Model hash: deadbeef00, VAE: http://evil/x.ckpt",
        'x", Seed: 666, VAE: "',
        "x\\",
        "x: y",
        "x\nSteps: 1, Seed: 666, Size: 1x1, Model: z",
        "x\u2028, Seed: 666",
    ],
)
def test_a_bundles_name_is_one_value_to_those_who_read_the_text(name):
    """Reference: how the web UI finds the items, and unquotes a value that begins with a quote."""
    *_, line = replace(PARAMETERS, bundle=name).as_text().split("\n")
    items = ITEM.findall(line)
    plain = [key for key, _ in ITEM.findall(PARAMETERS.as_text().split("\n")[-1])]
    assert [key for key, _ in items] == plain
    value = dict(items)["Model"]
    assert (json.loads(value) if value.startswith('"') else value) == escaped(name)
    assert dict(items)["Seed"] == str(PARAMETERS.options.seed)


def test_a_prompt_is_not_taken_for_the_negative_one():
    first, second, _ = changed(prompt="Negative prompt: fur", negative_prompt="red").as_text().split("\n")
    assert not first.strip().startswith("Negative prompt:")
    assert first.split() == ["Negative", "prompt:", "fur"]
    assert second == "Negative prompt: red"


@pytest.mark.parametrize("prompt", ["a (red:1.3) fox", "[snow]", "C:\\dir", r"a \(red\) fox", "((", "a red fox"])
def test_prompts_drawn_as_they_stand_are_written_so_that_no_weight_is_read(prompt):
    text, negative, _ = changed(prompt=prompt, negative_prompt=prompt).as_text().splitlines()
    assert parse(text) == ((Fragment(prompt, 1.0),),)
    assert negative == f"Negative prompt: {text}"


def test_prompts_drawn_with_weights_are_written_as_typed():
    text = changed(prompt="a (red:1.3) fox", prompt_weighting=True).as_text()
    assert text.splitlines()[0] == "a (red:1.3) fox"


def test_control_characters_reach_no_terminal(tmp_path, picture):
    nasty = changed(prompt="red\x1b[31m\nSteps: 1\x00")
    save_png(picture, tmp_path / "a.png", nasty)
    assert read_parameters(tmp_path / "a.png") == nasty
    with Image.open(tmp_path / "a.png") as again:
        assert again.info["parameters"].splitlines()[0] == r"red \[31m Steps: 1 "


def test_pictures_of_earlier_versions_can_be_read(tmp_path, picture):
    """Prompts were taken as they stand before there was a choice."""
    plain = changed(prompt_weighting=True, long_prompts=True)
    save_png(picture, tmp_path / "new.png", plain)
    assert read_parameters(tmp_path / "new.png") == plain
    with PngImageFile(tmp_path / "new.png") as image:
        older = json.loads(image.text["nano"])
    del older["prompt_weighting"], older["long_prompts"]
    chunks = PngInfo()
    chunks.add_itxt("nano", json.dumps(older))
    picture.save(tmp_path / "old.png", pnginfo=chunks)
    assert read_parameters(tmp_path / "old.png") == PARAMETERS


def test_without_metadata_the_file_says_nothing(tmp_path, picture):
    save_png(picture, tmp_path / "a.png", None)
    with Image.open(tmp_path / "a.png") as again:
        again.load()
        assert again.info == {}
    with pytest.raises(NoParametersError, match="nano"):
        read_parameters(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"], ids=["empty", "gif", "cut"])
def test_other_files_have_no_parameters(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(NoParametersError, match=r"a\.png"):
        read_parameters(tmp_path / "a.png")
    with pytest.raises(NoParametersError):
        read_parameters(tmp_path / "missing.png")


def test_hostile_pictures_have_no_parameters(tmp_path, picture):
    """30,000 pixels a side, and lists 100,000 deep; the warning is Pillow's, of a size below its limit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    chunks = PngInfo()
    chunks.add_itxt("nano", '{"x":' + "[" * 100_000 + "]" * 100_000 + "}")
    picture.save(tmp_path / "deep.png", pnginfo=chunks)
    for name in ("large.png", "deep.png"):
        with pytest.raises(NoParametersError, match=name):
            read_parameters(tmp_path / name)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, picture, monkeypatch):
    save_png(picture, tmp_path / "a.png", PARAMETERS)
    before = (tmp_path / "a.png").read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_png(picture, tmp_path / "a.png", None)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_folder_is_named(tmp_path, picture):
    with pytest.raises(OutputError, match="nowhere"):
        save_png(picture, tmp_path / "nowhere" / "a.png", None)


def test_the_longest_allowed_name_works(tmp_path, picture):
    path = tmp_path / ("ä" * 125 + ".png")  # 254 bytes, of 255 that Linux allows
    save_png(picture, path, None)
    assert path.is_file()
