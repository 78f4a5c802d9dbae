"""Prompt to token ids, as CLIP's text encoder takes them: ``[BOS, words ..., EOS, padding ...]`` of a fixed length.

The vocabulary and the merges are in the bundle's ``tokenizer.json`` (Hugging Face's format, written by the exporter),
the length and the special ids in its manifest. Ids equal those of transformers' ``CLIPTokenizer`` with
``padding="max_length", truncation=True``. The ``tokenizers`` package is imported when a file is loaded, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from nano_runtime.errors import PromptError, TamperedFileError
from nano_runtime.manifest import TokenizerSpec

if TYPE_CHECKING:
    import tokenizers

__all__ = ["MAX_PROMPT_BYTES", "TokenIds", "Tokenizer"]

MAX_PROMPT_BYTES: Final = 20_000  # some 60 times what the text encoder sees; the worst take a tenth of a second

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class TokenIds:
    """A tokenized prompt.

    Attributes:
        ids: int64 [1, length].
        cut: the end of the prompt that did not fit, as it was typed; empty if all did.
    """

    ids: NDArray[np.int64]
    cut: str


class Tokenizer:
    """Byte-pair encoding of prompts. Use ``Tokenizer.load``.

    Args:
        encoder: without truncation or padding of its own.
        spec: length and special ids.
    """

    def __init__(self, encoder: tokenizers.Tokenizer, spec: TokenizerSpec) -> None:
        self._encoder = encoder
        self._spec = spec

    @classmethod
    def load(cls, path: Path, spec: TokenizerSpec) -> Tokenizer:
        """Read a ``tokenizer.json``.

        Args:
            path: of the file.
            spec: from the manifest.

        Raises:
            TamperedFileError: the file is missing or is not a tokenizer.
        """
        from tokenizers import Tokenizer as Encoder  # noqa: PLC0415 - importing this module stays cheap

        try:
            encoder = _call_rust(lambda: Encoder.from_file(str(path)))
        except Exception as error:  # the package raises nothing more specific
            raise TamperedFileError(path, f"it cannot be read as a tokenizer ({error})") from error
        encoder.no_truncation()
        encoder.no_padding()
        return cls(encoder, spec)

    def encode(self, prompt: str) -> TokenIds:
        """Turn a prompt into ids; what does not fit is cut and reported.

        Raises:
            PromptError: it is longer than ``MAX_PROMPT_BYTES`` in UTF-8, has half of a surrogate pair, or the encoder
                fails on it.
        """
        try:
            size = len(prompt.encode())
        except UnicodeEncodeError as error:
            broken = prompt[error.start]
            raise PromptError(f"character {error.start + 1} is half of a pair (U+{ord(broken):04X})") from error
        if size > MAX_PROMPT_BYTES:
            raise PromptError(f"it has {size} bytes, more than {MAX_PROMPT_BYTES}")
        try:
            encoding = _call_rust(lambda: self._encoder.encode(prompt, add_special_tokens=False))
        except Exception as error:  # the package raises nothing more specific
            raise PromptError(f"the tokenizer failed on it ({error})") from error

        spec = self._spec
        room = spec.length - 2  # for BOS and EOS
        words = encoding.ids[:room]
        ids = np.full((1, spec.length), spec.pad_id, np.int64)
        ids[0, : len(words) + 2] = [spec.bos_id, *words, spec.eos_id]
        cut = prompt[encoding.offsets[room][0] :] if len(encoding.ids) > room else ""
        return TokenIds(ids, cut)


def _call_rust(call: Callable[[], _Result]) -> _Result:
    """Run a call into Rust and turn its panic, which is no ``Exception``, into one; Ctrl-C and exit pass."""
    try:
        return call()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error
