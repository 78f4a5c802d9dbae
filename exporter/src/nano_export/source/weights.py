"""Finds the weights of a network in its folder, checks them, and loads them in fp32. Only safetensors are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from nano_export.errors import CheckpointError, PickleOnlyError
from nano_export.source.layout import PICKLES
from nano_runtime.errors.escaping import first_line

__all__ = ["check_weights", "load_network"]


def check_weights(folder: Path, name: str) -> None:
    """Check that the safetensors of a network exist and are complete; nothing is loaded.

    Args:
        folder: of the network.
        name: of its weights, unless they are in shards.

    Raises:
        CheckpointError: the weights are missing or damaged.
        PickleOnlyError: the weights are not safetensors.
    """
    files = sorted(folder.glob(f"{name.removesuffix('.safetensors')}*.safetensors"))
    files = [file for file in files if ".fp16." not in file.name and ".non_ema." not in file.name]
    if not files:
        if any(path.name.endswith(PICKLES) for path in folder.iterdir()):
            raise PickleOnlyError(folder)
        raise CheckpointError(folder, f"{name} is missing")
    for file in files:
        _check_whole(file)


def load_network(kind: Any, folder: Path) -> Any:  # noqa: ANN401 - diffusers' and transformers' classes have no common base
    """Load one network in fp32, and check that all its tensors came from the checkpoint.

    The libraries only log a missing tensor, and go on with a random one.

    Args:
        kind: class of diffusers or transformers.
        folder: of the network.

    Raises:
        CheckpointError: tensors are missing, or do not have the shape in config.json.
    """
    try:
        module, report = kind.from_pretrained(
            folder,
            torch_dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # True needs accelerate
            ignore_mismatched_sizes=True,  # they are reported, and refused below
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(folder, first_line(error)) from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(folder, f"{len(missing)} of its tensors are missing, {missing[0]} for one")
    if wrong := sorted(key for key, *_ in report["mismatched_keys"]):
        raise CheckpointError(
            folder, f"{len(wrong)} of its tensors do not have the shape in config.json, {wrong[0]} for one"
        )
    return module.eval()


def _check_whole(file: Path) -> None:
    """Check that a safetensors file is as long as its header says."""
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(file, f"it is damaged or cut short ({error})") from error
