"""Finds the weights of a network in its folder, and checks them by their headers. Only safetensors are read."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from nano_export.errors import CheckpointError, PickleOnlyError
from nano_export.source.json_file import read_json
from nano_export.source.layout import PICKLES, WEIGHTS, choose_weights, variants_of
from nano_export.source.readable import require_folder, require_readable

__all__ = ["Weights", "find_weights", "no_weights"]

_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_IDS = "position_ids"  # a buffer of whole numbers in old checkpoints; no weight, and not read
_PARAMETERS = (".weight", ".bias")
_QUANTIZED = (".absmax", ".quant_map", ".SCB", ".weight_format")
_ADAPTED = ".base_layer."  # PEFT's name for a weight beside which an adapter stands
_SHOWN_FILES = 3


@dataclass(frozen=True)
class Weights:
    """The weights of one network: safetensors that exist, are complete, and hold floats.

    Attributes:
        folder: of the network.
        files: one, or all shards.
        variant: in their names; None for the plain ones.
        shapes: of all tensors, by name.
        stored_bytes: of the files.
    """

    folder: Path
    files: tuple[Path, ...]
    variant: str | None
    shapes: dict[str, tuple[int, ...]]
    stored_bytes: int

    @property
    def parameters(self) -> int:
        """How many numbers they hold."""
        return sum(map(math.prod, self.shapes.values()))


def find_weights(folder: Path, component: str, variant: str | None) -> Weights:
    """Find the weights of a network, and check all that their headers tell; nothing is loaded.

    Args:
        folder: of the network.
        component: its key in ``WEIGHTS``.
        variant: of the files' names; None takes the plain files, or the variant that is there instead of them.

    Raises:
        CheckpointError: the weights are missing, incomplete, damaged, quantized, or cannot be read.
        PickleOnlyError: the weights are not safetensors.
    """
    require_folder(folder)
    names = [path.name for path in folder.iterdir()]
    choice = choose_weights(component, names, variant)
    if choice is None:
        raise no_weights(folder, component, names, variant)
    indexed = None if choice.index is None else _shards(folder / choice.index)
    complete = indexed is not None and all((folder / name).exists() for name in indexed)
    # diffusers prefers the shards, transformers the one file; leftover shards that are not complete are none.
    if choice.whole is not None and (component == "text_encoder" or not complete):
        files: tuple[str, ...] = (choice.whole,)
    else:
        files = choice.shards if indexed is None else indexed
    paths = tuple(folder / name for name in files)
    return Weights(
        folder=folder,
        files=paths,
        variant=choice.variant,
        shapes={name: shape for path in paths for name, shape in _tensors_of(path)},
        stored_bytes=sum(path.stat().st_size for path in paths),
    )


def no_weights(
    folder: Path | str, component: str, names: Collection[str], variant: str | None
) -> CheckpointError | PickleOnlyError:
    """Return the error for a network without weights that can be taken; it says what is there instead.

    Args:
        folder: of the network, for the message.
        component: its key in ``WEIGHTS``.
        names: of the files in it.
        variant: that was asked for.
    """
    wanted = WEIGHTS[component]
    found = [str(name) for name in variants_of(component, names)]
    if found and variant is not None:
        return CheckpointError(folder, f"it has no weights of the variant {variant!r}, only of {', '.join(found)}")
    if found:
        return CheckpointError(folder, f"{wanted} is missing; --variant chooses one of {', '.join(found)}")
    if any(name.endswith(PICKLES) and not name.startswith("openvino") for name in names):
        return PickleOnlyError(folder)
    if any(name.endswith(".msgpack") for name in names):
        return CheckpointError(folder, f"{wanted} is missing; the weights are Flax's, which from_flax=True converts")
    others = sorted(name for name in names if name.endswith((".safetensors", ".onnx", ".xml", ".gguf")))
    there = f"; there is {', '.join(others[:_SHOWN_FILES])}" if others else ""
    return CheckpointError(folder, f"{wanted} is missing{there}")


def _tensors_of(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of each tensor of a file that holds floats; the file has to be as long as its header says.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or holds quantized weights.
    """
    require_readable(path)
    try:
        with safe_open(path, framework="np") as content:
            parts = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118 - not a mapping
            tensors = [(name, part.get_dtype(), part.get_shape()) for name, part in parts.items()]
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(path, f"it is damaged or cut short ({error})") from error
    for name, kind, shape in tensors:
        if name.endswith(_IDS) or (kind not in _FLOATS and not name.endswith((*_QUANTIZED, *_PARAMETERS))):
            continue  # counters and the like, which diffusers does not read either
        if name.endswith(_QUANTIZED) or kind not in _FLOATS:
            raise CheckpointError(
                path,
                f"its tensor {name!r} is of the type {kind}: the weights are quantized, as bitsandbytes does it, "
                "and the model from before that is needed",
            )
        if _ADAPTED in name:
            raise CheckpointError(
                path,
                f"its tensor {name!r} is one of a network with an adapter: PEFT's merge_and_unload() joins the two",
            )
        yield name, tuple(shape)


def _shards(index: Path) -> tuple[str, ...]:
    """Return the files that an index names; none is a pickle, and none is outside of its folder.

    Raises:
        CheckpointError: the index is damaged, or names such a file.
    """
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(index, "it has no weight_map")
    names = set(table.values()) if all(isinstance(name, str) for name in table.values()) else {""}
    for name in sorted(names):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(index, f"it names {name!r}, which is no safetensors file beside it")
    return tuple(sorted(names))
