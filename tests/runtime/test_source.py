"""Pictures that come in: only files that are pictures, upright, opaque and in the bundle's size."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nano_runtime import read_parameters
from nano_runtime.errors import ImageError, NoParametersError, PictureFileError
from nano_runtime.pictures.source import edit_of, open_picture

SIZE, LATENTS = (16, 24), (4, 2, 3)  # height and width; one latent for 8 x 8 pixels


def pattern(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def edit(image: Image.Image, mask: Image.Image | None = None, strength: float | None = None):
    return edit_of(image, mask, strength, SIZE, LATENTS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats_are_read_whatever_the_name_says(tmp_path, kind):
    path = tmp_path / "picture.txt"
    pattern(24, 16).save(path, format=kind)
    assert open_picture(path).size == (24, 16)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_refused(tmp_path, kind):
    path = tmp_path / "picture.png"
    pattern(24, 16).save(path, format=kind)
    with pytest.raises(ImageError, match="none of PNG, JPEG, WEBP"):
        open_picture(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_files_are_told(tmp_path, kind):
    whole, path = tmp_path / "whole", tmp_path / "cut.png"
    pattern(240, 160).save(whole, format=kind)
    content = whole.read_bytes()
    for length in (0, 1, 10, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(ImageError, match=r"cut\.png"):
            open_picture(path)


def test_a_pipe_is_read_to_its_end():
    """As in a shell's ``--image <(curl ...)`` and ``--image /dev/stdin``."""
    content = BytesIO()
    pattern(24, 16).save(content, format="PNG")
    for sent, readable in ((content.getvalue(), True), (content.getvalue()[:-40], False)):
        reading, writing = os.pipe()
        os.write(writing, sent)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            if readable:
                assert open_picture(pipe).tobytes() == pattern(24, 16).tobytes()
            else:
                with pytest.raises(ImageError, match="truncated"):
                    open_picture(pipe)


def test_files_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "photo.png").touch()
    for name, hint in (
        ("phota.jpg", r"Did you mean .*/photo\.png\?"),
        ("missing.png", "Check the name"),
        ("no/missing.png", "There is no folder"),
        ("", "Give the name of a picture in that folder"),
    ):
        path = tmp_path / name
        for read in (open_picture, read_parameters):
            with pytest.raises(PictureFileError, match=f"(?s)cannot be opened: .*{hint}") as caught:
                read(path)
            assert isinstance(caught.value, ImageError)
            assert isinstance(caught.value, NoParametersError)


def test_too_many_bytes_or_pixels_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "large.png"
    pattern(24, 16).save(path)
    os.truncate(path, (64 << 20) + 1)
    with pytest.raises(ImageError, match="67 MB are more than the 67"):
        open_picture(path)
    os.truncate(path, 64 << 20)
    assert open_picture(path).size == (24, 16)  # as large as allowed
    bomb, header = tmp_path / "bomb.png", Path(path).read_bytes()[:200]
    for side, words in (
        (8193, "67 megapixels are more than the 67"),
        (10_000, "100 megapixels"),
        (60_000, "3600000000"),
    ):
        bomb.write_bytes(with_size(header, side, side))
        with pytest.raises(ImageError, match=words):
            open_picture(bomb)


def with_size(png: bytes, width: int, height: int) -> bytes:
    """A PNG whose header claims another size, checksum included."""
    import zlib  # noqa: PLC0415 - for this test only

    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


def test_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    image = pattern(24, 16)
    image.save(tmp_path / "turned.png", exif=exif)
    turned = open_picture(tmp_path / "turned.png")
    assert turned.size == (16, 24)
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


def test_a_picture_of_the_right_size_stays_as_it_is():
    image = pattern(24, 16)
    np.testing.assert_array_equal(edit(image).pixels, np.asarray(image))
    sample = edit(image).sample
    assert (sample.shape, sample.dtype) == ((1, 3, 16, 24), np.float32)
    np.testing.assert_allclose(sample[0].transpose(1, 2, 0), np.asarray(image) / 127.5 - 1, atol=1e-6)


