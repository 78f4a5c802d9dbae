"""Traces each network once for all exports of a run, and compiles each graph once: most of the time of a tiny export.

A graph is found again by all that it was made of: the module with its weights and configs, and the inputs. OpenVINO
finds compiled graphs by their contents. Nothing else of an export is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import Tensor, nn

from nano_export import exporting as _exporting
from nano_export.judge import fidelity as _fidelity
from nano_runtime.engines import EngineOptions

__all__ = ["COMPILED", "share_work"]

exporting: Any = _exporting
fidelity: Any = _fidelity
COMPILED = "compiled"
"""Folder of OpenVINO's compiled graphs."""
_PLACE = ("_name_or_path", "name_or_path")
_PLAIN = (bool, int, float, str, list, tuple, type(None))


def share_work(folder: Path) -> None:
    """Let this process's exports take graphs from a folder, and leave there the ones that are not."""
    trace = exporting.to_onnx
    folder.mkdir(parents=True, exist_ok=True)
    for module in (exporting, fidelity):
        module.EngineOptions = partial(EngineOptions, cache=folder / COMPILED)

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
        plain = {key: value for key, value in vars(part).items() if isinstance(value, _PLAIN) and key not in _PLACE}
        config = getattr(part, "config", {})
        config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        config = {key: value for key, value in config.items() if key not in _PLACE}
        known.update(repr((type(part), sorted(plain.items()), config)).encode())
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        known.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        known.update(value.detach().contiguous().view(-1).numpy().tobytes())
    known.update(repr(_shapes(inputs)).encode())
    return known.hexdigest()


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype)
    return tuple(map(_shapes, value))
