"""Words of textual inversions in prompts: the ids that diffusers and transformers feed, in every place of a prompt."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from nano_runtime.bundle.manifest import TokenizerSpec
from nano_runtime.errors import PromptError, TamperedFileError
from nano_runtime.networks.inversions import MAX_VECTORS, names_of
from nano_runtime.networks.tokenizer import Reading, Tokenizer

LENGTH = 77
# Word -> number of vectors. None holds another one of several vectors: diffusers' answer would change from run to run.
WORDS = {
    "<cat-toy>": 4,
    "<solo>": 1,
    "easynegative": 6,
    "bad-hands-5": 2,
    "Upper Case": 3,  # diffusers and transformers 5 take its first vector only: the tokenizer writes it in lower case
    "lower case": 3,
    "été": 2,
    "a.b*c": 2,
    "<cat>": 1,
    "nip": 1,
    "catnip": 2,
    "!?": 40,
}
PROMPTS = [
    "a photo of <cat-toy> in the hat",
    "<cat-toy>",
    "<cat-toy>,<cat-toy>.",
    "x<cat-toy>y easynegative!",
    "<CAT-TOY> and <cat-toy>",
    "EasyNegative, EASYNEGATIVE",
    "easynegative easynegative_1 easynegatives uneasynegative",
    "upper case, Upper Case, UPPER  CASE, Upper\tCase",
    "lower case, Lower Case, lower  case, lower\tcase",
    "bad-hands-5, (bad-hands-5:1.2), bad-hands-55",
    "e\u0301te\u0301 and été, ÉTÉ",
    "a.b*c aXbYc",
    "<solo> <solo>_1 <cat> <cat-toy> <cat-toy>_2",
    "catnip nip cat nip",
    "a " * 72 + "<cat-toy> <cat-toy>",
    "a " * 74 + "<cat-toy>",
    "a " * 200 + "easynegative",
    "",
]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> CLIPTokenizer:
    """A tokenizer of single letters, with the words as ``load_textual_inversion`` adds them."""
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    for word, count in WORDS.items():
        for name in names_of(word, count):
            tokenizer.add_tokens(name)
    return tokenizer


@pytest.fixture(scope="module")
def path(theirs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tokenizer.json"
    theirs.backend_tokenizer.save(str(path))
    return path


def spec_of(tokenizer: CLIPTokenizer, words: dict[str, int]) -> TokenizerSpec:
    return TokenizerSpec(
        file="tokenizer/tokenizer.json",
        length=LENGTH,
        pad_id=tokenizer.pad_token_id,
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        embeddings={word: tokenizer.convert_tokens_to_ids(names_of(word, count)) for word, count in words.items()},
    )


@pytest.fixture(scope="module")
def ours(theirs, path) -> Tokenizer:
    return Tokenizer.load(path, spec_of(theirs, WORDS))


def expected(tokenizer: CLIPTokenizer, prompt: str) -> np.ndarray:
    """What diffusers' ``encode_prompt`` feeds the text encoder."""
    converted = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, tokenizer)
    return tokenizer(converted, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np").input_ids


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_are_those_of_diffusers(prompt, theirs, ours):
    assert np.array_equal(ours.encode(prompt).ids, expected(theirs, prompt))


def test_ids_are_those_of_diffusers_in_random_prompts(theirs, path, ours):
    rng = random.Random(0)  # noqa: S311 - the same prompts every time
    pieces = [*WORDS, *WORDS, *map(str.upper, WORDS), *"ab,.!()_1<>-", " ", "  ", "_1", "猫", "\n"]
    plain = Tokenizer.load(path, spec_of(theirs, {}))  # as bundles of earlier formats are read
    differing = 0
    for _ in range(400):
        prompt = "".join(rng.choice(pieces) + rng.choice(["", " "]) for _ in range(rng.randrange(1, 14)))
        ids = expected(theirs, prompt)
        assert np.array_equal(ours.encode(prompt).ids, ids), prompt
        differing += not np.array_equal(plain.encode(prompt).ids, ids)
    assert differing > 100


def test_all_vectors_count_have_the_words_weight_and_go_on_in_the_next_chunk(theirs, ours):
    vectors = theirs.convert_tokens_to_ids(names_of("<cat-toy>", 4))
    read = ours.encode("a (<cat-toy>:1.5) b", Reading(weighted=True, long=False))
    assert read.count == read.used == 6
    assert read.ids[0, 2:6].tolist() == vectors
    assert read.weights[0, :8].tolist() == pytest.approx([1, 1, 1.5, 1.5, 1.5, 1.5, 1, 1])

    prompt = "a " * 73 + "<cat-toy> tail"
    cut = ours.encode(prompt)
    assert (cut.count, cut.used, cut.cut) == (73 + 4 + 4, 75, "<cat-toy> tail")
    long = ours.encode(prompt, Reading(weighted=False, long=True))
    assert [*long.ids[0, 74:76], *long.ids[1, 1:3]] == vectors
    later = ours.encode("<cat-toy> " + "a " * 80)
    assert later.cut == "a " * 8 + "a "


def test_where_one_of_two_words_holds_the_other_the_longer_one_counts(theirs, path):
    words = {"catnip": 2, "bad-hands-5": 2, "easynegative": 6}
    for name in names_of("cat", 2):
        theirs.add_tokens(name)
    theirs.backend_tokenizer.save(str(path))
    ours = Tokenizer.load(path, spec_of(theirs, {**words, "cat": 2}))
    names = ["cat", "cat_1", "catnip", "catnip_1", "cat", "cat_1"]
    assert ours.encode("cat catnip cat").ids[0, 1:7].tolist() == theirs.convert_tokens_to_ids(names)


def test_a_prompt_of_too_many_vectors_is_refused(ours):
    with pytest.raises(PromptError, match=f"stand for 10040 tokens, more than {MAX_VECTORS}"):
        ours.encode("!? " * 251)


def test_tokens_that_are_not_the_manifests_are_found_when_the_file_is_read(theirs, path):
    with pytest.raises(TamperedFileError, match="other tokens than the manifest for '<solo>'"):
        Tokenizer.load(path, spec_of(theirs, {"<cat-toy>": 4, "<solo>": 2}))
