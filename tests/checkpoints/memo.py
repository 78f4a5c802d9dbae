"""Traces each network once for all exports of a run: tracing takes nine tenths of the time of a tiny export.

A graph is found again by all that it was made of: the module with its weights and configs, and the inputs. Nothing else of
an export is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import Tensor, nn

from nano_export import exporting as _exporting

__all__ = ["share_traces"]

exporting: Any = _exporting
_PLAIN = (bool, int, float, str, type(None))


def share_traces(folder: Path) -> None:
    """Let this process's exports take graphs from a folder, and leave there the ones that are not."""
    trace = exporting.to_onnx
    folder.mkdir(parents=True, exist_ok=True)

    def to_onnx(module: nn.Module, inputs: Sequence[Any], *names: Sequence[str]) -> ir.Model:
        kept = folder / f"{_identity(module, inputs, names)}.onnx"
        if not kept.exists():
            fresh = kept.with_suffix(f".{os.getpid()}.onnx")
            ir.save(trace(module, inputs, *names), fresh)
            fresh.rename(kept)
        return ir.load(kept)

    exporting.to_onnx = to_onnx


def _identity(module: nn.Module, inputs: Sequence[Any], names: object) -> str:
    """Hash what a graph depends on."""
    known = hashlib.sha256(repr((module, names)).encode())
    for part in module.modules():
        plain = {key: value for key, value in vars(part).items() if isinstance(value, _PLAIN)}
        known.update(repr((type(part), sorted(plain.items()), getattr(part, "config", None))).encode())
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        known.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        known.update(value.detach().contiguous().view(-1).numpy().tobytes())
    known.update(repr(_shapes(inputs)).encode())
    return known.hexdigest()


def _shapes(value: Any) -> Any:  # noqa: ANN401 (inputs are tensors, and tuples of them)
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype)
    return tuple(map(_shapes, value))
