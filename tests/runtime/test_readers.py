"""Programs that show how pictures were drawn read ours: sd-parsers, SD Prompt Reader's library, exiftool.

``make setup`` installs sd-parsers. The others are used where they are installed: SD Prompt Reader asks for a toolkit of
windows, exiftool is a Perl program (Debian: ``libimage-exiftool-perl``).
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tests.runtime.test_png import OPTIONS, PARAMETERS

from nano_runtime.pictures.picture_files import save_picture
from nano_runtime.pictures.png import MAKER_NOTE, USER_COMMENT

DRAWN = replace(
    PARAMETERS,
    options=replace(
        OPTIONS,
        prompt="a (red:1.3) fox, snow",
        prompt_weighting=True,
        negative_prompt="blurry, grey",
        scheduler="ddim_a",
        seed=7,
        cache_interval=3,
        guidance_interval=(0.0, 0.4),
    ),
)
SIZE = (128, 128)


@pytest.fixture(params=["png", "jpg", "webp"])
def picture(request, tmp_path) -> Path:
    path = tmp_path / f"fox.{request.param}"
    save_picture(Image.new("RGB", SIZE), path, DRAWN)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_the_texts_in_exif_have_the_type_that_readers_take(tmp_path, suffix):
    """UNDEFINED, 7; readers based on piexif find no text in BYTE, 1."""
    save_picture(Image.new("RGB", SIZE), tmp_path / f"fox.{suffix}", DRAWN)
    with Image.open(tmp_path / f"fox.{suffix}") as picture:
        exif = picture.info["exif"]
    order = "<" if exif[6:8] == b"II" else ">"
    for tag in (MAKER_NOTE, USER_COMMENT):
        assert [struct.pack(f"{order}HH", tag, kind) in exif for kind in (7, 1)] == [True, False]


def test_sd_parsers_reads_ours(tmp_path):
    sd_parsers = pytest.importorskip("sd_parsers")
    save_picture(Image.new("RGB", SIZE), tmp_path / "fox.png", DRAWN)
    found = sd_parsers.ParserManager().parse(tmp_path / "fox.png")
    (sampler,) = found.samplers
    assert [prompt.value for prompt in sampler.prompts] == ["a (red:1.3) fox, snow"]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["blurry, grey"]
    assert (sampler.name, sampler.model.name) == ("DDIM", "nano")
    assert (sampler.parameters["steps"], sampler.parameters["seed"]) == ("20", "7")
    assert (found.metadata["Eta DDIM"], found.metadata["Cache interval"]) == ("1", "3")
    assert found.metadata["Guidance interval"] == "0-0.4"


def test_sd_prompt_reader_reads_ours(picture):
    reader = pytest.importorskip("sd_prompt_reader.image_data_reader")
    found = reader.ImageDataReader(str(picture))
    assert (found.positive, found.negative) == ("a (red:1.3) fox, snow", "blurry, grey")
    assert found.parameter["seed"] == "7"
    assert found.parameter["sampler"] == "DDIM"
    assert "Cache interval: 3" in found.setting


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_ours(picture):
    done = subprocess.run(["exiftool", "-json", str(picture)], capture_output=True, text=True, check=True)  # noqa: S607
    (found,) = json.loads(done.stdout)
    text = found["Parameters"] if picture.suffix == ".png" else found["UserComment"]
    assert "a (red:1.3) fox, snow" in text
    assert "Steps: 20, Sampler: DDIM, CFG scale: 7.5, Seed: 7" in text
    assert "Guidance interval: 0-0.4" in text
    assert "Warning" not in found
