"""Reads LoRA files: the layers that a file changes, the factors, and their strength. The model is not known yet.

For every layer that it changes, a file has two thin factors (Hu et al. 2021, arXiv 2106.09685): the change of the
weight is alpha / rank * up @ down. Programs spell that differently; all of these are read:

    kohya                 lora_unet_..._attn1_to_q.lora_down.weight, .lora_up.weight, .lora_mid.weight, .alpha;
                          LCM-LoRA too
    diffusers, PEFT       unet....attn1.to_q.lora_A.weight, .lora_B.weight
    diffusers until 0.21  ....attn1.processor.to_q_lora.down.weight, ....to_q.lora.down.weight,
                          ....q_proj.lora_linear_layer.down.weight, and the same with up
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from nano_export.errors import LoraError
from nano_export.options import LoraFile
from nano_runtime.bundle.checksums import sha256_of

__all__ = ["Factors", "Lora", "open_lora", "shown"]

_FACTOR = re.compile(r"(?P<layer>.+)[._]lora(?:_linear_layer)?[._](?P<part>up|down|mid|A|B)\.weight", re.DOTALL)
_PEFT_PARTS = {"A": "down", "B": "up"}
_ALPHA = ".alpha"
_OTHER_KINDS = {"hada_": "LoHa", "lokr_": "LoKr", "oft_": "OFT", "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA"}
_PEFT_CONFIG = "lora_adapter_metadata"  # diffusers' name for it, in the file's metadata
_PLAIN_NAME = re.compile(r"\^?[\w.]+")
_LARGEST_BYTES = 4 << 30  # rank 256 for every layer of Stable Diffusion 2, in fp32, is about 2 GB
_LARGEST_HEADER_BYTES = 16 << 20  # one with all layers of Stable Diffusion 2 has a third of a million
_SHOWN_LETTERS = 120


@dataclass(frozen=True)
class Factors:
    """The factors of one layer: floats of any precision, all finite.

    Attributes:
        down: [rank, in] or [rank, in, kh, kw].
        up: [out, rank] or [out, rank, 1, 1].
        mid: [rank, rank, kh, kw], LoCon's factor between two 1x1 factors; or None.
        strength: alpha / rank; 1 where the file has no alpha.
    """

    down: torch.Tensor
    up: torch.Tensor
    mid: torch.Tensor | None
    strength: float

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the change: out, in, kh, kw. A linear layer is a 1x1 convolution, here as in the files."""
        kernel = (self.down if self.mid is None else self.mid).shape[2:]
        return (self.up.shape[0], self.down.shape[1], *(kernel or (1, 1)))

    def change(self) -> torch.Tensor:
        """Multiply the factors: float32 [out, in, kh, kw], strength included.

        They are convolutions in a row, ``down``, ``mid``, ``up``; those with a 1x1 kernel are matrices on the channels.
        """
        down, up = self.down.float().flatten(1), self.up.float().flatten(1)
        if self.mid is None:
            return (up @ down).reshape(self.shape).mul_(self.strength)
        return torch.einsum("or,rskl,si->oikl", up, self.mid.float(), down).mul_(self.strength)


@dataclass(frozen=True)
class Lora:
    """A LoRA file, checked as far as possible without a model.

    Attributes:
        file: its path and scale.
        sha256: lower-case hex, of the file.
        layers: the factors by the layer's name, as the file spells it.
    """

    file: LoraFile
    sha256: str
    layers: Mapping[str, Factors]


@dataclass(frozen=True)
class _PeftConfig:
    """The part of PEFT's LoraConfig that a merge needs.

    Attributes:
        alpha: of all layers but those in ``alphas``.
        alphas: alpha by a layer's name or the end of it; the first match counts. "^" begins whole names.
        by_root: whether alpha is divided by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732).
    """

    alpha: float
    alphas: Mapping[str, float]
    by_root: bool


def open_lora(file: LoraFile) -> Lora:
    """Read a file, and check all that can be checked without a model.

    safetensors checks header, offsets and length, and runs no code. It would accept a header of 100 MB, which takes
    many times as much memory in Python objects.

    Raises:
        LoraError: the file does not exist, is no safetensors file or is damaged; it, or its header, is larger than that
            of any LoRA; it holds another kind of change; a factor is missing, or does not fit the others; or a number
            is not finite.
    """
    path = file.path
    if not path.is_file():
        raise LoraError(path, "there is no such file")
    if (size := path.stat().st_size) > _LARGEST_BYTES:
        raise LoraError(path, f"{size / 1e9:.1f} GB are more than a LoRA can have")
    try:
        with path.open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if header > _LARGEST_HEADER_BYTES:
            raise LoraError(path, f"it is not a safetensors file, or a damaged one (a header of {header} bytes)")
        with safe_open(path, framework="pt") as content:
            config = _peft_config(path, content.metadata())
            keys = _by_layer(path, content.keys())
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise LoraError(path, f"it is not a safetensors file, or a damaged one ({error})") from error
    if not keys:
        raise LoraError(path, "it holds no tensors")
    for key, tensor in tensors.items():
        if not (tensor.is_floating_point() and tensor.float().isfinite().all()):
            raise LoraError(path, f"its tensor {shown(key)} has other values than finite floats")
    layers = {}
    for layer, parts in keys.items():
        own = {part: tensors[key] for part, key in parts.items()}
        alpha = own.pop("alpha", None)
        _check_factors(path, layer, own)
        if alpha is not None and alpha.numel() != 1:
            raise LoraError(path, f"the alpha of {shown(layer)} is not one number")
        rank = own["down"].shape[0]
        strength = _peft_strength(config, layer, rank) if alpha is None else float(alpha) / rank
        layers[layer] = Factors(own["down"], own["up"], own.get("mid"), strength)
    return Lora(file, sha256_of(path), layers)


