"""Reads a small safetensors file that a stranger wrote: a LoRA's or an embedding's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open

from nano_export.source.adapters.pickles import PICKLED, PICKLES

__all__ = ["read_tensors"]

_LARGEST_HEADER_BYTES = 16 << 20  # a LoRA with all layers of Stable Diffusion 2 has a third of a million

_Fail: TypeAlias = Callable[[str], Exception]


def read_tensors(path: Path, largest: int, fail: _Fail) -> tuple[dict[str, torch.Tensor], Mapping[str, str]]:
    """Read all tensors and the metadata of a file.

    safetensors checks header, offsets and length, and runs no code. It would accept a header of 100 MB, which takes
    many times as much memory in Python objects.

    Args:
        path: of the file.
        largest: size that is still read, in bytes.
        fail: makes the error of the reason why the file cannot be read.
    """
    if not path.is_file():
        raise fail("there is no such file")
    if path.suffix in PICKLES:
        raise fail(PICKLED)
    try:
        size = path.stat().st_size
        if size > largest:
            raise fail(f"{size / 1e9:.1f} GB are more than it can have")
        with path.open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if header > _LARGEST_HEADER_BYTES:
            raise fail(f"it is not a safetensors file, or a damaged one (a header of {header} bytes)")
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata()
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise fail(f"it is not a safetensors file, or a damaged one ({error})") from error
    if not tensors:
        raise fail("it holds no tensors")
    return tensors, {} if metadata is None else metadata
