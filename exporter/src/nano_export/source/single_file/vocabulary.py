"""Finds the vocabulary of CLIP, which single files do not hold, and writes it as Stable Diffusion's tokenizer folder.

It is third-party data, so it does not come with this package. It is taken from a folder that the user names, from
``tokenizer/`` beside the file, from the Hub client's cache, or from the package ``open_clip_torch``, in this order.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from nano_export.errors import SingleFileError, VocabularyNotFoundError
from nano_export.source.json_file import read_json
from nano_export.source.readable import require_text

__all__ = ["Vocabulary", "find_vocabulary", "write_tokenizer"]

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_PACKAGE, _PACKED = "open_clip_torch", "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2  # lines of that file that CLIP uses, behind its first (openai/CLIP, simple_tokenizer.py)
# SHA-256 of CLIP's words and merges as ``_digest`` writes them: what is found in a cache may be another model's.
_CLIP = "5c74bda2debe603bf018e698b79919c27e521c3836590fb59604c36999877339"


@dataclass(frozen=True)
class Vocabulary:
    """Words and merges of a byte-pair encoding.

    Attributes:
        words: -> ids.
        merges: pairs, most frequent first.
    """

    words: dict[str, int]
    merges: list[tuple[str, str]]


def find_vocabulary(file: Path, asked: Path | None) -> Vocabulary:
    """Return the vocabulary for a single file.

    Args:
        file: a folder ``tokenizer`` beside it is taken.
        asked: a folder with vocab.json and merges.txt, or with tokenizer.json; None if the user named none.

    Raises:
        VocabularyNotFoundError: there is none in any place.
        SingleFileError: a folder has none, or more than a vocabulary.
        CheckpointError: its files are damaged.
    """
    beside = file.parent / "tokenizer"
    if asked is None and beside.is_dir():
        asked = beside
    if asked is not None:
        return _of_folder(asked)
    for folder in _cached_folders():
        found = _of_folder(folder)
        if _digest(found) == _CLIP:
            return found
    packed = _packed()
    if packed is None:
        raise VocabularyNotFoundError(file)
    return _unpacked(packed)


def write_tokenizer(folder: Path, vocabulary: Vocabulary, family: int, length: int) -> None:
    """Write a tokenizer folder as the repositories of Stable Diffusion have it.

    Stable Diffusion 1 pads prompts with the token that ends them, 2 with "!". The two config files of the latter
    disagree on that, and transformers goes by special_tokens_map.json.

    Args:
        folder: is created.
        vocabulary: with CLIP's two special tokens.
        family: Stable Diffusion 1 or 2.
        length: of the text encoder's input.
    """
    folder.mkdir(parents=True)
    begin, end = (
        {"content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        for token in (_BOS, _EOS)
    )
    special: dict[str, Any] = {"bos_token": begin, "eos_token": end, "unk_token": end}
    config = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": length,
        "pad_token": _EOS,
        "tokenizer_class": "CLIPTokenizer",
        **{name: {"__type": "AddedToken", **token} for name, token in special.items()},
    }
    texts = {
        "vocab.json": json.dumps(vocabulary.words, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, vocabulary.merges)]) + "\n",
        "special_tokens_map.json": json.dumps({**special, "pad_token": _EOS if family == 1 else "!"}),
        "tokenizer_config.json": json.dumps(config),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _of_folder(folder: Path) -> Vocabulary:
    """Read a folder in either form of transformers."""
    words: Any
    merges: list[list[str]]
    added: list[Any] = []
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        words = read_json(folder / "vocab.json")
        require_text(folder / "merges.txt")
        lines = (folder / "merges.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        merges = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
        if (folder / "added_tokens.json").is_file():
            added = list(read_json(folder / "added_tokens.json"))
    elif (folder / "tokenizer.json").is_file():
        content = read_json(folder / "tokenizer.json")
        model = content.get("model")
        model = model if isinstance(model, dict) else {}
        words = model.get("vocab")
        added = [token.get("content") for token in _listed(content, "added_tokens") if isinstance(token, dict)]
        merges = [merge.split() if isinstance(merge, str) else merge for merge in _listed(model, "merges")]
    else:
        raise SingleFileError(folder, "it has neither vocab.json and merges.txt nor tokenizer.json", _GIVE)
    whole = isinstance(words, dict) and all(isinstance(index, int) for index in words.values())
    if not whole or not {_BOS, _EOS} <= words.keys() or not all(map(_is_pair, merges)):
        raise SingleFileError(folder, f"it holds no vocabulary of CLIP, with {_BOS} and {_EOS}", _GIVE)
    further = sorted(set(map(str, added)) - words.keys())
    if further:
        raise SingleFileError(
            folder,
            f"its tokenizer has words beyond its vocabulary: {further[0]}",
            "Add each with nano-export --embedding FILE; a whole tokenizer comes with --config FOLDER.",
        )
    return Vocabulary(words, [(left, right) for left, right in merges])


def _listed(content: dict[str, Any], key: str) -> list[Any]:
    """Return a list of a JSON object; none where there is something else."""
    found = content.get(key)
    return found if isinstance(found, list) else []


def _is_pair(merge: object) -> bool:
    return isinstance(merge, list) and len(merge) == 2 and all(isinstance(part, str) for part in merge)  # noqa: PLR2004


_GIVE = "Give --tokenizer FOLDER with vocab.json and merges.txt, as every Stable Diffusion repository has them."


def _cached_folders() -> Iterator[Path]:
    """Yield the tokenizers in the Hub client's cache, without a network."""
    for name in ("", "tokenizer/"):
        for path in sorted(Path(constants.HF_HUB_CACHE).glob(f"models--*/snapshots/*/{name}merges.txt")):
            folder = path.parent
            if (folder / "vocab.json").is_file() and not (folder / "added_tokens.json").is_file():
                yield folder


def _packed() -> Path | None:
    """Return the vocabulary's file in the package; None without the package, which is not imported."""
    try:
        files = metadata.files(_PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files or [] if file.name == _PACKED]
    return found[0] if found and found[0].is_file() else None


def _unpacked(path: Path) -> Vocabulary:
    """Read the file, as openai/CLIP's ``SimpleTokenizer`` does."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = [(left, right) for left, right in map(str.split, lines[1 : _MERGES + 1])]
    letters = _letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), _BOS, _EOS]
    return Vocabulary({word: index for index, word in enumerate(words)}, merges)


def _letters() -> list[str]:
    """Return the characters that stand for the 256 bytes, in CLIP's order: printable bytes first, as themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, printable), *(chr(256 + index) for index in range(256 - len(printable)))]


def _digest(vocabulary: Vocabulary) -> str:
    """Return a checksum of words, in the order of their ids, and merges."""
    words = sorted(vocabulary.words, key=vocabulary.words.__getitem__)
    return hashlib.sha256(json.dumps([words, vocabulary.merges]).encode()).hexdigest()
