"""Reads LoRA files: the layers that a file changes, and the change of each. The model is not known yet.

Programs spell the tensors of a layer differently; all of these are read:

    kohya                 lora_unet_..._attn1_to_q.lora_down.weight, .lora_up.weight, .lora_mid.weight, .alpha;
                          LCM-LoRA too
    LyCORIS               the same, and .hada_w1_a, .lokr_w1, .diff, .diff_b, .w_norm, .b_norm, .dora_scale, .on_input,
                          .a1.weight; lycoris_... for layers outside of kohya's scripts
    diffusers, PEFT       unet....attn1.to_q.lora_A.weight, .lora_B.weight, .lora_B.bias, .lora_magnitude_vector;
                          base_model.model....
    diffusers until 0.21  ....attn1.processor.to_q_lora.down.weight, ....to_q.lora.down.weight,
                          ....q_proj.lora_linear_layer.down.weight, and the same with up
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nano_export.errors import LoraError, quoted
from nano_export.options import LoraFile
from nano_export.source.adapters.lora_change import LayerChange
from nano_export.source.adapters.lora_config import PREFIX, PeftConfig, config_beside, configs_within
from nano_export.source.adapters.lora_kinds import LayerError, layer_change
from nano_export.source.adapters.lora_place import Found, find
from nano_export.source.adapters.tensor_file import read_tensors
from nano_runtime.bundle.checksums import sha256_of

__all__ = ["Lora", "open_loras"]

_FACTOR = re.compile(
    r"(?P<layer>.+)[._]lora(?:_linear_layer)?[._](?P<part>up|down|mid|A|B)\.(?P<what>weight|bias)", re.DOTALL
)
_PEFT_PARTS = {"A": "down", "B": "up"}
_OTHER_PART = re.compile(
    r"(?P<layer>.+)[._](?P<part>alpha|dora_scale|lora_magnitude_vector|hada_w[12]_[ab]|hada_t[12]"
    r"|lokr_w[12](?:_[ab])?|lokr_t2|diff|diff_b|w_norm|b_norm|on_input|a1|a2|b1|b2|bm)(?:\.weight)?",
    re.DOTALL,
)
_WHOLE_NUMBERS = ("alpha", "on_input")  # parts that may be integers
_OTHER_KINDS = {
    "boft": "BOFT",
    "oft_": "OFT",
    "ia3_l": "IA3 as PEFT writes it",
    "vera_lambda": "VeRA",
    "lora_embedding_": "an embedding's LoRA",
    "lora_E": "AdaLoRA",
    "lokr_t1": "LoKr with a core in its small half",
    "lora_controlnet": "a ControlNet",
    "motion_modules": "an AnimateDiff motion module",
    "emb_params": "an embedding (--embedding takes it)",
}
_LARGEST_BYTES = 8 << 30  # the whole differences of Stable Diffusion 2, in fp32, are about 5 GB


@dataclass(frozen=True)
class Lora:
    """A LoRA file, checked as far as possible without a model.

    Attributes:
        path: of the file.
        name: for the manifest: of the file, behind the name of the folder or repository that was given.
        scale: on all its changes.
        sha256: lower-case hex, of the file.
        layers: the changes by the layer's name, as the file spells it.
    """

    path: Path
    name: str
    scale: float
    sha256: str
    layers: Mapping[str, LayerChange]


def open_loras(given: LoraFile) -> list[Lora]:
    """Find and read the files of one LoRA, and check all that can be checked without a model.

    Returns:
        One, but for folders as PEFT writes them, with a file for each network.

    Raises:
        LoraError: a file does not exist, is no safetensors file or is damaged; it, or its header, is larger than that
            of any LoRA; it holds another kind of change; a factor is missing, or does not fit the others; or a number
            is not finite.
        NetworkError: the Hub could not be reached, or refused.
    """
    return [_open(found, given.scale) for found in find(given.path)]


def _open(found: Found, scale: float) -> Lora:
    """Read one file."""
    path = found.path
    tensors, metadata = read_tensors(path, _LARGEST_BYTES, lambda why: LoraError(path, why))
    keys = _by_layer(path, tensors)
    configs = configs_within(path, metadata)
    if any(layer.startswith(PREFIX) for layer in keys):
        configs = {PREFIX.removesuffix("."): config_beside(path)}
    layers = {}
    for layer, parts in keys.items():
        own = {part: tensors.pop(key) for part, key in parts.items()}
        for part, tensor in own.items():
            _check_numbers(path, parts[part], tensor, whole=part in _WHOLE_NUMBERS)
        try:
            layers[layer] = layer_change(own, _strength(configs, layer, own.pop("alpha", None)))
        except LayerError as error:
            raise LoraError(path, str(error).format(layer=quoted(layer))) from error
    return Lora(path, found.name, scale, sha256_of(path), layers)


def _by_layer(path: Path, keys: Collection[str]) -> dict[str, dict[str, str]]:
    """Sort the tensors of a file: layer -> part -> key."""
    known = frozenset(keys)
    layers: dict[str, dict[str, str]] = {}
    for key in keys:
        layer, part = _split(key, known) or (None, "")
        if layer is not None and layer.startswith("lora_"):
            layer = layer.replace(".", "_")  # diffusers' convert_state_dict_to_kohya leaves a dot in DoRA's names
        if layer is None:
            kind = next((f"of {kind}" for mark, kind in _OTHER_KINDS.items() if mark in key), "no part of a LoRA")
            raise LoraError(path, f"its tensor {quoted(key)} is {kind}")
        if part in layers.setdefault(layer, {}):
            raise LoraError(path, f"it has {part} of {quoted(layer)} twice")
        layers[layer][part] = key
    return layers


def _split(key: str, known: Collection[str]) -> tuple[str, str] | None:
    """Split a key into layer and part; None if it is no part of a LoRA."""
    if (match := _FACTOR.fullmatch(key)) is not None:
        part = _PEFT_PARTS.get(match["part"], match["part"])
        if match["what"] == "bias":
            return (match["layer"], "bias") if part == "up" else None
        return match["layer"], part
    if (match := _OTHER_PART.fullmatch(key)) is not None:
        return match["layer"], match["part"]
    layer, _, part = key.rpartition(".")
    return (layer, "factor") if part == "weight" and f"{layer}.on_input" in known else None


def _check_numbers(path: Path, key: str, tensor: torch.Tensor, *, whole: bool) -> None:
    """Check that a tensor holds finite floats, or an integer where that is a number and no weight."""
    if not (whole or tensor.is_floating_point()) or tensor.is_complex() or not tensor.float().isfinite().all():
        raise LoraError(path, f"its tensor {quoted(key)} has other values than finite floats")


def _strength(
    configs: Mapping[str, PeftConfig], layer: str, alpha: torch.Tensor | None
) -> Callable[[int | None], float]:
    """Return the function from a layer's rank to its strength: alpha / rank; 1 where nothing says an alpha."""
    if alpha is not None:
        if alpha.numel() != 1:
            raise LayerError("the alpha of {layer} is not one number")
        return lambda rank: 1.0 if rank is None else float(alpha) / rank
    for network, config in configs.items():
        if not network or layer.startswith(f"{network}."):
            name = layer.removeprefix(f"{network}.")
            return lambda rank: config.strength(name, rank)
    return lambda _: 1.0
