"""Loads the tokenizer, and checks that it fits the text encoder.

transformers obeys a tokenizer's config: it may name files anywhere, a tokenizer inside of a GGUF file, or code. Only
what describes CLIP's tokenizer is handed on.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from transformers import CLIPTextModel, CLIPTokenizer

from nano_export.errors import CheckpointError, UnsupportedModelError
from nano_export.source.json_file import read_json
from nano_export.source.quiet import quiet_libraries
from nano_export.source.readable import require_readable, require_text
from nano_runtime.errors.escaping import first_line

__all__ = ["check_fit", "load_tokenizer", "tokenizer_files"]

_SHORTEST = 3  # tokens of a prompt: begin, a word, end
_WHOLE, _MERGES = "tokenizer.json", "merges.txt"
_TOKENS: Final = frozenset(("additional_special_tokens", "extra_special_tokens"))
# Config -> its keys that are handed on, beside those of single tokens; None hands on all.
_CONFIGS: Final[dict[str, frozenset[str] | None]] = {
    _WHOLE: frozenset(("version", "truncation", "padding", "added_tokens")),
    "vocab.json": None,
    "added_tokens.json": None,
    "special_tokens_map.json": _TOKENS,
    "tokenizer_config.json": _TOKENS
    | {
        *("model_max_length", "max_len", "padding_side", "truncation_side", "added_tokens_decoder"),
        *("split_special_tokens", "add_prefix_space", "clean_up_tokenization_spaces", "do_lower_case", "errors"),
    },
}
_OF_A_TOKEN: Final = "_token"  # noqa: S105 - ends the names of bos_token, pad_token, and of others that there may be


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load a tokenizer in either form: tokenizer.json, or vocab.json and merges.txt.

    Raises:
        CheckpointError: a file is missing, damaged, or cannot be read.
        UnsupportedModelError: it pads or cuts prompts at their beginning.
    """
    needed = ("tokenizer.json",) if (folder / "tokenizer.json").is_file() else ("vocab.json", "merges.txt")
    for name in needed:
        require_readable(folder / name)
    try:
        with TemporaryDirectory(prefix="nano-export-") as place, quiet_libraries():
            _hand_on(folder, Path(place))
            tokenizer = CLIPTokenizer.from_pretrained(place, local_files_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the library behind it raises plain ones
        raise CheckpointError(folder, first_line(error).replace(place, str(folder))) from error
    for key in ("padding_side", "truncation_side"):
        if (side := getattr(tokenizer, key)) != "right":  # prompts would be padded, or cut, at their beginning
            raise UnsupportedModelError(folder, f"{key}={side!r}", ["'right', as every Stable Diffusion has it"])
    return tokenizer


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a tokenizer that are read; what else a folder has is left alone."""
    names = (*_CONFIGS, _MERGES)
    return [path for name in names if (path := folder / name).is_symlink() or path.exists()]


def _hand_on(folder: Path, place: Path) -> None:
    """Write into an empty folder what the library gets to see.

    Raises:
        CheckpointError: a file is damaged, or cannot be read.
    """
    for path in tokenizer_files(folder):
        if path.name == _MERGES:
            require_text(path)
            shutil.copyfile(path, place / path.name)
            continue
        kept, known = read_json(path), _CONFIGS[path.name]
        model = kept.get("model")
        if known is not None:
            kept = {key: value for key, value in kept.items() if key in known or key.endswith(_OF_A_TOKEN)}
        if path.name == _WHOLE:
            kept["model"] = _model_of(model, path)
        (place / path.name).write_text(json.dumps(kept), encoding="utf-8")


def _model_of(model: object, path: Path) -> dict[str, Any]:
    """Return the vocabulary and the merges of a tokenizer.json, which is all that transformers' class takes of it.

    Raises:
        CheckpointError: it has none; a text in their place would be the name of another file.
    """
    found = model if isinstance(model, dict) else {}
    vocabulary, merges = found.get("vocab"), found.get("merges")
    if not isinstance(vocabulary, (dict, list)) or not isinstance(merges, list):
        raise CheckpointError(path, "its model has no vocab and merges")
    return {"type": "BPE", "vocab": vocabulary, "merges": merges}


def check_fit(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, folder: Path) -> None:
    """Check that the text encoder knows every token, and set the length that both can work with.

    diffusers pads prompts to ``model_max_length``. Without one, or with one that the text encoder has no positions for,
    it cannot draw; the text encoder's own length is taken then.

    Args:
        tokenizer: whose length is set.
        text_encoder: whose embeddings the ids choose.
        folder: of the tokenizer, for messages.

    Raises:
        CheckpointError: an id has no embedding, a token that every prompt needs is missing, or no prompt has room.
    """
    rows = text_encoder.get_input_embeddings().weight.shape[0]
    for role in ("bos_token", "eos_token", "pad_token"):
        if getattr(tokenizer, f"{role}_id") is None:
            raise CheckpointError(folder, f"it has no {role}")
    word, last = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1], default=("", -1))
    if last >= rows:
        raise CheckpointError(
            folder,
            f"its token {word!r} has the id {last}, and the text encoder has embeddings for {rows} tokens only; "
            "they are of different models, or the text encoder was saved without its new tokens",
        )
    length = tokenizer.model_max_length
    if not isinstance(length, (int, float)) or not length >= _SHORTEST:
        raise CheckpointError(folder, f"model_max_length={length!r} leaves no room for a prompt")
    tokenizer.model_max_length = int(min(length, text_encoder.config.max_position_embeddings))
    if tokenizer.model_max_length < _SHORTEST:
        raise CheckpointError(
            folder, f"the text encoder has {tokenizer.model_max_length} positions, no room for a prompt"
        )
