"""Estimates the disk and memory that an export needs, and refuses before the work begins if they are not there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from nano_export.options import Options
from nano_export.source import builtin
from nano_export.source.place import Place
from nano_runtime.errors import DiskSpaceError, NotEnoughMemoryError
from nano_runtime.system.machine import memory_available_bytes

__all__ = ["Needs", "check_resources"]

# Measured for the 5.16 GB of the full-size network (bench/LOG.md): 6.0 GB in INT8, and up to
# 10.2 in fp32, where whole weights are compared with the original's.
_MEMORY_PER_WEIGHT_BYTE = {"int8": 1.0, "fp32": 1.75}
_MEMORY_BASE_BYTES = 1.2e9
_NANO_WEIGHT_BYTES = 5.16e9  # assumed where the Hub does not say how large the files are
_HALVES = ("fp16", "bf16")


@dataclass(frozen=True)
class Needs:
    """An estimate of the disk and memory that an export takes at its peak."""

    weight_bytes: int
    seconds: float
    disk_bytes: int
    memory_bytes: int

    @property
    def text(self) -> str:
        """The estimate in words."""
        return f"needs about {self.disk_bytes / 1e9:.1f} GB of disk and {self.memory_bytes / 1e9:.1f} GB of memory"


def check_resources(place: Place, options: Options) -> Needs:
    """Compare an estimate with the free disk and memory, and return it.

    Args:
        place: of the model.
        options: of the export.

    Raises:
        DiskSpaceError: the float graphs and the bundle would not fit.
        NotEnoughMemoryError: the network and a running engine would not fit.
    """
    weights = _weight_bytes(place)
    is_int8 = options.precision == "int8"
    bundle = weights * len(options.backends) * (0.27 if is_int8 else 1.0)
    needed = int(bundle + (weights if is_int8 else 0) + 0.1e9)
    parent = options.output.absolute().parent
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DiskSpaceError(parent, needed, free)
    memory = int(weights * _MEMORY_PER_WEIGHT_BYTE[options.precision] + _MEMORY_BASE_BYTES)
    available = memory_available_bytes()
    if available is not None and available < memory:
        raise NotEnoughMemoryError(f"exporting {options.model}", memory, available)
    return Needs(weight_bytes=int(weights), seconds=0.0, disk_bytes=needed, memory_bytes=memory)


def _weight_bytes(place: Place) -> float:
    """Return the size of a model's weights in fp32, the form in which they are loaded whatever is stored."""
    if place.folder is not None:
        return 4.0 * sum(weights.parameters for weights in place.folder.weights.values())
    if place.remote is None:
        return builtin.WEIGHT_BYTES[place.source.model]
    sizes = 0.0
    for folder, choice in place.remote.weights.items():
        names = choice.shards if choice.whole is None else (choice.whole,)
        stored = [place.remote.sizes.get(f"{folder}/{name}") for name in names]
        if None in stored:
            return _NANO_WEIGHT_BYTES
        sizes += sum(filter(None, stored)) * (2 if choice.variant in _HALVES else 1)
    return sizes
