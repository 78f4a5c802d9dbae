"""What the UNet is told besides the latents: prompts and timesteps, each computed once and remembered.

In a *hoisted* bundle the UNet's inputs are what its cross-attention layers make of the prompt (keys and values) and
what its residual blocks make of the timestep; in a *standard* bundle they are the hidden states and the timestep
itself. Both are dictionaries of arrays by UNet input name here, so nothing further on tells the two forms apart.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nano_runtime.stages import Stages
from nano_runtime.timing import Stopwatch
from nano_runtime.tokenizer import Tokenizer

__all__ = ["Conditioner", "UNetInputs"]

UNetInputs = dict[str, NDArray[Any]]  # float32; int64 for the timesteps of a standard bundle

_log = logging.getLogger(__name__)

_REMEMBERED = 8  # a prompt of the full-size model takes about 8 MB, a schedule about 1 MB

Key = TypeVar("Key", bound=Hashable)


class Conditioner:
    """Turns texts and schedules into UNet inputs."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._hoisted = stages.bundle.manifest.graph == "hoisted"
        self._texts: _Recent[str] = _Recent(_REMEMBERED)
        self._schedules: _Recent[bytes] = _Recent(_REMEMBERED)

    def texts(self, texts: Iterable[str], watch: Stopwatch) -> dict[str, UNetInputs]:
        """Return what the UNet knows of each text: arrays with one row."""
        known = {}
        for text in texts:
            if (row := self._texts.get(text)) is None:
                row = self._texts.put(text, self._encode(text, watch))
            known[text] = row
        return known

    def timesteps(self, timesteps: NDArray[np.float32], watch: Stopwatch) -> UNetInputs:
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

    def _encode(self, text: str, watch: Stopwatch) -> UNetInputs:
        """Run one text through the text encoder and, in a hoisted bundle, the UNet's prompt projections."""
        tokens = self._tokenizer.encode(text)
        if tokens.cut:
            _log.warning("the prompt is too long; this end of it was not used: %s", tokens.cut)
        encoder = self._stages.bundle.component("text_encoder")
        feeds = {encoder.inputs[0].name: tokens.ids}
        hidden = self._stages.run("text_encoder", feeds, watch, batch=1)[encoder.outputs[0].name]
        if not self._hoisted:
            return {"encoder_hidden_states": hidden}
        return {**self._stages.run("unet_prompt", {"encoder_hidden_states": hidden}, watch, batch=1)}

    def _project(self, timesteps: NDArray[np.float32], watch: Stopwatch) -> UNetInputs:
        """Run the UNet's time projections for a whole schedule at once."""
        table = self._stages.run("unet_time", {"timestep": timesteps}, watch, batch=len(timesteps))
        self._stages.close("unet_time")  # the next schedule needs another batch size
        return {**table}


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

    def put(self, key: Key, value: UNetInputs) -> UNetInputs:
        """Remember a result, forgetting the one longest unused if there are too many; return it."""
        self._items[key] = value
        if len(self._items) > self._size:
            self._items.popitem(last=False)
        return value
