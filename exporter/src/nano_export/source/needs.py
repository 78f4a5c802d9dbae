"""Estimates the disk and memory that an export needs, and refuses before the work begins if they are not there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nano_export.options import BUILT_IN, Precision
from nano_export.source import builtin
from nano_runtime.errors import DiskSpaceError, NotEnoughMemoryError
from nano_runtime.system.machine import memory_available_bytes

__all__ = ["Needs", "check_resources"]

# Measured for the 5.16 GB of the full-size network (bench/LOG.md): 6.0 GB in INT8, and up to
# 10.2 in fp32, where whole weights are compared with the original's.
_MEMORY_PER_WEIGHT_BYTE = {"int8": 1.0, "fp32": 1.75}
_MEMORY_BASE_BYTES = 1.2e9
_NANO_WEIGHT_BYTES = 5.16e9  # assumed for a Hub model, which was not fetched yet


@dataclass(frozen=True)
class Needs:
    """An estimate of the disk and memory that an export takes at its peak."""

    disk_bytes: int
    memory_bytes: int


def check_resources(model: str, output: Path, precision: Precision, engines: int) -> Needs:
    """Compare an estimate with the free disk and memory, and return it.

    Args:
        model: as in ``Options``.
        output: folder of the bundle.
        precision: of the bundle.
        engines: how many have graphs of their own.

    Raises:
        DiskSpaceError: the float graphs and the bundle would not fit.
        NotEnoughMemoryError: the network and a running engine would not fit.
    """
    weights = _weight_bytes(model)
    bundle = weights * engines * (0.27 if precision == "int8" else 1.0)
    needed = int(bundle + (weights if precision == "int8" else 0) + 0.1e9)
    parent = output.absolute().parent
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DiskSpaceError(parent, needed, free)
    memory = int(weights * _MEMORY_PER_WEIGHT_BYTE[precision] + _MEMORY_BASE_BYTES)
    available = memory_available_bytes()
    if available is not None and available < memory:
        raise NotEnoughMemoryError(f"exporting {model}", memory, available)
    return Needs(disk_bytes=needed, memory_bytes=memory)


def _weight_bytes(model: str) -> float:
    """Return the size of a model's fp32 weights."""
    if model in BUILT_IN:
        return builtin.WEIGHT_BYTES[model]
    folder = Path(model).expanduser()
    if folder.is_dir():
        return float(sum(path.stat().st_size for path in folder.glob("*/*.safetensors")))
    return _NANO_WEIGHT_BYTES
