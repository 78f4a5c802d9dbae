"""Spares exports the tracing of networks and the compiling of graphs that were done before: most of a small export.

Neither changes a graph: a trace depends on the network and its inputs, and a compiled graph on its content. Nothing
else of an export is kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from filelock import FileLock
from torch import Tensor, nn

from nano_export import exporting as _exporting
from nano_export.judge import fidelity as _fidelity
from nano_runtime.engines import EngineOptions

__all__ = ["COMPILED", "keep_work", "work_kept"]

exporting: Any = _exporting
fidelity: Any = _fidelity
COMPILED = "compiled"
"""Folder of OpenVINO's compiled graphs."""
_ORIGIN = ("_name_or_path", "name_or_path", "_class_name", "_diffusers_version", "_use_default_values")
_PLAIN = (bool, int, float, str, list, tuple, type(None))


def keep_work(folder: Path) -> None:
    """Let this process's exports take traced and compiled graphs from a folder, which other processes may share.

    A trace is found again by all that it was made of: the module with its weights and configs, and the inputs. OpenVINO
    finds compiled graphs by their contents.
    """
    for module in (exporting, fidelity):
        module.EngineOptions = functools.partial(EngineOptions, cache=folder / COMPILED)
    exporting.to_onnx = _keeping(exporting.to_onnx, folder)


@contextlib.contextmanager
def work_kept(folder: Path) -> Iterator[None]:
    """Do so for a while."""
    before = exporting.to_onnx
    keep_work(folder)
    try:
        yield
    finally:
        exporting.to_onnx = before
        for module in (exporting, fidelity):
            module.EngineOptions = EngineOptions


def _keeping(trace: Callable[..., ir.Model], folder: Path) -> Callable[..., ir.Model]:
    folder.mkdir(parents=True, exist_ok=True)

    def to_onnx(module: nn.Module, inputs: Sequence[Any], *names: Sequence[str]) -> ir.Model:
        kept = folder / f"{_identity(module, inputs, names)}.onnx"
        with FileLock(kept.with_suffix(".lock")):
            if not kept.exists():
                fresh = kept.with_suffix(".part.onnx")
                ir.save(trace(module, inputs, *names), fresh)
                fresh.rename(kept)
        return ir.load(kept)

    return to_onnx


def _identity(module: nn.Module, inputs: Sequence[Any], names: object) -> str:
    """Hash what a graph depends on."""
    known = hashlib.sha256(repr((module, names)).encode())
    for part in module.modules():
        plain = {key: value for key, value in vars(part).items() if isinstance(value, _PLAIN) and key not in _ORIGIN}
        config = getattr(part, "config", {})
        config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        config = {key: value for key, value in config.items() if key not in _ORIGIN}
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
