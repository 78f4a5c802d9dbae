"""The UNet's inputs besides the latents: prompts and timesteps, each computed once and remembered.

In a *hoisted* bundle the UNet takes the keys and values that its cross-attention layers make of the prompt, and the
biases that its residual blocks make of the timestep; in a *standard* bundle it takes the hidden states and the timestep
themselves. Both are dictionaries of arrays by UNet input name here, so no later step has to know the form.

Prompts are computed in chunks of the text encoder's length, which do not know of each other; the UNet attends to all of
them in a row. Results are remembered by chunk: by its token ids and their weights.

Reading, encoding and projecting are three calls. After reading, the length of the UNet's prompts is known, so that it
can begin to load; after encoding, the text encoder can be freed.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import (
    HIDDEN_STATES,
    TEXT_ENCODER,
    TIMESTEP,
    TIMESTEP_COND,
    TOKENS,
    UNET,
    UNET_PROMPT,
    UNET_TIME,
)
from nano_runtime.engines.base import Runner
from nano_runtime.errors import LongPromptError, PromptError
from nano_runtime.errors.escaping import shortened
from nano_runtime.networks.guidance import embed_guidance, embedding_width
from nano_runtime.networks.other_syntax import read_as_words
from nano_runtime.networks.tokenizer import LITERAL, Reading, TokenIds, Tokenizer
from nano_runtime.networks.weighting import weigh

__all__ = ["Conditioner", "Conditions", "EncodedTexts", "ReadTexts", "UNetInputs"]

UNetInputs = dict[str, NDArray[Any]]  # float32; int64 for the timesteps of a standard bundle

_log = logging.getLogger(__name__)

_MOST_SHOWN = 200  # characters of a prompt in a warning
_REMEMBERED = 8  # a chunk of the full-size model takes about 8 MB, a schedule about 1 MB

Key = TypeVar("Key", bound=Hashable)
_Chunk = tuple[bytes, bytes]  # its token ids, int64, and their weights, float64


@dataclass(frozen=True, eq=False)
class ReadTexts:
    """Texts as tokens.

    Attributes:
        chunks: of each text; all texts have equally many.
        tokens: length of the UNet's prompts: size of its dimension of that name, 1 if it has none.
    """

    chunks: Mapping[str, Sequence[_Chunk]]
    tokens: int


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Texts after the text encoder.

    Attributes:
        chunks: of each text; all texts have equally many.
        known: the UNet's inputs for chunks that were projected before, arrays with one row.
        hidden: hidden states of the other chunks, float32 [1, length, width].
    """

    chunks: Mapping[str, Sequence[_Chunk]]
    known: Mapping[_Chunk, UNetInputs]
    hidden: Mapping[_Chunk, F32]


@dataclass(frozen=True, eq=False)
class Conditions:
    """The UNet's inputs besides the latents, for pictures that share its calls.

    Attributes:
        negative: of each picture's negative prompt, arrays with one row; empty if no call is guided. All of them twice
            if guided calls have three rows of each picture.
        positive: of each picture's prompt, arrays with one row.
        times: of each timestep, arrays with one row for each.
        timesteps: float32, of each call.
        behind: float32 [pictures, channels, h, w], what the UNet sees behind the latents; None if it has no such
            channels.
    """

    negative: Sequence[UNetInputs]
    positive: Sequence[UNetInputs]
    times: UNetInputs
    timesteps: F32
    behind: F32 | None = None


