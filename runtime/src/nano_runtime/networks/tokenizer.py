"""Prompt to token ids, as CLIP's text encoder takes them: ``[BOS, words ..., EOS, padding ...]`` in equal chunks.

The vocabulary and the merges are in the bundle's ``tokenizer.json``, which ``clip_bpe`` reads, the length and the
special ids in its manifest. Ids equal those of transformers' ``CLIPTokenizer`` with ``padding="max_length",
truncation=True``; words of textual inversions stand for all their vectors, see ``inversions``. The ``tokenizers``
package is imported when a file is loaded, not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F64
from nano_runtime.bundle.manifest import TokenizerSpec
from nano_runtime.errors import PromptError, TamperedFileError
from nano_runtime.errors.escaping import first_line
from nano_runtime.networks.clip_bpe import MAX_BYTES, read_clip_bpe
from nano_runtime.networks.inversions import names_of, spell_out
from nano_runtime.networks.weighting import Fragment, parse
from nano_runtime.system.files import MACHINE_ERRNOS, open_plain
from nano_runtime.values import checked_length

if TYPE_CHECKING:
    import tokenizers

__all__ = ["LITERAL", "MAX_CHUNKS", "Reading", "TokenIds", "Tokenizer"]

MAX_CHUNKS: Final = 16  # each makes the UNet attend to as much again; 1200 words are more than anybody means

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Reading:
    """The way in which prompts are read.

    Attributes:
        weighted: brackets and ``BREAK`` have a meaning, see ``weighting``; otherwise a prompt is text.
        long: a prompt longer than one chunk goes on in the next; otherwise it is cut.
    """

    weighted: bool
    long: bool


LITERAL: Final = Reading(weighted=False, long=False)
"""As diffusers reads them."""


@dataclass(frozen=True, eq=False)
class TokenIds:
    """A tokenized prompt.

    Attributes:
        ids: int64 [chunks, length].
        weights: float64 [chunks, length], 1 for all but weighted words.
        count: tokens of the prompt, those that were cut included; without those that begin, end and fill chunks.
        used: how many of them ``ids`` has.
        cut: the end of the prompt that did not fit, without its syntax if that was read; empty if all did.
    """

    ids: NDArray[np.int64]
    weights: F64
    count: int
    used: int
    cut: str


@dataclass(frozen=True)
class _Token:
    """A word, or a part of one, with the place in the prompt (without its syntax) where it begins."""

    id: int
    weight: float
    place: int


class Tokenizer:
    """Byte-pair encoding of prompts. Use ``Tokenizer.load``.

    Args:
        encoder: without truncation or padding of its own.
        spec: length and special ids.
    """

    def __init__(self, encoder: tokenizers.Tokenizer, spec: TokenizerSpec) -> None:
        self._encoder = encoder
        self._spec = spec
        self._words = {word: ids for word, ids in spec.embeddings.items() if encoder.id_to_token(ids[0]) == word}

    @classmethod
    def load(cls, path: Path, spec: TokenizerSpec) -> Tokenizer:
        """Read a ``tokenizer.json``.

        Args:
            path: of the file.
            spec: from the manifest.

        Raises:
            TamperedFileError: the file is missing, is not a tokenizer, or has other tokens for a word's vectors.
        """
        try:
            with os.fdopen(open_plain(path), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > MAX_BYTES:
                    raise ValueError(f"{size} bytes are more than {MAX_BYTES}")  # noqa: TRY301 - told as below
                content = file.read(size)
            encoder = _call_rust(lambda: read_clip_bpe(content))
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # the package raises nothing more specific
            if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS:
                raise
            raise TamperedFileError(path, f"it cannot be read as a tokenizer ({first_line(error)})") from error
        for word, ids in spec.embeddings.items():
            if [encoder.token_to_id(name) for name in names_of(word, len(ids))] != ids:
                raise TamperedFileError(path, f"it has other tokens than the manifest for {word!r}")
        return cls(encoder, spec)

    @property
    def room(self) -> int:
        """Tokens of a prompt that fit one chunk, beside BOS and EOS."""
        return self._spec.length - 2

    def encode(self, prompt: str, reading: Reading = LITERAL) -> TokenIds:
        """Turn a prompt into ids; the part that does not fit is cut and reported.

        Long prompts fill their chunks to the last token. (A1111 begins a chunk after a comma if one is near; with its
        setting for that at 0, it makes the same chunks.)

        Raises:
            PromptError: it is longer than ``MAX_PROMPT_BYTES`` in UTF-8 or ``MAX_CHUNKS``, has half of a surrogate
                pair, or the encoder fails on it.
        """
        checked_length(prompt)
        sections = parse(prompt) if reading.weighted else ((Fragment(prompt, 1.0),),)
        chunks, text = self._chunks(sections)
        if reading.long and len(chunks) > MAX_CHUNKS:
            why = f"it fills {len(chunks)} chunks of {self.room} tokens, more than {MAX_CHUNKS}"
            raise PromptError(why, hint="Shorten it.")
        kept, others = (chunks, []) if reading.long else (chunks[:1], chunks[1:])
        used, rest = sum(map(len, kept)), [token for chunk in others for token in chunk]
        ids, weights = self._filled(kept)
        return TokenIds(ids, weights, used + len(rest), used, text[rest[0].place :] if rest else "")

    def _chunks(self, sections: tuple[tuple[Fragment, ...], ...]) -> tuple[list[list[_Token]], str]:
        """Return the tokens of each chunk, and the prompt without syntax. Each section starts a chunk."""
        chunks: list[list[_Token]] = []
        text = ""
        for section in sections:
            text += " " if chunks else ""
            tokens: list[_Token] = []
            for fragment in section:
                ids, starts = self._tokens(fragment.text)
                tokens += [
                    _Token(token, fragment.weight, len(text) + start) for token, start in zip(ids, starts, strict=True)
                ]
                text += fragment.text
            chunks += [tokens[at : at + self.room] for at in range(0, max(len(tokens), 1), self.room)]
        if len(chunks) > 1 and not chunks[-1]:
            chunks.pop()  # nothing follows the last break
        return chunks, text

    def _tokens(self, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of a text and where in it each begins."""
        spelled, places = spell_out(text, self._words, lambda: self._encoding(text).ids)
        encoding = self._encoding(spelled)
        return encoding.ids, [places[start] if start < len(places) else len(text) for start, _ in encoding.offsets]

    def _encoding(self, text: str) -> tokenizers.Encoding:
        """Tokenize a text as it is.

        Raises:
            PromptError: the encoder fails on it.
        """
        try:
            return _call_rust(lambda: self._encoder.encode(text, add_special_tokens=False))
        except Exception as error:  # the package raises nothing more specific
            raise PromptError(f"the tokenizer failed on it ({error})") from error

    def _filled(self, chunks: list[list[_Token]]) -> tuple[NDArray[np.int64], F64]:
        """Return ids and weights of chunks, filled up to their length."""
        spec = self._spec
        ids = np.full((len(chunks), spec.length), spec.pad_id, np.int64)
        weights = np.ones(ids.shape)
        for index, chunk in enumerate(chunks):
            end = len(chunk) + 1
            ids[index, : end + 1] = [spec.bos_id, *(token.id for token in chunk), spec.eos_id]
            weights[index, 1:end] = [token.weight for token in chunk]
        return ids, weights


def _call_rust(call: Callable[[], _Result]) -> _Result:
    """Run a call into Rust and turn its panic, which is no ``Exception``, into one; Ctrl-C and exit pass."""
    try:
        return call()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error
