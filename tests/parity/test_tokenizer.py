"""Tokenizer against transformers' CLIPTokenizer: the same ids, from files like those of Stable Diffusion 2."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from nano_runtime.bundle.manifest import TokenizerSpec
from nano_runtime.errors import PromptError, TamperedFileError
from nano_runtime.networks.tokenizer import MAX_CHUNKS, Reading, Tokenizer
from nano_runtime.values import MAX_PROMPT_BYTES

LENGTH = 77
WORDS = [
    "a",
    "the",
    "cat",
    "cats",
    "dog",
    "of",
    "photograph",
    "astronaut",
    "riding",
    "horse",
    "don",
    "7",
    "été",
    "!",
    "!!",
]

PROMPTS = [
    "",
    "a cat",
    "A  CAT\tof\nthe dog ",
    "a photograph of an astronaut riding a horse",
    "a ! b",
    "! !! !!! a!b! !",
    "don't, we're, I'll; it's 1990's",
    "7 77 777",
    "<|startoftext|> a <|endoftext|> b <|endoftext|>c",
    "< |endoftext|> <|EndOfText|>",
    "e\u0301te\u0301 \u00e9t\u00e9",  # decomposed and composed
    "İstanbul ŞİŞ ﬁre ß ẞ Σς",  # lower case is longer, or more than one
    "猫 と 犬, 고양이, кошка, قطة, בּ",
    "👩‍🚀 🏳️‍🌈 🐈",
    "a\u00a0b\u2003c\u200bd\ufeffe",  # spaces that are, and are not
    "a\x00b\x07c\x7f\x85d",
    "   ",
    "(cat:1.3) [dog] {x|y} \\ / ~ ` ^",
]


def merges_for(words: list[str]) -> list[tuple[str, str]]:
    """Merges that build each word from the left; the last symbol of a word carries CLIP's end-of-word mark."""
    merges: dict[tuple[str, str], None] = {}
    letters = dict(zip(bytes(range(33, 127)), map(chr, range(33, 127)), strict=True))
    for word in words:
        symbols = [letters[byte] for byte in word.encode() if byte in letters]
        symbols[-1:] = [f"{symbols[-1]}</w>"] if symbols else []
        while len(symbols) > 1:
            merges[symbols[0], symbols[1]] = None
            symbols[:2] = [symbols[0] + symbols[1]]
    return list(merges)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tokenizer folder with the four files, and the disagreement about padding, of Stable Diffusion 2."""
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = sorted(ByteLevel.alphabet())
    merges = merges_for(WORDS)
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *dict.fromkeys(map("".join, merges))]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert tokens[0] == "!"
    texts = {
        "vocab.json": {token: index for index, token in enumerate(dict.fromkeys(tokens))},
        "special_tokens_map.json": {
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "!",
            "unk_token": "<|endoftext|>",
        },
        "tokenizer_config.json": {
            "add_prefix_space": False,
            "do_lower_case": True,
            "model_max_length": LENGTH,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "CLIPTokenizer",
        },
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Pair:
    """Transformers' tokenizer and ours, made from what it saved."""

    theirs: CLIPTokenizer
    path: Path
    ours: Tokenizer
    spec: TokenizerSpec

    def expected(self, prompt: str) -> np.ndarray:
        encoded = self.theirs(prompt, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np")
        return encoded.input_ids


@pytest.fixture(scope="module")
def pair(folder, tmp_path_factory) -> Pair:
    theirs = CLIPTokenizer.from_pretrained(folder)
    # A call before saving leaves truncation and padding in the file; loading must not depend on them.
    theirs("a", padding="max_length", truncation=True, max_length=5)
    path = tmp_path_factory.mktemp("bundle") / "tokenizer.json"
    theirs.backend_tokenizer.save(str(path))
    assert json.loads(path.read_text(encoding="utf-8"))["truncation"] is not None
    spec = TokenizerSpec(
        file="tokenizer/tokenizer.json",
        length=LENGTH,
        pad_id=theirs.pad_token_id,
        bos_id=theirs.bos_token_id,
        eos_id=theirs.eos_token_id,
    )
    return Pair(theirs, path, Tokenizer.load(path, spec), spec)


def odd_text(rng: random.Random) -> str:
    """A line of words, punctuation and characters from everywhere but the surrogates."""
    pieces = [*WORDS, " ", "  ", "!", "'s", "<|endoftext|>", "\n"]
    return "".join(
        rng.choice(pieces)
        if rng.random() < 0.7
        else chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)]))
        for _ in range(rng.randrange(60))
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_are_those_of_transformers(pair, prompt):
    tokens = pair.ours.encode(prompt)
    assert tokens.ids.dtype == np.int64
    np.testing.assert_array_equal(tokens.ids, pair.expected(prompt))
    assert tokens.cut == ""


def test_ids_of_odd_texts_are_those_of_transformers(pair):
    rng = random.Random(0)  # noqa: S311 - reproducible, not secret
    for _ in range(500):
        prompt = odd_text(rng)
        np.testing.assert_array_equal(pair.ours.encode(prompt).ids, pair.expected(prompt), err_msg=repr(prompt))


def test_an_exclamation_mark_is_the_padding_of_stable_diffusion_2(pair):
    ids = pair.ours.encode("a ! b").ids[0]
    spec = pair.spec
    assert spec.pad_id == 0
    assert ids[[0, 2, 4]].tolist() == [spec.bos_id, 0, spec.eos_id]
    assert 0 not in ids[[1, 3]]
    assert ids[5:].tolist() == [0] * (LENGTH - 5)