class Conditioner:
    """Turns texts and schedules into UNet inputs, for calls in any number of threads.

    Args:
        bundle: describes the graphs and the tokenizer.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._hoisted = bundle.manifest.graph == "hoisted"
        self._chunks: _Recent[_Chunk] = _Recent(_REMEMBERED)
        self._schedules: _Recent[bytes] = _Recent(_REMEMBERED)

    def read(
        self, texts: Iterable[str], reading: Reading = LITERAL, named: Callable[[str], str] = lambda _text: "prompt"
    ) -> ReadTexts:
        """Tokenize texts and give all the length of the longest: chunks of the empty text follow a shorter one.

        A1111 does so with its option "Pad prompt/negative prompt to be same length"; by default it runs both apart.

        Args:
            texts: prompts and negative prompts.
            reading: of all of them.
            named: says what a text is, a prompt or a negative one, for errors and warnings.

        Raises:
            PromptError: a text cannot be tokenized, or its weights are too large.
            LongPromptError: a text fills several chunks, and the bundle was exported before prompts could.
        """
        names = {text: named(text) for text in texts}
        read = {text: self.tokens(text, reading, which) for text, which in names.items()}
        count = max(len(tokens.ids) for tokens in read.values())
        free = bool(self._length_axes())
        if count > 1 and not free:
            raise LongPromptError(self._bundle.path, count)
        empty = self.tokens("", LITERAL)
        chunks = {}
        for text, tokens in read.items():
            for instruction, instead in read_as_words(text, weighted=reading.weighted):
                _log.warning("%s in the %s is read as words: %s", instruction, names[text], instead)
            if tokens.cut:
                unused = tokens.count - tokens.used
                told = (tokens.count, names[text], unused, _shown(text, tokens.cut))
                _log.warning("of %d tokens in the %s, the last %d were not used: %s", *told)
            rows = [*zip(tokens.ids, tokens.weights, strict=True)]
            rows += [(empty.ids[0], empty.weights[0])] * (count - len(rows))
            chunks[text] = [(ids.tobytes(), weights.tobytes()) for ids, weights in rows]
        return ReadTexts(chunks, count * empty.ids.shape[1] if free else 1)

    def encode(self, runner: Runner, texts: ReadTexts) -> EncodedTexts:
        """Run the text encoder on the chunks that are not remembered."""
        known: dict[_Chunk, UNetInputs] = {}
        hidden: dict[_Chunk, F32] = {}
        for chunk in dict.fromkeys(chain.from_iterable(texts.chunks.values())):
            if (row := self._chunks.get(chunk)) is not None:
                known[chunk] = row
            else:
                ids, weights = np.frombuffer(bytearray(chunk[0]), np.int64), np.frombuffer(chunk[1], np.float64)
                hidden[chunk] = weigh(self._hidden_states(runner, ids), weights)
        return EncodedTexts(texts.chunks, known, hidden)

    def project(self, runner: Runner, texts: EncodedTexts, guidance_scale: float) -> dict[str, UNetInputs]:
        """Return the UNet's inputs for each text: arrays with one row.

        Args:
            runner: runs the graphs.
            texts: encoded.
            guidance_scale: of the call, which some UNets of the standard form take as an input.
        """
        known = {**texts.known}
        for chunk, hidden in texts.hidden.items():
            row: UNetInputs = {HIDDEN_STATES: hidden}
            if self._hoisted:
                row = {**runner.run(UNET_PROMPT, row, batch=1)}
            known[chunk] = self._chunks.put(chunk, row)
        rows = {text: [known[chunk] for chunk in chunks] for text, chunks in texts.chunks.items()}
        guidance: UNetInputs = {} if self._hoisted else self._guidance(guidance_scale)
        return {
            text: {**(of[0] if len(of) == 1 else _joined(of, self._length_axes())), **guidance}
            for text, of in rows.items()
        }

    def forget(self) -> None:
        """Free the tokenizer and everything remembered."""
        self.__dict__.pop("_tokenizer", None)
        self._chunks.clear()
        self._schedules.clear()

    def tokens(self, text: str, reading: Reading, which: str = "prompt") -> TokenIds:
        """Tokenize a text, which errors call ``which``; nothing is computed.

        Raises:
            PromptError: it cannot be tokenized.
        """
        try:
            return self._tokenizer.encode(text, reading)
        except PromptError as error:
            raise error if which == "prompt" else PromptError(error.why, which, error.hint) from error

    def timesteps(self, runner: Runner, timesteps: F32, guidance_scale: float) -> UNetInputs:
        """Return the UNet's inputs for each timestep: arrays with one row for each.

        Args:
            runner: runs the graphs.
            timesteps: float32, of each call.
            guidance_scale: of the call, which some UNets of the hoisted form take along with the timestep.
        """
        if not self._hoisted:
            (spec,) = [spec for spec in self._bundle.component(UNET).inputs if spec.name == TIMESTEP]
            return {TIMESTEP: timesteps.astype(spec.dtype)}
        feeds: UNetInputs = {TIMESTEP: timesteps}
        for name, row in self._guidance(guidance_scale).items():
            feeds[name] = np.repeat(row, len(timesteps), axis=0)
        key = b"".join(values.tobytes() for values in feeds.values())
        if (table := self._schedules.get(key)) is None:
            table = self._schedules.put(key, {**runner.run(UNET_TIME, feeds, batch=len(timesteps))})
        return table

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """The tokenizer, read when the first text comes: meanwhile the graphs' checksums are compared."""
        spec = self._bundle.manifest.tokenizer
        return Tokenizer.load(self._bundle.verified_file(spec.file), spec)

    def _guidance(self, scale: float) -> UNetInputs:
        """Return the guidance scale as an input with one row; nothing for UNets that do not take it."""
        width = embedding_width(self._bundle.manifest)
        return {} if width is None else {TIMESTEP_COND: embed_guidance(scale, width)}

    def _length_axes(self) -> dict[str, int]:
        """Return the axis of each UNet input that is the prompt's length; none in bundles where it is fixed."""
        inputs = self._bundle.component(UNET).inputs
        return {spec.name: spec.shape.index(TOKENS) for spec in inputs if TOKENS in spec.shape}

    def _hidden_states(self, runner: Runner, ids: NDArray[np.int64]) -> F32:
        """Return the hidden states of a chunk, float32 [1, length, width]."""
        encoder = self._bundle.component(TEXT_ENCODER)
        feeds = {encoder.inputs[0].name: ids[np.newaxis]}
        return runner.run(TEXT_ENCODER, feeds, batch=1)[encoder.outputs[0].name]


def _joined(rows: Sequence[UNetInputs], axes: Mapping[str, int]) -> UNetInputs:
    """Put chunks in a row along the prompt's length."""
    return {name: np.concatenate([row[name] for row in rows], axis) for name, axis in axes.items()}


def _shown(prompt: str, cut: str) -> str:
    """Return what is cut from a prompt, to show: not too long, and with an ellipsis where a word begins before it."""
    begin = len(prompt) - len(cut)
    inside = prompt.endswith(cut) and prompt[begin - 1 : begin + 1].isalnum() and begin > 0
    return f"{'…' * inside}{shortened(cut, _MOST_SHOWN)}"


class _Recent(Generic[Key]):
    """The last few results by key, for many threads; ``functools.lru_cache`` would take all arguments for the key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._items: OrderedDict[Key, UNetInputs] = OrderedDict()

    def get(self, key: Key) -> UNetInputs | None:
        """Return a result and mark it as used, or None."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._items.clear()

    def put(self, key: Key, value: UNetInputs) -> UNetInputs:
        """Remember a result, forgetting the one longest unused if there are too many; return it."""
        with self._lock:
            self._items[key] = value
            if len(self._items) > self._size:
                self._items.popitem(last=False)
        return value
