"""Loads the tokenizer, and checks that it fits the text encoder."""

from __future__ import annotations

from pathlib import Path

from transformers import CLIPTextModel, CLIPTokenizer

from nano_export.errors import CheckpointError, UnsupportedModelError
from nano_export.source.json_file import read_json
from nano_export.source.readable import require_readable
from nano_runtime.errors.escaping import first_line

__all__ = ["check_fit", "load_tokenizer"]

_SHORTEST = 3  # tokens of a prompt: begin, a word, end
_CONFIGS = ("tokenizer.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load a tokenizer in either form: tokenizer.json, or vocab.json and merges.txt.

    Raises:
        CheckpointError: a file is missing, damaged, or cannot be read.
        UnsupportedModelError: it pads or cuts prompts at their beginning.
    """
    needed = ("tokenizer.json",) if (folder / "tokenizer.json").is_file() else ("vocab.json", "merges.txt")
    for name in needed:
        require_readable(folder / name)
    for name in _CONFIGS:
        if (path := folder / name).is_symlink() or path.exists():
            read_json(path)
    if (folder / "merges.txt").is_symlink():
        require_readable(folder / "merges.txt")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library behind it raises plain ones
        raise CheckpointError(folder, first_line(error)) from error
    if not isinstance(tokenizer, CLIPTokenizer):
        raise CheckpointError(folder, f"it is a {type(tokenizer).__name__}, not a CLIPTokenizer")
    for key in ("padding_side", "truncation_side"):
        if (side := getattr(tokenizer, key)) != "right":  # prompts would be padded, or cut, at their beginning
            raise UnsupportedModelError(folder, f"{key}={side!r}", ["'right', as every Stable Diffusion has it"])
    return tokenizer


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
