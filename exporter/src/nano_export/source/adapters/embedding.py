"""Adds textual inversions to a checkpoint: new words of the tokenizer, and their vectors in the text encoder.

What diffusers' ``load_textual_inversion`` makes of the same file: each vector is a token of its own, ``<word>``,
``<word>_1``, ``<word>_2``, added at the end of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from nano_export.errors import CheckpointError, EmbeddingError, quoted
from nano_export.options import EmbeddingFile
from nano_export.source.adapters.lora import FAMILIES
from nano_export.source.adapters.tensor_file import read_tensors
from nano_export.source.checkpoint import Checkpoint
from nano_runtime.bundle.checksums import sha256_of
from nano_runtime.errors.escaping import unseen
from nano_runtime.networks.inversions import names_of

__all__ = ["Embedding", "add_embeddings", "open_embedding", "words_of", "words_of_one_vector"]

_A1111 = "emb_params"  # AUTOMATIC1111's one key; the word is the file's name
_LARGEST_BYTES = 64 << 20  # some hundred vectors of 2048 numbers are less than a megabyte
_MOST_VECTORS = 1024  # of one word, in the manifest
_LONGEST_WORD = 200  # letters, in the manifest
_AXES = 2
_OTHER_MODELS = {
    "clip_g": "Stable Diffusion XL",
    "clip_l": "Stable Diffusion XL or 3",
    "text_encoders_1": "Stable Diffusion XL",
    "t5": "Stable Diffusion 3 or Flux",
}


@dataclass(frozen=True)
class Embedding:
    """A textual inversion, checked as far as possible without a model.

    Attributes:
        path: of the file.
        sha256: lower-case hex, of the file.
        word: that stands for it in prompts.
        vectors: float32 [count, width], all finite.
    """

    path: Path
    sha256: str
    word: str
    vectors: torch.Tensor


def open_embedding(given: EmbeddingFile) -> Embedding:
    """Read a file by AUTOMATIC1111 (``emb_params``) or diffusers (one key, the word).

    Raises:
        EmbeddingError: the file does not exist, is no safetensors file or is damaged; it holds something else, or
            numbers that are not finite; or the word cannot be one.
    """
    path = given.path

    def fail(why: str) -> EmbeddingError:
        return EmbeddingError(path, why)

    tensors, _ = read_tensors(path, _LARGEST_BYTES, fail)
    if other := next((model for key, model in _OTHER_MODELS.items() if key in tensors), None):
        raise fail(f"it is for {other}: its tensors are {', '.join(map(quoted, sorted(tensors)[:3]))}")
    if len(tensors) > 1:
        some = ", ".join(map(quoted, sorted(tensors)[:3]))
        raise fail(f"it holds {len(tensors)} tensors ({some}), and an embedding has one")
    ((key, tensor),) = tensors.items()
    if not tensor.is_floating_point() or not tensor.float().isfinite().all():
        raise fail(f"its tensor {quoted(key)} has other values than finite floats")
    if tensor.ndim not in {1, _AXES} or tensor.numel() == 0:
        raise fail(f"its tensor {quoted(key)} is no vector and no list of vectors")
    vectors = tensor.float().reshape(-1, tensor.shape[-1])
    if len(vectors) > _MOST_VECTORS:
        raise fail(f"{len(vectors)} vectors are more than {_MOST_VECTORS}")
    word = given.word if given.word is not None else path.stem if key == _A1111 else key
    if not word.strip() or len(word) > _LONGEST_WORD or unseen(word):
        raise fail(f"{quoted(word)} cannot be a word of a prompt; name another: FILE=WORD")
    return Embedding(path, sha256_of(path), word, vectors)


def add_embeddings(checkpoint: Checkpoint, embeddings: Sequence[Embedding]) -> Checkpoint:
    """Add the words to a checkpoint's tokenizer and their vectors to its text encoder, both in place.

    Returns:
        The checkpoint, with ``embeddings`` also of words that it was saved with.

    Raises:
        EmbeddingError: a word exists already, or its vectors have another width; nothing was added.
        CheckpointError: the checkpoint has a word that cannot be one.
    """
    tokenizer, table = checkpoint.tokenizer, checkpoint.text_encoder.get_input_embeddings()
    known = set(tokenizer.get_vocab())
    for embedding in embeddings:
        _check_fit(embedding, known, table.weight.shape[1])
        known.update(names_of(embedding.word, len(embedding.vectors)))
    for embedding in embeddings:
        for name in names_of(embedding.word, len(embedding.vectors)):
            tokenizer.add_tokens(name)
    _add_rows(tokenizer, checkpoint.text_encoder, embeddings)
    return replace(checkpoint, embeddings=words_of(tokenizer))


def words_of(tokenizer: CLIPTokenizer) -> dict[str, tuple[int, ...]]:
    """Find the words of textual inversions among a tokenizer's added tokens: word -> ids of its vectors.

    As diffusers' ``maybe_convert_prompt`` finds them: a token followed by ``_1``, ``_2`` ... has several vectors.

    Raises:
        CheckpointError: a word of several vectors has letters that no manifest holds, or too many of them.
    """
    marked = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    special = {*tokenizer.all_special_tokens, *marked}
    added = tokenizer.added_tokens_encoder
    words: dict[str, tuple[int, ...]] = {}
    for word in added:
        count = 1
        while f"{word}_{count}" in added:
            count += 1
        words[word] = tuple(added[name] for name in names_of(word, count))
    parts = {part for ids in words.values() for part in ids[1:]}
    found: dict[str, tuple[int, ...]] = {}
    for word, ids in words.items():
        if len(ids) == 1 and (word in special or ids[0] in parts):
            continue
        if not word or len(word) > _LONGEST_WORD or unseen(word):
            if len(ids) > 1:
                raise CheckpointError("the tokenizer", f"its added token {quoted(word)} cannot be a word of a prompt")
            continue
        found[word] = ids
    return found


def words_of_one_vector(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Return the words of which only the first vector is drawn, and how the tokenizer writes them: in lower case.

    diffusers looks for the further vectors by what the tokenizer writes, and finds none. The runtime follows it.
    """
    written = checkpoint.tokenizer.backend_tokenizer.id_to_token
    several = [(word, written(ids[0])) for word, ids in checkpoint.embeddings.items() if len(ids) > 1]
    return [(word, other) for word, other in several if word != other]


