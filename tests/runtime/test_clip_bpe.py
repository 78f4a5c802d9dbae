"""CLIP's tokenizer is built of vocabulary and merges, and what else a file asks for is compared or refused."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.errors import BundleError
from nano_runtime.networks.clip_bpe import read_clip_bpe
from nano_runtime.networks.tokenizer import Tokenizer

FEW, FULL = 120, 2000
RAW = (DEMO / "tokenizer" / "tokenizer.json").read_bytes()
SPEC = Bundle.open(DEMO).manifest.tokenizer
PROMPTS = [
    "a blue fox",
    "A red otter, don't! 3 cats; caf\u00e9 \u732b \U0001f98a <|endoftext|>",
    "b" * 60,
    "",
    "\u0130\ufb01 \u2003x",
]
GROW = {"type": "Replace", "pattern": {"String": "b"}, "content": "b" * 1000}


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RAW)
    return found


def test_ids_and_places_are_those_of_the_library():
    """Reference: the library reads the same file by itself."""
    library, ours = Library.from_str(RAW.decode()), read_clip_bpe(RAW)
    library.no_truncation()
    library.no_padding()
    for prompt in PROMPTS:
        expected, found = (one.encode(prompt, add_special_tokens=False) for one in (library, ours))
        assert (found.ids, found.offsets) == (expected.ids, expected.offsets)


def grown(file: dict[str, Any]) -> None:
    file["normalizer"] = {"type": "Sequence", "normalizers": [file["normalizer"], GROW]}


def letter_too_few(file: dict[str, Any]) -> None:
    """Prompts with an ö would fail then."""
    del file["model"]["vocab"]["\u00b6"]
    file["model"].update({"unk_token": "none", "merges": []})


OTHER: dict[str, Callable[[dict[str, Any]], object]] = {
    "normalizer that grows": grown,
    "normalizer": lambda file: file.update(normalizer=GROW),
    "no normalizer": lambda file: file.update(normalizer=None),
    "pre_tokenizer": lambda file: file.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
    "pattern": lambda file: file["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": "(?:b+)+c|(b|b)*d"}),
    "decoder": lambda file: file.update(decoder=GROW),
    "post_processor": lambda file: file.update(post_processor={"type": "Sequence", "processors": []}),
    "trimmed": lambda file: file["post_processor"].update(trim_offsets=True),
    "dropout": lambda file: file["model"].update(dropout=0.5),
    "prefix": lambda file: file["model"].update(continuing_subword_prefix="##"),
    "suffix": lambda file: file["model"].update(end_of_word_suffix=None),
    "bytes": lambda file: file["model"].update(byte_fallback=True),
    "type": lambda file: file["model"].update(type="Unigram"),
    "unknown key": lambda file: file.update(program={}),
    "unknown key of the model": lambda file: file["model"].update(program={}),
    "version": lambda file: file.update(version="2.0"),
    "merge out of the vocabulary": lambda file: file["model"]["merges"].append(["q", "zzzz"]),
    "merge of three": lambda file: file["model"]["merges"].append("q q q"),
    "id": lambda file: file["model"]["vocab"].update(x=1 << 40),
    "negative id": lambda file: file["model"]["vocab"].update(x=-1),
    "no word for the unknown, and a letter too few": letter_too_few,
    "added id": lambda file: file["added_tokens"].append({"id": 999_999, "content": "<x>"}),
}


@pytest.mark.parametrize("other", OTHER)
def test_other_steps_are_refused(tmp_path, other, capfd):
    file = document()
    OTHER[other](file)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file))
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        Tokenizer.load(path, SPEC)
    assert capfd.readouterr().err == ""  # where a panic writes


SAME: dict[str, Callable[[dict[str, Any]], object]] = {
    "merges as texts": lambda file: file["model"].update(merges=[" ".join(pair) for pair in file["model"]["merges"]]),
    "padding and truncation": lambda file: file.update(
        padding={"strategy": "BatchLongest"}, truncation={"max_length": 5}
    ),
    "transformers 4": lambda file: file["pre_tokenizer"]["pretokenizers"][0].update(
        pattern={"Regex": r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"}
    ),
    "an older library": lambda file: file["pre_tokenizer"]["pretokenizers"][1].pop("use_regex"),
    "no word for the unknown": lambda file: file["model"].update({"unk_token": "none"}),
    "no post_processor": lambda file: file.update(post_processor=None),
}


@pytest.mark.parametrize("same", SAME)
def test_forms_that_earlier_releases_wrote_are_read(tmp_path, same):
    file = document()
    SAME[same](file)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file))
    tokenizer, expected = Tokenizer.load(path, SPEC), Tokenizer.load(DEMO / "tokenizer" / "tokenizer.json", SPEC)
    for prompt in PROMPTS:
        assert np.array_equal(tokenizer.encode(prompt).ids, expected.encode(prompt).ids)


def small() -> dict[str, Any]:
    """The demo's tokenizer without most words, so that a change hits what decides."""
    file = document()
    model = file["model"]
    model["merges"] = model["merges"][:20]
    made = {"".join(pair) for pair in model["merges"]}
    longest = 6  # a letter, and the mark of a word's end
    model["vocab"] = {word: index for word, index in model["vocab"].items() if len(word) < longest or word in made}
    ends = {token["content"]: token["id"] for token in file["added_tokens"]}
    model["vocab"].update({word: index for word, index in ends.items() if word in document()["model"]["vocab"]})
    return file


