"""Says what a folder is that is no whole diffusers folder, and what to give instead: training leaves many kinds."""

from __future__ import annotations

import json
from pathlib import Path

from nano_export.errors import CheckpointError
from nano_export.source.layout import WEIGHTS

__all__ = ["PARTS", "blame_folder"]

PARTS = (*WEIGHTS, "tokenizer", "scheduler")
"""Folders of a diffusers folder that an export reads."""

_INDEX = "model_index.json"
_AVERAGED = "unet_ema"  # what diffusers' training scripts call the moving average of the UNet's weights
_SHOWN_FILES = 3


def blame_folder(folder: Path) -> CheckpointError | None:
    """Return the error for a folder from which a part is missing; None if all parts are there.

    Args:
        folder: that was given as a model.
    """
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if not missing:
        return None
    if len(missing) < len(PARTS) or (folder / _AVERAGED).is_dir():
        return CheckpointError(folder, _incomplete(folder, missing))
    what = _other(folder)
    return CheckpointError(folder / _INDEX, "it is missing") if what is None else CheckpointError(folder, what)


def _incomplete(folder: Path, missing: list[str]) -> str:
    """Describe a folder with some of the parts: a training's checkpoint has the networks that were trained."""
    names = ", ".join(f"{part}/" for part in missing)
    text = f"it lacks {names}" if len(missing) > 1 else f"the folder {names} is missing"
    if "unet" in missing and (folder / _AVERAGED).is_dir():
        text += f"; {_AVERAGED}/ holds the averaged UNet: rename it to unet/ to draw with that"
    near = [part for part in missing if (folder.absolute().parent / part).is_dir()]
    if near:
        return f"{text}; copy {', '.join(f'../{part}/' for part in near)} into it: the run's output folder has them"
    return f"{text}; copy what lacks from the model that was trained or converted"


def _other(folder: Path) -> str | None:
    """Describe a folder without any part; None where nothing is recognised."""
    config = folder / "config.json"
    if config.is_file():
        return f"it is one network alone ({_class_of(config)}); give the folder that holds it and all other parts"
    files = sorted(path.name for path in folder.iterdir() if path.suffix == ".safetensors")
    if files:
        return _files(files)
    steps = sorted(path.name for path in folder.iterdir() if path.name.startswith("checkpoint-"))
    if steps:
        return f"it has no {_INDEX}, only a training's checkpoints ({steps[-1]} among them), and no finished model"
    below = sorted(path.parent.name for path in folder.glob(f"*/{_INDEX}"))
    return f"it has no {_INDEX}; give the folder {below[0]}/ in it" if below else None


def _files(names: list[str]) -> str:
    """Describe a folder with safetensors files beside each other."""
    if any("lora" in name or name.startswith("adapter_model") for name in names):
        return f"it holds a LoRA ({names[0]}); give its model, and the LoRA with --lora"
    if any(name.startswith("learned_embeds") for name in names):
        return f"it holds an embedding ({names[0]}); give its model, and the embedding with --embedding"
    return f"it has no {_INDEX}; it holds {', '.join(names[:_SHOWN_FILES])}: give that file itself"


def _class_of(config: Path) -> str:
    """Return the class that a config names."""
    try:
        content = json.loads(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return "config.json"
    names = content if isinstance(content, dict) else {}
    architectures = names.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else "config.json"
    return str(names.get("_class_name", first))
