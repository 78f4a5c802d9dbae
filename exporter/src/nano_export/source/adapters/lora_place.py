"""Finds the files of a LoRA: a file, a folder as diffusers or PEFT write it, or the same in a repository on the Hub."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nano_export.errors import LoraError
from nano_export.source.adapters.pickles import PICKLED, PICKLES
from nano_export.source.hub_files import fetch_files

__all__ = ["Found", "find"]

_DIFFUSERS = "pytorch_lora_weights.safetensors"
_PEFT = "adapter_model.safetensors"
_PEFT_CONFIG = "adapter_config.json"
_NETWORKS = ("unet", "text_encoder")
_NO_LORAS = ("scheduler", "optimizer", "checkpoint")  # parts of names that diffusers passes over, too
_HUB_NAME = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:/(?P<file>.+))?")
_FILES = (".safetensors", *PICKLES)
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Found:
    """A file of a LoRA.

    Attributes:
        path: on this machine.
        name: to show and to record: no path of this machine, and the folder's or repository's where the file's own
            name says nothing.
    """

    path: Path
    name: str


def find(given: Path) -> list[Found]:
    """Find what the user named.

    Args:
        given: a file, a folder, the Hub id of a repository, or that and a file in it, tried in this order.

    Raises:
        LoraError: there is no such thing, or it holds no LoRA or several.
        NetworkError: the Hub could not be reached, or refused.
        OutputError: the Hub's cache cannot be written.
    """
    try:
        is_file, is_folder = given.is_file(), given.is_dir()
    except OSError as error:  # a name that is too long, a folder on the way that may not be entered
        raise LoraError(given, f"it cannot be looked at ({error.strerror})") from error
    if is_file:
        return [Found(given, _short(given))]
    if is_folder:
        names = [path.relative_to(given).as_posix() for path in sorted(given.glob("*")) + sorted(given.glob("*/*"))]
        folder = given.resolve().name
        return [Found(given / name, f"{folder}/{name}") for name in _chosen(given, names)]
    match = _HUB_NAME.fullmatch(given.as_posix())
    if match is None or given.is_absolute() or Path(given.parts[0]).is_dir() or match["id"].endswith(_FILES):
        raise LoraError(given, "there is no such file or folder")
    repository, file = match["id"], match["file"]

    def wanted(names: Collection[str]) -> list[str]:
        chosen = _chosen(given, names) if file is None else [file]
        if file is not None and file.endswith(PICKLES):
            raise LoraError(given, PICKLED)
        if missing := [name for name in chosen if name not in names]:
            raise LoraError(given, f"{repository} on the Hub has no file {missing[0]}")
        beside = [str(PurePosixPath(name).parent / _PEFT_CONFIG) for name in chosen]
        return [*chosen, *(name for name in beside if name in names)]

    place, files = fetch_files(repository, wanted)
    return [Found(place / name, f"{repository}/{name}") for name in files if name.endswith(".safetensors")]


def _chosen(given: Path, names: Collection[str]) -> list[str]:
    """Choose a LoRA's files among those of a folder, by their names in it.

    Raises:
        LoraError: there is none, or more than one that it could be.
    """
    for name in (_DIFFUSERS, _PEFT):
        if name in names:
            return [name]
    if parts := [name for network in _NETWORKS if (name := f"{network}/{_PEFT}") in names]:
        return parts
    top = [name for name in names if "/" not in name and not any(part in name for part in _NO_LORAS)]
    files = [name for name in top if name.endswith(".safetensors")]
    if len(files) == 1:
        return files
    if files:
        shown = ", ".join(files[:_SHOWN])
        raise LoraError(given, f"it holds {len(files)} .safetensors files ({shown}); name one: {given}/{files[0]}")
    if pickles := [name for name in top if name.endswith(PICKLES)]:
        raise LoraError(f"{given}/{pickles[0]}", PICKLED)
    raise LoraError(given, f"it holds neither {_DIFFUSERS} nor {_PEFT}, nor another .safetensors file")


def _short(path: Path) -> str:
    """Return the name of a file, behind its folder's where all files of this kind have the same name."""
    return f"{path.resolve().parent.name}/{path.name}" if path.name in {_DIFFUSERS, _PEFT} else path.name
