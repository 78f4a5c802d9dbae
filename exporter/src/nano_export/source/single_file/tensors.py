"""Reads one safetensors file with a model in it: the header, and the tensors of a network in fp32."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from nano_export.errors import CheckpointError, PickleFileError, SingleFileError
from nano_export.source.readable import require_readable
from nano_export.source.single_file.shapes import TEXT, Shapes
from nano_runtime.errors.escaping import first_line

__all__ = ["is_single_file", "read_header", "read_tensors", "stored_bytes"]

_SAFETENSORS = ".safetensors"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_OTHERS = {".gguf": "GGUF", ".onnx": "ONNX", ".zip": "a ZIP archive"}
_SIZES = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of a number; others have one
# First bytes -> what a file is that has another name than it should.
_MARKS = {
    b"PK\x03\x04": "a pickle or an archive with the name of a safetensors file",
    b"\x80\x02": "a pickle with the name of a safetensors file",
    b"<!DOCTYPE": "a web page: the download asked for a login, or the link was to the page",
    b"<html": "a web page: the download asked for a login, or the link was to the page",
}
# Files of 2022 lack a part of the names (A1111's sd_models.py, checkpoint_dict_replacements_sd1).
_OLD_TEXT = re.compile(r"^cond_stage_model\.transformer\.(?=(embeddings|encoder|final_layer_norm)\.)")


def is_single_file(model: str) -> bool:
    """Return whether a model is a file, or is named like one; such a name is never looked up on the Hub.

    Raises:
        CheckpointError: the system does not say: the name is too long, or a folder on the way is closed.
    """
    path = Path(model).expanduser()
    try:
        return path.is_file() or (path.suffix.lower() in (_SAFETENSORS, *_PICKLES, *_OTHERS) and not path.is_dir())
    except OSError as error:
        raise CheckpointError(path, f"it cannot be looked at ({error.strerror})") from error


def read_header(path: Path) -> tuple[Shapes, dict[str, str]]:
    """Return the shapes of a file's tensors, by the names of newer files, and its metadata.

    Raises:
        CheckpointError: it is missing or damaged.
        PickleFileError: it is a pickle.
        SingleFileError: it is of another format.
    """
    require_readable(path)
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise PickleFileError(path)
    if suffix in _OTHERS:
        raise SingleFileError(path, f"it is {_OTHERS[suffix]}", "Take the .safetensors that the model also comes as.")
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {_name(key): tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            return shapes, dict(file.metadata() or {})
    except OSError as error:
        raise CheckpointError(path, error.strerror or first_line(error)) from error
    except SafetensorError as error:
        start = path.open("rb").read(64).lstrip()
        for mark, what in _MARKS.items():
            if start.startswith(mark):
                raise CheckpointError(path, f"it is {what}") from error
        raise CheckpointError(path, f"it is damaged, cut short, or no safetensors file ({error})") from error


def stored_bytes(path: Path, prefix: str) -> int:
    """Return how many bytes of a file hold the tensors of a network.

    Args:
        path: of the file, whose header was read.
        prefix: of their names.
    """
    with safe_open(path, framework="pt") as file:
        parts = [file.get_slice(key) for key in file.keys() if _name(key).startswith(prefix)]  # noqa: SIM118
        return sum(math.prod(part.get_shape()) * _SIZES.get(part.get_dtype(), 1) for part in parts)


def read_tensors(path: Path, prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a network in fp32, with their whole names.

    Args:
        path: of the file, whose header was read.
        prefix: of their names.

    Raises:
        SingleFileError: they are quantized.
        CheckpointError: they hold numbers that are not finite.
    """
    tensors: dict[str, torch.Tensor] = {}
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - it is no mapping
            if (name := _name(key)).startswith(prefix):
                tensor = file.get_tensor(key)
                if not tensor.is_floating_point() and tensor.ndim > 1 and not name.endswith("position_ids"):
                    kind = str(tensor.dtype).removeprefix("torch.")
                    raise SingleFileError(
                        path, f"{key} is of {kind}: it is quantized", "Take the file in fp16 or fp32; Nano quantizes."
                    )
                tensors[name] = tensor.float()
                if not (tensors[name].sum().isfinite() or tensors[name].isfinite().all()):
                    raise CheckpointError(
                        path, f"not all numbers of its tensor {key!r} are finite: every picture would be black"
                    )
    return tensors


def _name(key: str) -> str:
    """Return the newer name of a tensor."""
    return _OLD_TEXT.sub(TEXT, key)
