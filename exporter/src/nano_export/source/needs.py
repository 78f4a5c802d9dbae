"""Estimates the disk, memory and time that an export needs, and refuses before it begins if they are not there."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass

import torch

from nano_export.options import Options
from nano_export.source import builtin
from nano_export.source.hub import Remote
from nano_export.source.picture_size import picture_size
from nano_export.source.place import Place
from nano_export.source.workload import Network, Workload, workload_of
from nano_runtime.errors import DiskSpaceError, NotEnoughMemoryError
from nano_runtime.system.machine import memory_available_bytes
from nano_runtime.system.processors import usable_cores

__all__ = ["Needs", "check_resources"]

_NANO_WEIGHT_BYTES = 5_160_000_000  # assumed where the Hub does not say how large the files are
_HALVES = ("fp16", "bf16")
_INT8_SHARE = 0.27  # of the fp32 weights' bytes

# Memory, as measured (bench/LOG.md, `python -m bench.export_needs`).
_IMPORTED_BYTES = 0.5e9  # Python with torch, diffusers and onnxruntime
_BASE_BYTES = {"int8": 0.9e9, "fp32": 0.68e9}  # the same, with what tracing and engines take beside the weights
_OPENVINO_BYTES = 0.15e9
_COPIES = {"int8": 1.0, "fp32": 1.75}  # of the fp32 weights, beside each other
# Products of queries and keys in the UNet's first self-attention for one row, and feature maps of full size. A float
# bundle draws two pictures at once with guidance (``choose/``); the graphs that are watched keep more of both.
_ATTENTIONS = {"int8": 12, "fp32": 8}
_FEATURE_MAPS = {"int8": 24, "fp32": 12}

# Time: UNet calls of one row and decoded pictures of each stage of `exporting.py`, and what their arithmetic costs as a
# multiple of torch's product of two large matrices, in fp32 and in INT8.
_ROWS = {"draw": 44, "calibrate": 120, "compare": 44, "choose": 280}
_PICTURES = {"draw": 2, "calibrate": 12, "compare": 2, "choose": 14}
_COSTS = {
    "fp32": {"draw": 2.5, "calibrate": 0.0, "compare": 1.5, "choose": 1.5},
    "int8": {"draw": 2.5, "calibrate": 1.5, "compare": 0.7, "choose": 0.7},
}
_BASE_SECONDS = {"int8": 40.0, "fp32": 20.0}  # the demo's stages of INT8 alone take 26 (bench/LOG.md, 2026-11-28)
_SECONDS_PER_WEIGHT_GB = 12.0  # loading, tracing, quantizing
_SECONDS_PER_ENGINE_AND_GB = 3.0  # converting, compiling
_MINUTES = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240)  # that a range begins or ends with
_QUICKER, _SLOWER = 0.8, 1.7  # times the estimate
_PROBED = 256  # rows and columns of the matrices that are multiplied to learn how fast this machine is
_PROBING_SECONDS = 0.2


@dataclass(frozen=True)
class Needs:
    """An estimate of what an export takes.

    Attributes:
        weight_bytes: of all networks in fp32, in which they are loaded.
        disk_bytes: of the bundle and of the float graphs on the way to it.
        memory_bytes: at the peak, with all pages that are resident.
        free_bytes: of memory; None where the system does not say.
        seconds: of the whole export on this machine; None before the networks are known.
    """

    weight_bytes: int
    disk_bytes: int
    memory_bytes: int
    free_bytes: int | None
    seconds: float | None

    @property
    def text(self) -> str:
        """The estimate in words."""
        text = f"needs about {self.disk_bytes / 1e9:.1f} GB of disk and {self.memory_bytes / 1e9:.1f} GB of memory"
        if self.free_bytes is not None and self.free_bytes < self.memory_bytes:
            text += f" ({self.free_bytes / 1e9:.1f} GB are free: it may run out, a smaller --size takes less)"
        return text if self.seconds is None else f"{text}, and {_duration(self.seconds)}"


def check_resources(place: Place, options: Options) -> Needs:
    """Compare an estimate with the free disk and memory, and return it.

    An export is refused if there is no memory for the weights. What pictures add is known less well: it is said.

    Args:
        place: of the model.
        options: of the export.

    Raises:
        CheckpointError: no size is asked for, and the checkpoint names none.
        DiskSpaceError: the float graphs and the bundle would not fit.
        NotEnoughMemoryError: the network and a running engine would not fit.
    """
    networks = _networks(place)
    if networks is None:
        work = Workload(0 if place.remote is None else _size_on_the_hub(place.remote), 0, 0.0, 0.0, 0, 0)
    else:
        size = picture_size(networks["unet"].config, networks["vae"].config, options.size)
        work = workload_of(networks, size)
    weights, available = _memory_of_weights(work, options), memory_available_bytes()
    needs = Needs(
        weight_bytes=work.weight_bytes,
        disk_bytes=_disk(work, options),
        memory_bytes=weights + _memory_of_pictures(work, options),
        free_bytes=available,
        seconds=None if networks is None else _seconds(work, options),
    )
    parent = options.output.absolute().parent
    free = shutil.disk_usage(parent).free
    if free < needs.disk_bytes:
        raise DiskSpaceError(parent, needs.disk_bytes, free)
    if available is not None and available < weights:
        raise NotEnoughMemoryError(f"exporting {options.model}", needs.memory_bytes, available)
    return needs


def _networks(place: Place) -> dict[str, Network] | None:
    """Return the networks of a model that is on this machine; None for one that was not fetched."""
    if place.folder is not None:
        return {
            name: Network(weights.shapes, place.folder.configs[name], weights.stored_bytes)
            for name, weights in place.folder.weights.items()
        }
    if place.remote is not None:
        return None
    with torch.device("meta"):
        parts = builtin.build(place.source.model)
    return {
        "text_encoder": Network(_shapes_of(parts.text_encoder), {}, 0),
        "unet": Network(_shapes_of(parts.unet), parts.unet.config, 0),
        "vae": Network(_shapes_of(parts.vae), parts.vae.config, 0),
    }


def _shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _size_on_the_hub(remote: Remote) -> int:
    """Return how many bytes a model's weights will have in fp32."""
    total = 0
    for folder, choice in remote.weights.items():
        names = choice.shards if choice.whole is None else (choice.whole,)
        for name in names:
            stored = remote.sizes.get(f"{folder}/{name}")
            if stored is None:
                return _NANO_WEIGHT_BYTES
            total += stored * (2 if choice.variant in _HALVES else 1)
    return total


