"""What the UNet is told besides the latents: prompts and timesteps, each computed once and remembered.

In a *hoisted* bundle the UNet's inputs are what its cross-attention layers make of the prompt (keys and values) and
what its residual blocks make of the timestep; in a *standard* bundle they are the hidden states and the timestep
itself. Both are dictionaries of arrays by UNet input name here, so nothing further on tells the two forms apart.

Prompts are computed in chunks of the text encoder's length, which do not know of each other; the UNet attends to all of
them in a row. So a chunk is what is remembered, under its token ids and their weights: the same words, read in another
way, have others.

All of it can also be kept for the next process: to draw the same prompt in the same steps it then loads nothing but the
UNet and what comes after it. Reading, encoding and projecting are three calls: after the first it is known how long the
UNet's prompts will be, so it can begin to load; after the second the text encoder can be let go.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F32
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import LongPromptError
from nano_runtime.networks.kept_outputs import KeptOutputs
from nano_runtime.networks.tokenizer import LITERAL, Reading, TokenIds, Tokenizer
from nano_runtime.networks.weighting import weigh
from nano_runtime.system.disk_cache import DiskCache
from nano_runtime.system.timing import Stopwatch

__all__ = ["Conditioner", "UNetInputs"]

UNetInputs = dict[str, NDArray[Any]]  # float32; int64 for the timesteps of a standard bundle

_log = logging.getLogger(__name__)

_HIDDEN_STATES = "encoder_hidden_states"
_REMEMBERED = 8  # a chunk of the full-size model takes about 8 MB, a schedule about 1 MB

Key = TypeVar("Key", bound=Hashable)
_Chunk = tuple[bytes, bytes]  # its token ids, int64, and their weights, float64


@dataclass(frozen=True, eq=False)
class ReadTexts:
    """Texts as tokens.

    Attributes:
        chunks: of each text, all of one number.
        tokens: how long the UNet's prompts will be: size of its dimension of that name, 1 if it has none.
    """

    chunks: Mapping[str, Sequence[_Chunk]]
    tokens: int


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Texts that the text encoder is done with.

    Attributes:
        chunks: of each text, all of one number.
        known: what the UNet knows of those that were projected before, arrays with one row.
        hidden: of the others, what the text encoder made of them, float32 [1, length, width].
    """

    chunks: Mapping[str, Sequence[_Chunk]]
    known: Mapping[_Chunk, UNetInputs]
    hidden: Mapping[_Chunk, F32]


