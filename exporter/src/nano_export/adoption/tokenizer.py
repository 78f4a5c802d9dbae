"""Builds CLIP's tokenizer from a vocabulary and its merges, as transformers' ``CLIPTokenizer`` does, without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from nano_export.errors import CheckpointError
from nano_export.source.json_file import read_json
from nano_export.source.readable import require_text
from nano_runtime.errors.escaping import first_line
from nano_runtime.networks.clip_bpe import clip_bpe

__all__ = ["ClipTokenizer", "clip_tokenizer"]

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_DEFAULTS = {"bos_token": _BOS, "eos_token": _EOS, "unk_token": _EOS, "pad_token": _EOS}  # CLIPTokenizer's
_LONGEST = 10_000  # configs without a length have 1e30


@dataclass(frozen=True)
class ClipTokenizer:
    """A tokenizer.

    Attributes:
        encoder: with all added tokens.
        pad_id: id that fills a chunk.
        bos_id: id that begins a chunk.
        eos_id: id that ends a chunk.
        length: tokens of a chunk, if the config names it.
        words: of textual inversions with several vectors, each with the ids of its vectors in order.
    """

    encoder: Tokenizer
    pad_id: int
    bos_id: int
    eos_id: int
    length: int | None
    words: dict[str, list[int]]


def clip_tokenizer(folder: Path) -> ClipTokenizer:
    """Build the tokenizer of a folder with ``vocab.json`` and ``merges.txt``, or with ``tokenizer.json``.

    Matches transformers 5.23, ``CLIPTokenizer`` and ``PreTrainedTokenizerBase._from_pretrained``: which special tokens
    count if the files disagree, and which tokens are added.

    Raises:
        CheckpointError: a file is missing or damaged, a special token is not in the vocabulary, or prompts are padded
            or cut at their beginning.
    """
    config_file = folder / "tokenizer_config.json"
    config = read_json(config_file) if config_file.is_file() else {}
    special = _special_tokens(folder, config)
    for key in ("padding_side", "truncation_side"):
        if (side := config.get(key, "right")) != "right":
            raise CheckpointError(config_file, f"its {key} is {side!r}; Nano pads and cuts prompts at their end")
    try:
        encoder = clip_bpe(*_vocabulary(folder), special["unk_token"].content)
        encoder.add_tokens(_added_tokens(folder, config))
        encoder.add_tokens([token for token in special.values() if token.content not in _added(encoder)])
    except CheckpointError:
        raise
    except Exception as error:  # the package raises nothing more specific
        raise CheckpointError(folder, first_line(error)) from error
    ids = {name: encoder.get_vocab()[token.content] for name, token in special.items()}
    end, begin = ((special[name].content, ids[name]) for name in ("eos_token", "bos_token"))
    encoder.post_processor = processors.RobertaProcessing(end, begin, trim_offsets=False, add_prefix_space=False)
    length = config.get("model_max_length")
    return ClipTokenizer(
        encoder=encoder,
        pad_id=ids["pad_token"],
        bos_id=ids["bos_token"],
        eos_id=ids["eos_token"],
        length=int(length) if isinstance(length, (int, float)) and length <= _LONGEST else None,
        words=_words(encoder),
    )


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return ids and merges, from the two files or from ``tokenizer.json``."""
    if (folder / "vocab.json").is_file():
        file = folder / "merges.txt"
        lines = [line for line in _text(file).splitlines() if line.strip() and not line.startswith("#version")]
        return read_json(folder / "vocab.json"), _pairs(lines, file)
    file = folder / "tokenizer.json"
    model = read_json(file).get("model", {})
    return model.get("vocab", {}), _pairs(model.get("merges", []), file)


def _words(encoder: Tokenizer) -> dict[str, list[int]]:
    """Find words of several vectors as diffusers' ``maybe_convert_prompt`` does: a token, and others with _1, _2 ..."""
    added = {token.content: index for index, token in encoder.get_added_tokens_decoder().items()}
    words: dict[str, list[int]] = {}
    for word, index in added.items():
        ids = [index]
        while (name := f"{word}_{len(ids)}") in added:
            ids.append(added[name])
        if word and len(ids) > 1:
            words[word] = ids
    return words


def _pairs(merges: Sequence[str | Sequence[str]], file: Path) -> list[tuple[str, str]]:
    """Return merges as pairs; a merge is written as one text with a blank, or as a list."""
    pairs = [tuple(merge.split() if isinstance(merge, str) else merge) for merge in merges]
    if (wrong := next((pair for pair in pairs if len(pair) != 2), None)) is not None:  # noqa: PLR2004
        raise CheckpointError(file, f"the merge {' '.join(wrong)!r} is no pair")
    return [(pair[0], pair[1]) for pair in pairs]


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, AddedToken]:
    """Return begin, end, unknown and padding; ``special_tokens_map.json`` wins unless the config lists added tokens."""
    said = {name: config[name] for name in _DEFAULTS if config.get(name) is not None}
    table = folder / "special_tokens_map.json"
    if "added_tokens_decoder" not in config and table.is_file():
        said |= {name: value for name, value in read_json(table).items() if name in _DEFAULTS}
    return {name: _token(said.get(name, default), special=True) for name, default in _DEFAULTS.items()}


def _added_tokens(folder: Path, config: Mapping[str, Any]) -> list[AddedToken]:
    """Return the tokens that the files add to the vocabulary, in the order of their ids."""
    listed = {int(index): _token(value) for index, value in config.get("added_tokens_decoder", {}).items()}
    if "added_tokens_decoder" not in config:
        file = folder / "added_tokens.json"
        listed |= {index: _token(text) for text, index in (read_json(file) if file.is_file() else {}).items()}
        if (folder / "tokenizer.json").is_file():
            for entry in read_json(folder / "tokenizer.json").get("added_tokens", []):
                listed[entry["id"]] = _token({key: value for key, value in entry.items() if key != "id"})
    return [token for _, token in sorted(listed.items())]


def _token(value: Any, *, special: bool = False) -> AddedToken:  # noqa: ANN401 - a value of JSON
    """Read a token, which is its text or a record."""
    if not isinstance(value, dict):
        return AddedToken(str(value), special=special, normalized=not special)
    options = {key: value[key] for key in ("single_word", "lstrip", "rstrip", "normalized") if key in value}
    return AddedToken(value["content"], special=special or bool(value.get("special")), **options)


def _added(encoder: Tokenizer) -> set[str]:
    return {token.content for token in encoder.get_added_tokens_decoder().values()}


def _text(path: Path) -> str:
    require_text(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(path, str(error)) from error
