"""CLIP's own vocabulary through the runtime's tokenizer: the ids of transformers, and of open_clip where they agree.

The vocabulary is that of the package ``open_clip_torch``, read by the exporter and written into a bundle's
tokenizer.json. Nano follows transformers, as diffusers does. open_clip differs in three ways, and each is taken out
before ids are compared: it mends broken encodings (ftfy) and HTML entities, it has other names for the two special
tokens, and it follows Python where that and Rust differ (a sigma at the end of a word, control characters as blanks).
"""

from __future__ import annotations

import importlib.util
import random
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import CLIPTokenizer

from nano_export.source.single_file.vocabulary import Vocabulary, find_vocabulary, write_tokenizer
from nano_runtime.bundle.manifest import TokenizerSpec
from nano_runtime.networks.tokenizer import Tokenizer

LENGTH = 77
BOS, EOS = 49406, 49407
TEXT = """
été naïve Ärger İstanbul stra\u00dfe \u017ftra\u00dfe ΣΊΣΥΦΟΣ кошка 猫 猫と犬 고양이 قطة 👩\u200d🚀 🏳\ufe0f\u200d🌈 🐈 ♥
— … “quoted” \u2018single\u2019 ½ ① ﬁre ² Ⅷ ٣ &amp; &lt;b&gt; &eacute; &#233; &amp;amp; CafÃ© \u00e2\u20ac\u2122
don't WE'LL it's i'd 're !!! ?! :: (cat:1.3) [dog] {x|y} \\( 3.14 1990s 007 4k HDR f/1.8 --ar #hash @user
http://a.b/c?d=e&f=g <lora:x:1> _ a_b <|endoftext|> <|startoftext|> <end_of_text>
"""
ODD = [*TEXT.split(), "e\u0301", "a\u00a0b", "\u200b", "\u2003", "\t", "\n", "\r\n", "\x7f", "\x00", "\u2028", "\x85"]
ODD.append("\x1c")  # a blank to Python, not to Rust
BLOCKS = ((33, 127), (161, 0x250), (0x370, 0x600), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0x1F300, 0x1FA00))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return find_vocabulary(Path("nowhere/file.safetensors"), None)


@pytest.fixture(scope="module")
def open_clip() -> Any:
    """The module with open_clip's tokenizer alone: the package asks for torchvision when it is imported."""
    path = metadata.distribution("open_clip_torch").locate_file("open_clip/tokenizer.py")
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tokenizers(folder: Path, vocabulary: Vocabulary, family: int) -> tuple[Tokenizer, CLIPTokenizer]:
    """Return the runtime's tokenizer, from a bundle's file, and transformers', from Stable Diffusion's four."""
    write_tokenizer(folder / "original", vocabulary, family, LENGTH)
    theirs = CLIPTokenizer.from_pretrained(folder / "original")
    path = folder / "tokenizer.json"
    path.write_text(theirs.backend_tokenizer.to_str(), encoding="utf-8")
    spec = TokenizerSpec(
        file="tokenizer/tokenizer.json",
        length=LENGTH,
        pad_id=theirs.pad_token_id,
        bos_id=theirs.bos_token_id,
        eos_id=theirs.eos_token_id,
    )
    return Tokenizer.load(path, spec), theirs


def prompts(words: list[str], count: int) -> list[str]:
    """Return prompts of words, numbers, punctuation and characters from everywhere; the longest do not fit."""
    rng = random.Random(0)  # noqa: S311 - no secret

    def word() -> str:
        kind = rng.random()
        if kind < 0.7:
            return rng.choice((str, str, str.title, str.upper))(rng.choice(words))
        if kind < 0.78:
            return str(rng.randrange(10 ** rng.randrange(1, 6)))
        if kind < 0.88:
            return rng.choice(ODD)
        if kind < 0.93:
            return "".join(chr(rng.randrange(*rng.choice(BLOCKS))) for _ in range(rng.randrange(1, 5)))
        return rng.choice(",.;:!?-()'\"&/%$#@*+=~^`|<>[]{}")

    def prompt() -> str:
        length = rng.choice((1, 2, 3, 5, 8, 12, 20, 40, 90))
        blank = rng.choice((" ", " ", " ", "  ", ""))
        return blank.join(word() + rng.choice(("", "", ",", " ", ".")) for _ in range(length))

    return [prompt() for _ in range(count)]


@pytest.mark.parametrize("count", [pytest.param(150), pytest.param(5000, marks=pytest.mark.slow)])
def test_ids_are_those_of_transformers_and_of_open_clip(count, vocabulary, open_clip, tmp_path):
    simple = open_clip.SimpleTokenizer()
    ours, theirs = tokenizers(tmp_path, vocabulary, 1)
    words = [word[:-4] for word in vocabulary.words if word.endswith("</w>") and word[:-4].isalpha() and word.isascii()]
    same, excused, unlike = 0, 0, []
    for prompt in prompts(words, count):
        ids = ours.encode(prompt).ids[0]
        assert np.array_equal(ids, theirs(prompt, padding="max_length", truncation=True).input_ids), prompt
        cleaned = open_clip.basic_clean(prompt).split() == prompt.split()
        plain = "<|" not in prompt and "_of_text>" not in prompt and "Σ" not in prompt and "\x1c" not in prompt
        other = simple.encode(prompt)[: LENGTH - 2]
        equal = ids.tolist() == [BOS, *other, *[EOS] * (LENGTH - 1 - len(other))]
        same += equal
        excused += not equal and not (cleaned and plain)
        if not equal and cleaned and plain:
            unlike.append(prompt)
    assert unlike == []
    assert same > 0.7 * count
    assert excused > 0.1 * count  # the three ways are there, and seen


def test_the_vocabulary_is_open_clips(vocabulary, open_clip):
    encoder = open_clip.SimpleTokenizer().encoder
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    assert vocabulary.words == {renamed.get(word, word): index for word, index in encoder.items()}


@pytest.mark.parametrize("count", [pytest.param(30), pytest.param(5000, marks=pytest.mark.slow)])
def test_stable_diffusion_2_pads_with_another_token(count, vocabulary, tmp_path):
    ours, theirs = tokenizers(tmp_path, vocabulary, 2)
    assert ours.encode("a cat").ids[0, :6].tolist() == [BOS, 320, 2368, EOS, 0, 0]
    for prompt in ["! !! a!b !", *prompts(["cat", "dog", "wow!"], count)]:
        expected = theirs(prompt, padding="max_length", truncation=True).input_ids
        assert np.array_equal(ours.encode(prompt).ids[0], expected), prompt
