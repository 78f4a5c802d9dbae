"""Any text is tokenized or refused, and can be stored and shown: thousands from a generator, the worst by hand."""

from __future__ import annotations

import time
import unicodedata

import numpy as np
import pytest
from PIL import Image

from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.cli import generate
from nano_runtime.errors import PromptError
from nano_runtime.errors.escaping import escaped
from nano_runtime.networks.tokenizer import Tokenizer
from nano_runtime.options import DrawOptions
from nano_runtime.pictures.parameters import Parameters
from nano_runtime.pictures.png import read_parameters, save_png
from nano_runtime.values import MAX_PROMPT_BYTES

SEED = 6
PIECES = [
    *("a red fox", "otter, teal background", " ", "\n", "\r\n", "\t", "!", ",", "(((", "ﬁ", "İstanbul", "ΑΒΓς", "①"),
    *("\0", "\x07", "\x1b[2J", "\x1b]0;title\x07", "\x7f", "\x85", "\x9b31m", "\u2028", "\ufeff", "\ufffe"),
    *("\u202e", "\u2066", "\u200f", "עברית", "العربية", "हिन्दी", "한국어", "日本語", "한", "é", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍"),
    *("👩‍👩‍👧‍👦", "🏳️‍🌈", "👋🏿", "🇪🇺", "\u200d", "\ufe0f", "🦊", "\U0010ffff"),
    *("\ud83d", "\udd8a", "\udcff"),
    *("<|endoftext|>", "<|startoftext|>", "</w>", "<b>", "${HOME}", "$(id)", "'; DROP TABLE", "%s%n", "{0}", "../.."),
]
JOINERS = "\u200c\u200d"
# Default_Ignorable_Code_Point, of DerivedCoreProperties.txt in Unicode 16.0.
IGNORABLE = [
    *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
    *((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF)),
    *((0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
]
WRITTEN = [
    *("👩\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈", "👋🏿", "🇪🇺", "❤\ufe0f", "1\ufe0f\u20e3", "क्\u200dष"),
    *("\u0645\u06cc\u200c\u062e\u0648", "한국어", "日本語\u3000猫", "Ärger", "a\u00a0b", "½ ①"),
]
SMUGGLED = [
    *("a\u200db", "fox\u200c", "\u200d\u200d", "a\ufe0f", "🦊\ufe0f\ufe0f", "🦊\ufe01", "猫\U000e0100"),
    "🏴\U000e0067\U000e007f",
]
WORST = {
    "empty": "",
    "carets": "^" * MAX_PROMPT_BYTES,
    "one word": "a" * MAX_PROMPT_BYTES,
    "no word twice": "".join(chr(0x4E00 + i) for i in range(MAX_PROMPT_BYTES // 3)),
    "commas": "," * 10_000,
    "marks on one letter": "a" + "\u0301" * (MAX_PROMPT_BYTES // 2 - 1),
    "joined": "\u200d".join("👩" * (MAX_PROMPT_BYTES // 7)),
    "spaces": " " * MAX_PROMPT_BYTES,
    "digits": "7" * MAX_PROMPT_BYTES,
    "apostrophes": "'s" * (MAX_PROMPT_BYTES // 2),
    "ends of text": "<|endoftext|>" * (MAX_PROMPT_BYTES // 13),
    "one byte too long": "x" * (MAX_PROMPT_BYTES + 1),
    "10 MB": "fox " * 2_500_000,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    bundle = Bundle.open(DEMO)
    spec = bundle.manifest.tokenizer
    return Tokenizer.load(bundle.verified_file(spec.file), spec)


def generated(dice: np.random.Generator) -> str:
    """Make a text of a few to some ten thousand pieces, or of code points from anywhere."""
    length = int(10 ** dice.uniform(0, 4))
    if dice.random() < 0.3:
        return "".join(map(chr, dice.integers(0, 0x110000, min(length, 5000))))  # surrogates included
    pieces = [PIECES[i] for i in dice.integers(0, len(PIECES), dice.integers(1, 6))]
    return "".join(pieces[i] for i in dice.integers(0, len(pieces), length))


def takes(tokenizer: Tokenizer, prompt: str) -> bool:
    """Tokenize and check what comes out; whether it was not refused."""
    try:
        tokens = tokenizer.encode(prompt)
    except PromptError:
        return False
    assert tokens.ids.shape == (1, 77)
    assert tokens.ids.min() >= 0
    assert prompt.endswith(tokens.cut)
    return True


def is_harmless(line: str) -> bool:
    """Whether a terminal would only draw letters, and those that belong together joined."""
    return all(
        unicodedata.category(letter) not in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"} or letter in JOINERS
        for letter in line
    )


def test_what_is_escaped_is_what_unicode_says_formats_or_controls():
    """Over all code points; the controls are the characters that each rule is there for."""
    shown: set[str] = set()
    for code in range(0x110000):
        shown.update(escaped(chr(code)))
    assert is_harmless("".join(shown))
    assert not any(map(is_harmless, ("\x9b", "\u2028", "\ufeff", "\u200b", "\u202e", "\ud800", "\u2066", "\ue000")))
    assert all(escaped(chr(code)).isascii() for first, last in IGNORABLE for code in range(first, last + 1))


@pytest.mark.parametrize("text", WRITTEN)
def test_what_people_write_is_shown_as_it_is(text):
    assert escaped(text) == text


@pytest.mark.parametrize("text", SMUGGLED, ids=ascii)
def test_marks_between_letters_that_have_no_use_for_them_are_escaped(text):
    assert "\\" in escaped(text)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_any_text_is_tokenized_or_refused(tokenizer, count):
    dice = np.random.default_rng(SEED)
    slowest, taken = 0.0, 0
    for _ in range(count):
        prompt = generated(dice)
        began = time.thread_time()
        taken += takes(tokenizer, prompt)
        slowest = max(slowest, time.thread_time() - began)
        assert is_harmless(escaped(prompt))
    print(f"{count} prompts: {taken} tokenized, the slowest took {slowest * 1e3:.1f} ms")  # noqa: T201 - with -s
    assert 0.2 < taken / count < 0.9  # both happen


@pytest.mark.parametrize("prompt", WORST.values(), ids=WORST.keys())
def test_the_worst_texts(tokenizer, prompt):
    began = time.thread_time()
    assert takes(tokenizer, prompt) == (len(prompt.encode()) <= MAX_PROMPT_BYTES)
    print(f"{(time.thread_time() - began) * 1e3:.1f} ms")  # noqa: T201 - with -s


@pytest.mark.parametrize("prompt", ["", *(piece for piece in PIECES if not "\ud800" <= piece <= "\udfff")])
def test_a_picture_remembers_any_text_and_shows_it_on_one_line(tmp_path, prompt):
    options = DrawOptions(
        prompt=f"{prompt}a{prompt}",
        negative_prompt=prompt,
        seed=0,
        num_inference_steps=20,
        scheduler="pndm",
        guidance_scale=7.5,
        height=8,
        width=8,
        cache_interval=1,
        guidance_interval=(0.0, 1.0),
    )
    parameters = Parameters(
        options,
        bundle=f"nano{prompt}",
        bundle_digest="0" * 64,
        backend="openvino",
        precision="f32",
        version="0",
    )
    save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", parameters)
    assert read_parameters(tmp_path / "a.png") == parameters
    with Image.open(tmp_path / "a.png") as image:
        lines = image.info["parameters"].split("\n")
    assert len(lines) == (3 if prompt else 2)
    assert not any(unicodedata.category(letter) == "Cc" for line in lines for letter in line)


def test_what_is_shown_is_what_was_written_where_that_is_harmless():
    for text in ("ein roter Fuchs 🦊", "👩‍👩‍👧‍👦", "עברית العربية", "日本語 हिन्दी"):
        assert escaped(text) == text
    assert escaped("\x1b[31m\n\u202ex") == r"\x1b[31m\n\u202ex"
    assert escaped("x" * 100_000).endswith("x… (100000 characters)")
    assert len(escaped("x" * 100_000)) < 1100
    assert not is_harmless("\x9b31m")
    assert not is_harmless("\u202e")


@pytest.mark.parametrize("prompt", ["fox \udcff", "fox " * 6_000], ids=["surrogate", "too long"])
def test_the_command_refuses_in_two_lines(tmp_path, prompt, capsys):
    assert generate.main([prompt, "-o", str(tmp_path)]) == 2
    _, error = capsys.readouterr()
    assert "the prompt cannot be used" in error
    assert len(error) < 500
    assert list(tmp_path.iterdir()) == []


def test_the_command_shows_no_control_characters(tmp_path, capsys):
    name = "fox\x1b[2J\u202e"
    assert generate.main(["fox", "--bundle", str(tmp_path / name)]) == 3
    assert r"fox\x1b[2J\u202e" in capsys.readouterr().err