def test_other_padding_is_noticed(pair):
    other = TokenizerSpec(
        file=pair.spec.file, length=LENGTH, pad_id=1, bos_id=pair.spec.bos_id, eos_id=pair.spec.eos_id
    )
    ids = Tokenizer.load(pair.path, other).encode("a cat").ids
    assert not np.array_equal(ids, pair.expected("a cat"))


@pytest.mark.parametrize(("count", "cut"), [(74, ""), (75, ""), (76, "dog"), (77, "cat dog")])
def test_what_does_not_fit_is_cut_and_reported(pair, count, cut):
    prompt = " ".join(["a"] * (count - 2) + ["Cat", "Dog"])
    tokens = pair.ours.encode(prompt)
    np.testing.assert_array_equal(tokens.ids, pair.expected(prompt))
    assert tokens.cut.lower() == cut
    assert prompt.endswith(tokens.cut)


WEIGHTED, LONG = Reading(weighted=True, long=False), Reading(weighted=False, long=True)
BOTH = Reading(weighted=True, long=True)


@pytest.mark.parametrize(("words", "chunks"), [(0, 1), (75, 1), (76, 2), (150, 2), (151, 3), (75 * MAX_CHUNKS, 16)])
def test_long_prompts_go_on_in_chunks(pair, words, chunks):
    """Each chunk is what transformers makes of its 75 words alone."""
    prompt = ["cat", "dog", "a"] * (words // 3) + ["a"] * (words % 3)
    tokens = pair.ours.encode(" ".join(prompt), LONG)
    assert (tokens.count, tokens.used, tokens.cut) == (words, words, "")
    assert tokens.ids.shape == tokens.weights.shape == (chunks, LENGTH)
    for index, ids in enumerate(tokens.ids):
        expected = pair.expected(" ".join(prompt[75 * index : 75 * (index + 1)]))
        np.testing.assert_array_equal(ids[np.newaxis], expected)
    assert (tokens.weights == 1).all()


def test_one_chunk_too_many_is_refused(pair):
    with pytest.raises(PromptError, match=f"fills {MAX_CHUNKS + 1} chunks of 75 tokens, more than {MAX_CHUNKS}"):
        pair.ours.encode("a " * (75 * MAX_CHUNKS + 1), LONG)
    pair.ours.encode("a " * (75 * MAX_CHUNKS + 1))  # cut, as ever


def test_weights_stand_where_their_words_do(pair):
    tokens = pair.ours.encode("a (cat:1.5) [dog]", WEIGHTED)
    np.testing.assert_array_equal(tokens.ids, pair.expected("a cat dog"))
    assert tokens.count == np.argmax(tokens.ids[0] == pair.spec.eos_id) - 1
    cat = len(pair.ours.encode("cat").ids[0][1 : pair.ours.encode("cat").count + 1])
    expected = [1.0, 1.0, *[1.5] * cat, *[1 / 1.1] * (tokens.count - cat - 1)]
    assert tokens.weights[0].tolist() == [*expected, *[1.0] * (LENGTH - len(expected))]


def test_a_literal_prompt_keeps_its_brackets(pair):
    prompt = "a (cat:1.5) BREAK [dog]"
    np.testing.assert_array_equal(pair.ours.encode(prompt).ids, pair.expected(prompt))
    assert not np.array_equal(pair.ours.encode(prompt, WEIGHTED).ids, pair.expected(prompt))


@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [
        ("cat BREAK dog", ["cat", "dog"]),
        ("cat BREAK", ["cat"]),
        ("BREAK dog", ["", "dog"]),
        ("cat BREAK BREAK dog", ["cat", "", "dog"]),
        ("(cat BREAK dog)", ["cat", "dog"]),
        ("a " * 75 + "BREAK dog", ["a " * 75, "dog"]),
        ("a " * 76 + "BREAK dog", ["a " * 75, "a", "dog"]),
    ],
)
def test_a_break_starts_a_chunk(pair, prompt, chunks):
    expected = np.concatenate([pair.expected(chunk) for chunk in chunks])
    np.testing.assert_array_equal(pair.ours.encode(prompt, BOTH).ids, expected)


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("cat BREAK (dog:2) a", "dog a"),
        ("cat BREAK BREAK dog", "dog"),
        ("cat BREAK", ""),
        ("(a) " * 76 + "[dog], BREAK cat", "a dog, cat"),
    ],
)
def test_what_follows_the_first_chunk_is_cut_where_one_is_wanted(pair, prompt, cut):
    tokens, whole = pair.ours.encode(prompt, WEIGHTED), pair.ours.encode(prompt, BOTH)
    np.testing.assert_array_equal(tokens.ids, whole.ids[:1])
    assert tokens.cut == cut
    assert tokens.count == whole.count
    assert (tokens.used < tokens.count) == bool(cut)


def test_the_cut_is_in_the_users_characters(pair):
    # Upper case and a decomposed letter are normalised before they are encoded; the report must not be.
    prompt = "a " * 75 + "E\u0301T ÉTÉ"
    assert pair.ours.encode(prompt).cut == "E\u0301T ÉTÉ"


def test_unusable_prompts_are_refused(pair):
    with pytest.raises(PromptError, match=r"character 3 is half of a pair \(U\+D83D\)"):
        pair.ours.encode("a \ud83d b")
    with pytest.raises(PromptError, match=f"{MAX_PROMPT_BYTES + 2} bytes"):
        pair.ours.encode("é" * (MAX_PROMPT_BYTES // 2 + 1))
    pair.ours.encode("a" * MAX_PROMPT_BYTES)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_named(pair, tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TamperedFileError, match="cannot be read as a tokenizer"):
        Tokenizer.load(path, pair.spec)
