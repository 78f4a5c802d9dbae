"""Opens a diffusers folder: which parts it has, what they are for, and whether they can be exported; loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_export.errors import CheckpointError
from nano_export.source.architecture import check_architecture
from nano_export.source.json_file import read_json
from nano_export.source.layout import WEIGHTS
from nano_export.source.pipelines import task_of
from nano_export.source.scheduler import scheduler_of
from nano_export.source.weights import Weights, find_weights
from nano_runtime.bundle.wiring import Task

__all__ = ["DiffusersFolder", "open_folder"]


@dataclass(frozen=True)
class DiffusersFolder:
    """A diffusers folder whose configs and weights were checked.

    Attributes:
        path: of the folder.
        task: what its pipeline draws.
        scheduler: config of the scheduler that diffusers' pipeline ends up with, see ``source.scheduler``.
        configs: of each network.
        weights: of each network.
    """

    path: Path
    task: Task
    scheduler: dict[str, Any]
    configs: dict[str, dict[str, Any]]
    weights: dict[str, Weights]

    @property
    def variants(self) -> set[str]:
        """The variants in the names of its weights; empty if all are plain."""
        return {weights.variant for weights in self.weights.values() if weights.variant is not None}


def open_folder(path: Path, variant: str | None) -> DiffusersFolder:
    """Check a folder's parts, configs and the headers of its weights.

    Args:
        path: of the folder.
        variant: of the weights' names; None takes the plain ones, or what there is instead.

    Raises:
        CheckpointError: files are missing, damaged or cannot be read, or no network has weights of that variant.
        PickleOnlyError: the weights are not safetensors.
        UnsupportedModelError: it is not a Stable Diffusion 1 or 2.
    """
    task = task_of(path)
    check_architecture(path)
    scheduler = scheduler_of(path, task)
    configs = {component: read_json(path / component / "config.json") for component in WEIGHTS}
    for component, config in configs.items():
        if config.get("quantization_config") is not None:
            raise CheckpointError(
                path / component / "config.json",
                "it has a quantization_config: the weights are quantized, and the model from before that is needed",
            )
    weights = {component: find_weights(path / component, component, variant) for component in WEIGHTS}
    found = DiffusersFolder(path, task, scheduler, configs, weights)
    if variant is not None and variant not in found.variants:
        raise CheckpointError(path, f"none of its networks has weights of the variant {variant!r}")
    return found