def test_other_sizes_are_covered_and_cropped_around_the_centre():
    wide = Image.new("RGB", (300, 32), "red")
    wide.paste("blue", (126, 0, 174, 32))  # the 48 in the middle are what fits
    assert (edit(wide).pixels[:, 4:-4] == (0, 0, 255)).all()  # but for the rim, where red shines in
    small = edit(Image.new("RGB", (3, 2), "lime")).pixels
    assert small.shape == (16, 24, 3)
    assert (small == (0, 255, 0)).all()


def test_a_mask_is_scaled_and_cropped_as_its_picture_is():
    image, mask = Image.new("RGB", (300, 32), "red"), Image.new("L", (300, 32))
    for picture, colour in ((image, "blue"), (mask, 255)):
        picture.paste(colour, (126, 0, 150, 32))  # the left half of what fits
    found = edit(image, mask)
    assert (found.pixels[:, 4:8] == (0, 0, 255)).all()
    assert (found.pixels[:, 16:-4] == (255, 0, 0)).all()
    assert found.mask[0, 0].tolist() == [[1, 1, 0], [1, 1, 0]]  # cells begin at 0, 8 and 16; white ends at 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode):
    assert edit(Image.new(mode, (24, 16))).pixels.shape == (16, 24, 3)


def test_sixteen_bits_become_eight():
    values = (np.arange(24 * 16, dtype=np.uint16).reshape(16, 24)) * 170
    pixels = edit(Image.fromarray(values)).pixels
    np.testing.assert_array_equal(pixels[..., 0], values >> 8)


def test_whole_numbers_and_floats_are_what_pillow_and_diffusers_take_them_for(caplog):
    values = np.arange(24 * 16).reshape(16, 24) % 256
    for kind in (np.int32, np.float32):
        image = Image.fromarray(values.astype(kind))
        np.testing.assert_array_equal(edit(image).pixels, np.asarray(image.convert("RGB")))
    large = Image.fromarray((values * 257).astype(np.int32))  # as Pillow opened 16 bits for long
    np.testing.assert_array_equal(edit(large).pixels[..., 0], values)
    assert caplog.messages == []
    edit(Image.fromarray((values / 255).astype(np.float32)))
    assert "255 is white" in caplog.text


def test_pictures_without_pixels_are_told(tmp_path):
    pattern(24, 16).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as closed:
        pass
    odd: list[tuple[Any, str]] = [
        (Image.new("RGB", (0, 0)), "no pixels"),
        (Image.new("RGB", (0, 16)), "no pixels"),
        (Image.fromarray(np.full((16, 24), np.nan, np.float32)), "not finite"),
        (closed, "pixels cannot be read"),
        (np.zeros((16, 24, 3)), r"open_picture reads one from a file, PIL\.Image\.fromarray"),
    ]
    for image, why in odd:
        with pytest.raises(ImageError, match=f"(?s)image cannot be used.*{why}"):
            edit(image)


def test_transparent_parts_are_white_in_the_picture_and_black_in_the_mask():
    image = Image.new("RGBA", (24, 16), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 8, 16))
    pixels = edit(image).pixels
    assert (pixels[:, :8] == (255, 0, 0)).all()
    assert (pixels[:, 8:] == 255).all()
    holes = Image.new("LA", (24, 16), (255, 0))
    holes.paste((255, 255), (0, 0, 8, 16))
    assert edit(image, holes).mask[0, 0].tolist() == [[1, 0, 0], [1, 0, 0]]


def test_masks_are_rounded_and_looked_at_where_each_latent_begins():
    mask = Image.new("L", (24, 16), 127)
    for point, value in {(8, 0): 128, (15, 15): 255, (16, 8): 255}.items():
        mask.putpixel(point, value)
    found = edit(pattern(24, 16), mask)
    assert found.mask.dtype == np.float32
    assert found.mask[0, 0].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert (found.strength, edit(pattern(24, 16)).strength) == (1.0, 0.8)


def test_the_digest_names_picture_and_mask():
    image, mask = pattern(24, 16), Image.new("L", (24, 16), 255)
    assert edit(image).digest == edit(image.copy(), strength=0.1).digest
    assert len({edit(image).digest, edit(image, mask).digest, edit(Image.new("RGB", (24, 16))).digest}) == 3