def _check_fit(embedding: Embedding, known: set[str], width: int) -> None:
    """Refuse what diffusers refuses: another width, and a word that the tokenizer has already."""
    if (own := embedding.vectors.shape[1]) != width:
        raise EmbeddingError(
            embedding.path,
            f"its vectors are {own} wide{FAMILIES.get(own, '')}, the model's are {width} wide{FAMILIES.get(width, '')}",
        )
    names = {*names_of(embedding.word, len(embedding.vectors)), f"{embedding.word}_1"}
    if taken := sorted(names & known):
        raise EmbeddingError(
            embedding.path,
            f"the tokenizer has the word {quoted(taken[0])} already; name another, such as "
            f"{embedding.path.name}=<{taken[0].strip('<>')}-new>",
        )


def _add_rows(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, embeddings: Sequence[Embedding]) -> None:
    """Make the table of token embeddings longer, and write the vectors into the rows of their ids."""
    if not embeddings:
        return
    old = encoder.get_input_embeddings().weight.detach()
    table = nn.Embedding(max(len(tokenizer), len(old)), old.shape[1])
    with torch.no_grad():
        table.weight.zero_()
        table.weight[: len(old)] = old
        for embedding in embeddings:
            names = names_of(embedding.word, len(embedding.vectors))
            table.weight[tokenizer.convert_tokens_to_ids(names)] = embedding.vectors
    encoder.set_input_embeddings(table.requires_grad_(requires_grad=False))
    encoder.config.vocab_size = table.num_embeddings
