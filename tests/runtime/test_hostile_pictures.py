"""Pictures that strangers made: drawn from or refused, whatever Pillow makes of them."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from nano_runtime import open_picture, read_parameters
from nano_runtime.errors import UsageError
from nano_runtime.pictures.source import edit_of

SIZE, LATENTS = (16, 24), (4, 2, 3)
FEW, FULL = 250, 5000
ORIENTATION, RESOLUTION = 0x0112, 0x011A


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def exif_of(*tags: tuple[int, int, bytes], count: int = 1) -> bytes:
    """Return EXIF with tags of a number, a type and four bytes."""
    entries = b"".join(struct.pack(">HHI", number, kind, count) + value for number, kind, value in tags)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(tags)) + entries + bytes(4)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def originals() -> list[bytes]:
    """Pictures of all formats and many modes, with EXIF, parameters, palettes and transparency."""
    dice = np.random.default_rng(0)
    plain = Image.fromarray(dice.integers(0, 256, (20, 30, 3), np.uint8))
    text, exif = (
        PngInfo(),
        exif_of((ORIENTATION, 3, b"\0\6\0\0"), (RESOLUTION, 5, b"\0\0\0\x26"), (0x8769, 4, bytes(4))),
    )
    text.add_itxt("nano", '{"prompt": "a fox"}', zip=True)
    text.add_text("parameters", "a fox")
    modes = [plain.convert(mode) for mode in ("1", "L", "LA", "P", "RGBA")]
    modes.append(Image.fromarray(dice.integers(0, 1 << 16, (20, 30), np.uint16)))
    found = [saved(image, "PNG", pnginfo=text) for image in (plain, *modes)]
    found.append(saved(plain.convert("P"), "PNG", transparency=bytes(range(256))))
    found += [saved(plain, kind, exif=exif) for kind in ("PNG", "JPEG", "WEBP")]
    found += [saved(plain.convert(mode), "JPEG", exif=exif) for mode in ("L", "CMYK")]
    return [*found, saved(plain, "JPEG", progressive=True), saved(plain.convert("RGBA"), "WEBP", lossless=True)]


def changed(content: bytes, chance: random.Random) -> bytes:
    """Change some bytes; in a PNG, half of the time with the chunks' checksums made right."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 2, 8))):
        at = min(int(chance.expovariate(4) * len(data)), len(data) - 1)  # headers more often than pixels
        data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1 << chance.randrange(8)))
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    return sealed(bytes(data)) if data.startswith(b"\x89PNG") and chance.random() < 0.5 else bytes(data)


def sealed(png: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right, as far as they can be followed."""
    out, at = png[:8], 8
    while at + 12 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        out += chunk(png[at + 4 : at + 8], png[at + 8 : at + 8 + length])
        at += 12 + length
    return out


def outcomes(content: bytes, path: Path) -> tuple[bool, bool]:
    """Whether a picture can be drawn from, and be drawn again; anything but an error of ours is raised."""
    path.write_bytes(content)
    drawn = read = True
    try:
        edit_of(open_picture(path), None, None, SIZE, LATENTS)
    except UsageError:
        drawn = False
    try:
        read_parameters(path)
    except UsageError as error:
        read = False
        assert path.name in error.what  # noqa: PT017 - it may also be read
    return drawn, read


def test_changed_pictures_are_drawn_from_or_refused(tmp_path, full):
    chance, all_of_them = random.Random(21), originals()  # noqa: S311 - to be repeated, not to be secret
    drawn = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index in range(FULL if full else FEW):
            content = changed(all_of_them[index % len(all_of_them)], chance)
            drawn += outcomes(content, tmp_path / "x.png")[0]
    assert 0.1 < drawn / (FULL if full else FEW) < 0.95  # both happen


@pytest.mark.parametrize("kind", range(14))
@pytest.mark.parametrize("tag", [RESOLUTION, ORIENTATION, 0x8769, 0x8825, 0x927C, 0x0111])
def test_exif_of_any_type_is_no_reason_not_to_draw(tmp_path, tag, kind):
    """Pillow writes EXIF anew when it turns a picture, and fails for types that do not fit a tag."""
    exif = exif_of((ORIENTATION, 3, b"\0\6\0\0"), (tag, kind, b"\1\0\0\xff"))
    (tmp_path / "x.jpg").write_bytes(saved(Image.new("RGB", (64, 48), "teal"), "JPEG", exif=exif))
    assert set(open_picture(tmp_path / "x.jpg").size) == {64, 48}


@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_turned_as_pillow_turns_them(orientation):
    image = Image.fromarray(np.arange(24 * 3, dtype=np.uint8).reshape(4, 6, 3))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = saved(image, "PNG", exif=exif)
    with Image.open(BytesIO(content)) as again:
        expected = ImageOps.exif_transpose(again)
    assert np.array_equal(np.asarray(open_picture(content)), np.asarray(expected))


@pytest.mark.parametrize(
    "nano",
    [
        b"[" * 100_000,
        b'{"prompt": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b'{"seed": 1e400}',
        b"null",
        b"",
        b'{"prompt": "x"}',
    ],
    ids=["deep", "digits", "no text", "infinite", "null", "empty", "half"],
)
def test_parameters_that_are_none(tmp_path, nano):
    plain = saved(Image.new("RGB", (8, 8)), "PNG")
    (tmp_path / "x.png").write_bytes(plain[:33] + chunk(b"iTXt", b"nano\0\0\0\0\0" + nano) + plain[33:])
    assert outcomes((tmp_path / "x.png").read_bytes(), tmp_path / "x.png") == (True, False)