def shown(name: str) -> str:
    """Quote a name from a file for a message, on one line and not too long."""
    return repr(name if len(name) <= _SHOWN_LETTERS else f"{name[:_SHOWN_LETTERS]}…")


def _by_layer(path: Path, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Sort the tensors of a file: layer -> down, up, mid, alpha -> key."""
    layers: dict[str, dict[str, str]] = {}
    for key in keys:
        match = _FACTOR.fullmatch(key)
        if match is not None:
            layer, part = match["layer"], _PEFT_PARTS.get(match["part"], match["part"])
        elif key.endswith(_ALPHA):
            layer, part = key.removesuffix(_ALPHA), "alpha"
        else:
            kind = next((f"of {kind}, not of LoRA" for mark, kind in _OTHER_KINDS.items() if mark in key), None)
            raise LoraError(path, f"its tensor {shown(key)} is {'no part of a LoRA' if kind is None else kind}")
        if part in layers.setdefault(layer, {}):
            raise LoraError(path, f"it has {part} of {shown(layer)} twice")
        layers[layer][part] = key
    return layers


def _check_factors(path: Path, layer: str, factors: Mapping[str, torch.Tensor]) -> None:
    """Check that one layer has all factors, and that they can be multiplied."""
    for part in ("down", "up"):
        if part not in factors:
            raise LoraError(path, f"it has no {part} for {shown(layer)}")
    down, up, mid = factors["down"], factors["up"], factors.get("mid")
    fit = all(factor.ndim in {2, 4} and factor.numel() > 0 for factor in factors.values()) and _is_thin(up)
    if mid is None:
        fit = fit and up.shape[1] == down.shape[0]
    else:
        fit = fit and mid.ndim == 4 and mid.shape[:2] == (up.shape[1], down.shape[0]) and _is_thin(down)  # noqa: PLR2004
    if not fit:
        shapes = ", ".join(f"{part} {'x'.join(map(str, factor.shape))}" for part, factor in sorted(factors.items()))
        raise LoraError(path, f"the factors of {shown(layer)} cannot be multiplied: {shapes}")


def _is_thin(factor: torch.Tensor) -> bool:
    """Return whether a factor is a matrix on the channels: a linear layer's, or a 1x1 convolution's."""
    return all(size == 1 for size in factor.shape[2:])


def _peft_config(path: Path, metadata: Mapping[str, str] | None) -> dict[str, _PeftConfig]:
    """Read the alphas in files by diffusers since 0.34, for each network that they change."""
    try:
        fields = json.loads((metadata or {}).get(_PEFT_CONFIG, "{}"))
        configs = {
            network: _PeftConfig(
                alpha=float(fields[f"{network}.lora_alpha"]),
                alphas={name: float(alpha) for name, alpha in fields.get(f"{network}.alpha_pattern", {}).items()},
                by_root=bool(fields.get(f"{network}.use_rslora", False)),
            )
            for network in ("unet", "text_encoder")
            if any(name.startswith(f"{network}.") for name in fields)
        }
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise LoraError(path, f"its metadata {_PEFT_CONFIG} cannot be read ({error})") from error
    for config in configs.values():
        if not all(map(math.isfinite, (config.alpha, *config.alphas.values()))):
            raise LoraError(path, f"an alpha in its metadata {_PEFT_CONFIG} is not finite")
        if unread := [name for name in config.alphas if not _PLAIN_NAME.fullmatch(name)]:
            raise LoraError(path, f"{shown(unread[0])} in its metadata {_PEFT_CONFIG} is not the name of a layer")
    return configs


def _peft_strength(configs: Mapping[str, _PeftConfig], layer: str, rank: int) -> float:
    """Return alpha / rank of a layer from PEFT's config; 1 without one.

    PEFT reads the names in ``alpha_pattern`` as regular expressions. Here they are names, or ends of names: an
    expression from a stranger's file can run for hours.
    """
    network, _, name = layer.partition(".")
    if network not in configs:
        return 1.0
    config = configs[network]
    alphas = (
        alpha
        for pattern, alpha in config.alphas.items()
        if name == pattern.removeprefix("^") or name.endswith(f".{pattern}")
    )
    return next(alphas, config.alpha) / (math.sqrt(rank) if config.by_root else rank)
