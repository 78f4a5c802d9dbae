"""Reads PEFT's configs: the alphas of a LoRA whose file does not hold them.

They are in ``adapter_config.json`` beside a file that PEFT wrote, or in the metadata of one that diffusers wrote.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_export.errors import LoraError, quoted

__all__ = ["PREFIX", "PeftConfig", "config_beside", "configs_within"]

PREFIX = "base_model.model."
"""Before the name of every layer in a file that PEFT itself wrote."""

_METADATA = "lora_adapter_metadata"  # diffusers' name for it, since 0.34
_FILE = "adapter_config.json"
_LARGEST_BYTES = 16 << 20
_ALPHAS = {"LORA": "lora_alpha", "LOHA": "alpha", "LOKR": "alpha"}
_PATTERN = re.compile(r"\^?(?:\.\*|\\?\.|\w)+\$?")
# Starts that also rewrite the model's own weights, so that the change is one of other weights.
_REWRITING = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
_UNREAD = ("layer_replication", "use_qalora", "trainable_token_indices")


@dataclass(frozen=True)
class PeftConfig:
    """The part of PEFT's config that a merge needs.

    Attributes:
        alpha: of all layers but those in ``alphas``.
        alphas: alpha by pattern; the first that matches a layer's name counts.
        rank: of all layers but those in ``ranks``; needed where the tensors have none.
        ranks: rank by pattern.
        by_root: whether alpha is divided by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732).
    """

    alpha: float
    alphas: Mapping[str, float]
    rank: float
    ranks: Mapping[str, float]
    by_root: bool

    def strength(self, layer: str, rank: int | None) -> float:
        """Return alpha / rank of a layer.

        Args:
            layer: its name in the network.
            rank: of its tensors; None for those of LoKr that are whole.
        """
        alpha = _of_pattern(self.alphas, layer, self.alpha)
        used = _of_pattern(self.ranks, layer, self.rank) if rank is None else rank
        return alpha / (math.sqrt(used) if self.by_root else used)


def config_beside(file: Path) -> PeftConfig:
    """Read the config beside a file that PEFT wrote.

    Raises:
        LoraError: it is missing, cannot be read, or asks for what no merge does.
    """
    path = file.parent / _FILE
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise LoraError(file, f"{_FILE} beside it is no file")
        if path.stat().st_size > _LARGEST_BYTES:
            raise LoraError(file, f"{_FILE} beside it is too large")
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LoraError(file, f"{_FILE} is not beside it, and PEFT keeps the alpha there") from error
    except (OSError, ValueError, RecursionError) as error:
        raise LoraError(file, f"{_FILE} beside it cannot be read ({error})") from error
    return _config(file, fields, f"{_FILE} beside it")


def configs_within(file: Path, metadata: Mapping[str, str] | None) -> dict[str, PeftConfig]:
    """Read the configs in a file that diffusers wrote, by network; "" is the one network of a file without names.

    Raises:
        LoraError: they cannot be read, or ask for what no merge does.
    """
    where = f"its metadata {_METADATA}"
    try:
        fields = json.loads((metadata or {}).get(_METADATA, "{}"))
        names = [""] if isinstance(fields, dict) and "peft_type" in fields else ["unet", "text_encoder"]
        parts = {
            name: {key.removeprefix(f"{name}."): value for key, value in fields.items() if key.startswith(f"{name}.")}
            if name
            else fields
            for name in names
            if not name or any(key.startswith(f"{name}.") for key in fields)
        }
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise LoraError(file, f"{where} cannot be read ({error})") from error
    return {name: _config(file, part, where) for name, part in parts.items()}


def _config(file: Path, fields: Mapping[str, Any], where: str) -> PeftConfig:
    """Check and take over the fields of one config."""
    try:
        kind = fields.get("peft_type", "LORA")
        if kind not in _ALPHAS:
            raise LoraError(file, f"{where} says peft_type {kind!r}, which cannot be merged")
        start = fields.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_REWRITING):
            raise LoraError(
                file,
                f"{where} says init_lora_weights {start!r}, which changes the model's own weights, too "
                "(PEFT can save it as a plain LoRA: path_initial_model_for_weight_conversion)",
            )
        if unread := [name for name in _UNREAD if fields.get(name)]:
            raise LoraError(file, f"{where} says {unread[0]}, which cannot be merged")
        rank = float(fields.get("r", 1))
        config = PeftConfig(
            alpha=float(fields[_ALPHAS[kind]]),
            alphas={name: float(alpha) for name, alpha in (fields.get("alpha_pattern") or {}).items()},
            rank=rank,
            ranks={name: float(rank) for name, rank in (fields.get("rank_pattern") or {}).items()},
            by_root=bool(fields.get("use_rslora", False)),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise LoraError(file, f"{where} cannot be read ({error})") from error
    if not all(map(math.isfinite, (config.alpha, *config.alphas.values()))):
        raise LoraError(file, f"an alpha in {where} is not finite")
    if not all(0 < number < math.inf for number in (config.rank, *config.ranks.values())):
        raise LoraError(file, f"a rank in {where} is not a positive number")
    if unread := [name for name in (*config.alphas, *config.ranks) if not _PATTERN.fullmatch(name)]:
        raise LoraError(file, f"{quoted(unread[0])} in {where} is not the name of a layer")
    return config


def _of_pattern(values: Mapping[str, float], layer: str, default: float) -> float:
    """Return the value of the first pattern that matches a name."""
    return next((value for pattern, value in values.items() if _matches(pattern, layer)), default)


def _matches(pattern: str, layer: str) -> bool:
    r"""Return whether PEFT's ``(.*\.)?(pattern)$`` matches a layer's name, in linear time.

    PEFT takes the patterns as regular expressions, and one from a stranger's file can run for hours. Here they are
    names, ends of names, or pieces of names with ``.*`` between them.
    """
    whole = pattern.startswith("^")
    first, *others = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".").split(".*")
    if not others:
        return layer == first or (not whole and layer.endswith(f".{first}"))
    if layer.startswith(first):
        at = len(first)
    elif not whole and f".{first}" in layer:
        at = layer.index(f".{first}") + len(first) + 1
    else:
        return False
    for piece in others[:-1]:
        found = layer.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return layer.endswith(others[-1]) and len(layer) - len(others[-1]) >= at