VALUES: list[Any] = [
    *(None, True, 0, -1, 1 << 31, 1 << 63, 1e308, "", "b", "\0", "</w>", "<|endoftext|>", "x" * 2000, [], {}, [1]),
    *({"type": "Sequence", "normalizers": [GROW] * 5}, {"Regex": "(a|a)*b"}, {"type": "FixedLength", "length": 0}),
    ["a", "b"],
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All keys and indices; of long lists and tables some."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs)[:40]:
        yield (*path, key)
        yield from places(inner, (*path, key))


def mutated(file: dict[str, Any], chance: random.Random) -> bytes:
    file = copy.deepcopy(file)
    for _ in range(chance.choice((1, 1, 2, 4))):
        *path, key = chance.choice([place for place in places(file) if chance.random() < 0.2 or len(place) < 4])
        inside = file
        for step in path:
            inside = inside[step]
        kind = chance.randrange(4)
        if kind == 0:
            inside[key] = copy.deepcopy(chance.choice(VALUES))
        elif kind == 1:
            del inside[key]
        elif isinstance(inside, list):
            inside.insert(0, copy.deepcopy(chance.choice(VALUES)) if kind == 2 else copy.deepcopy(inside[key]))
        else:
            inside[chance.choice(("type", "b", "content", "vocab", str(key) + "x"))] = copy.deepcopy(
                chance.choice(VALUES)
            )
    raw = json.dumps(file).encode()
    if chance.random() < 0.1:
        raw = raw[: chance.randrange(len(raw))]
    return b"[" * 100_000 + raw if chance.random() < 0.02 else raw


def test_changed_tokenizers_read_prompts_or_are_refused(tmp_path, full, capfd):
    chance, file, path = random.Random(21), small(), tmp_path / "tokenizer.json"  # noqa: S311 - to be repeated
    count, taken = FULL if full else FEW, 0
    for _ in range(count):
        path.write_bytes(mutated(file, chance))
        try:
            tokenizer = Tokenizer.load(path, SPEC)
        except BundleError as error:
            assert str(path) in error.what  # noqa: PT017 - it may also be read
            continue
        taken += 1
        for prompt in PROMPTS:
            assert tokenizer.encode(prompt).ids.shape == (1, SPEC.length)
    assert 0.05 < taken / count < 0.95  # both happen
    assert capfd.readouterr().err == ""


def test_a_file_that_is_too_large_or_a_pipe_is_refused(tmp_path: Path):
    import os  # noqa: PLC0415

    (tmp_path / "large.json").touch()
    os.truncate(tmp_path / "large.json", 1 << 40)
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("large.json", "pipe.json"):
        with pytest.raises(BundleError, match=name):
            Tokenizer.load(tmp_path / name, SPEC)