class Conditioner:
    """Turns texts and schedules into UNet inputs.

    Args:
        stages: the graphs.
        blobs: where what the graphs made of prompts and timesteps is looked for, and left for the next process; None
            keeps nothing.
    """

    def __init__(self, stages: LoadedGraphs, blobs: DiskCache | None = None) -> None:
        self._stages = stages
        self._kept = KeptOutputs(stages, blobs)
        self._hoisted = stages.bundle.manifest.graph == "hoisted"
        self._chunks: _Recent[_Chunk] = _Recent(_REMEMBERED)
        self._schedules: _Recent[bytes] = _Recent(_REMEMBERED)

    def read(self, texts: Iterable[str], reading: Reading = LITERAL) -> ReadTexts:
        """Tokenize texts, which get one length: those with fewer chunks than the longest go on with the empty text.

        So does A1111.

        Raises:
            PromptError: a text cannot be tokenized, or its weights are too large.
            LongPromptError: a text fills several chunks, and the bundle was exported before prompts could.
        """
        read = {text: self.tokens(text, reading) for text in texts}
        count = max(len(tokens.ids) for tokens in read.values())
        free = bool(self._length_axes())
        if count > 1 and not free:
            raise LongPromptError(self._stages.bundle.path, count)
        empty = self.tokens("", LITERAL)
        chunks = {}
        for text, tokens in read.items():
            if tokens.cut:
                unused = tokens.count - tokens.used
                _log.warning(
                    "of %d tokens in the prompt, the last %d were not used: %s", tokens.count, unused, tokens.cut
                )
            rows = [*zip(tokens.ids, tokens.weights, strict=True)]
            rows += [(empty.ids[0], empty.weights[0])] * (count - len(rows))
            chunks[text] = [(ids.tobytes(), weights.tobytes()) for ids, weights in rows]
        return ReadTexts(chunks, count * empty.ids.shape[1] if free else 1)

    def encode(self, texts: ReadTexts, watch: Stopwatch) -> EncodedTexts:
        """Run the text encoder on what it has not seen before, in this process or, if that is kept, in another."""
        known: dict[_Chunk, UNetInputs] = {}
        hidden: dict[_Chunk, F32] = {}
        for chunk in dict.fromkeys(chain.from_iterable(texts.chunks.values())):
            if (row := self._chunks.get(chunk)) is not None:
                known[chunk] = row
            else:
                ids, weights = np.frombuffer(bytearray(chunk[0]), np.int64), np.frombuffer(chunk[1], np.float64)
                hidden[chunk] = weigh(self._hidden_states(ids, watch), weights)
        return EncodedTexts(texts.chunks, known, hidden)

    def project(self, texts: EncodedTexts, watch: Stopwatch) -> dict[str, UNetInputs]:
        """Return what the UNet knows of each text: arrays with one row."""
        known = {**texts.known}
        for chunk, hidden in texts.hidden.items():
            row: UNetInputs = {_HIDDEN_STATES: hidden}
            if self._hoisted:
                row = {**self._kept.run("unet_prompt", row, watch, batch=1)}
            known[chunk] = self._chunks.put(chunk, row)
        rows = {text: [known[chunk] for chunk in chunks] for text, chunks in texts.chunks.items()}
        return {text: of[0] if len(of) == 1 else _joined(of, self._length_axes()) for text, of in rows.items()}

    def forget(self) -> None:
        """Let go of the tokenizer and of everything computed so far; what is asked for again is made again."""
        self.__dict__.pop("_tokenizer", None)
        self._chunks.clear()
        self._schedules.clear()

    def tokens(self, text: str, reading: Reading) -> TokenIds:
        """Tokenize a text; nothing is computed.

        Raises:
            PromptError: it cannot be tokenized.
        """
        return self._tokenizer.encode(text, reading)

    def timesteps(self, timesteps: F32, watch: Stopwatch) -> UNetInputs:
        """Return what the UNet knows of each timestep: arrays with one row for each."""
        if not self._hoisted:
            (spec,) = [spec for spec in self._stages.bundle.component("unet").inputs if spec.name == "timestep"]
            return {"timestep": timesteps.astype(spec.dtype)}
        key = timesteps.tobytes()
        if (table := self._schedules.get(key)) is None:
            table = self._schedules.put(key, self._project(timesteps, watch))
        return table

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """Read when the first text comes: the graphs' checksums are being compared meanwhile."""
        spec = self._stages.bundle.manifest.tokenizer
        return Tokenizer.load(self._stages.bundle.verified_file(spec.file), spec)

    def _length_axes(self) -> dict[str, int]:
        """Return which axis of what the UNet knows of a prompt is its length; none in bundles where it is fixed."""
        inputs = self._stages.bundle.component("unet").inputs
        return {spec.name: spec.shape.index("tokens") for spec in inputs if "tokens" in spec.shape}

    def _hidden_states(self, ids: NDArray[np.int64], watch: Stopwatch) -> F32:
        """Return what the text encoder makes of a chunk, float32 [1, length, width]."""
        encoder = self._stages.bundle.component("text_encoder")
        feeds = {encoder.inputs[0].name: ids[np.newaxis]}
        return self._kept.run("text_encoder", feeds, watch, batch=1)[encoder.outputs[0].name]

    def _project(self, timesteps: F32, watch: Stopwatch) -> UNetInputs:
        """Run the UNet's time projections for a whole schedule at once."""
        table = self._kept.run("unet_time", {"timestep": timesteps}, watch, batch=len(timesteps))
        self._stages.close("unet_time")  # the next schedule needs another batch size
        return {**table}


def _joined(rows: Sequence[UNetInputs], axes: Mapping[str, int]) -> UNetInputs:
    """Put chunks in a row along the prompt's length."""
    return {name: np.concatenate([row[name] for row in rows], axis) for name, axis in axes.items()}


class _Recent(Generic[Key]):
    """The last few results by key; ``functools.lru_cache`` cannot be told which arguments matter."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Key, UNetInputs] = OrderedDict()

    def get(self, key: Key) -> UNetInputs | None:
        """Return a result and mark it as used, or None."""
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def clear(self) -> None:
        """Forget all."""
        self._items.clear()

    def put(self, key: Key, value: UNetInputs) -> UNetInputs:
        """Remember a result, forgetting the one longest unused if there are too many; return it."""
        self._items[key] = value
        if len(self._items) > self._size:
            self._items.popitem(last=False)
        return value