def _disk(work: Workload, options: Options) -> int:
    """Return the bytes of the bundle, and of the float graphs that INT8 is made from."""
    is_int8 = options.precision == "int8"
    engines = 1 if options.compact else len(options.backends)
    bundle = work.weight_bytes * engines * (_INT8_SHARE if is_int8 else 1.0)
    return int(bundle + (work.weight_bytes if is_int8 else 0) + 0.1e9)


def _memory_of_weights(work: Workload, options: Options) -> int:
    """Return the resident bytes at the peak without what pictures add: while loading, or while graphs run."""
    running = (
        _BASE_BYTES[options.precision]
        + _OPENVINO_BYTES * ("openvino" in options.backends)
        + _COPIES[options.precision] * work.weight_bytes
    )
    return int(max(_IMPORTED_BYTES + work.loaded_bytes, running))


def _memory_of_pictures(work: Workload, options: Options) -> int:
    """Return the bytes of intermediate results at the peak, which grow with the picture's size."""
    return _ATTENTIONS[options.precision] * work.attention_bytes + _FEATURE_MAPS[options.precision] * work.picture_bytes


def _seconds(work: Workload, options: Options) -> float:
    """Return how long an export takes on this machine, from its arithmetic and a look at the machine's speed."""
    engines = len(options.backends)
    costs = {**_COSTS[options.precision]}
    costs["compare"] *= engines
    macs = sum(
        cost * (_ROWS[stage] * work.unet_macs + _PICTURES[stage] * work.decoder_macs) for stage, cost in costs.items()
    )
    weights = (_SECONDS_PER_WEIGHT_GB + _SECONDS_PER_ENGINE_AND_GB * engines) * work.weight_bytes / 1e9
    return _BASE_SECONDS[options.precision] + weights + macs / _macs_per_second()


def _macs_per_second() -> float:
    """Multiply matrices for a moment, and return how many multiply-accumulates a second all cores take at best.

    One thread is measured: several that wait for each other's cores on a busy machine tell nothing.
    """
    matrix = torch.ones(_PROBED, _PROBED)
    threads, best, begin = torch.get_num_threads(), float("inf"), time.perf_counter()
    torch.set_num_threads(1)
    try:
        while (start := time.perf_counter()) - begin < _PROBING_SECONDS:
            torch.mm(matrix, matrix)
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return float(usable_cores() * _PROBED**3 / best)


def _duration(seconds: float) -> str:
    """Write a time in words, as roughly as it is known: a machine with other work takes twice as long, or longer."""
    minutes = seconds / 60
    low = max((step for step in _MINUTES if step <= minutes * _QUICKER), default=0)
    high = min((step for step in _MINUTES if step >= minutes * _SLOWER), default=0)
    if high == 0:
        return f"{minutes / 60:.0f} hours or more"
    if low == 0:
        return "about a minute" if high == 1 else f"up to {high} minutes"
    return f"{low} to {high} minutes"
