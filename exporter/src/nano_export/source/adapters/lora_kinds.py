"""Recognises the kind of a layer's change by the tensors that a LoRA file has for it, and checks that they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from nano_export.source.adapters.lora_change import (
    Change,
    Decomposed,
    Difference,
    Factors,
    Generalized,
    Hadamard,
    Kronecker,
    LayerChange,
    Scaled,
    Sum,
)

__all__ = ["LayerError", "layer_change"]

Parts: TypeAlias = Mapping[str, torch.Tensor]
Strength: TypeAlias = Callable[[int | None], float]
"""From the rank of the tensors to alpha / rank; None for tensors that have none."""

_BESIDE = ("bias", "diff_b", "b_norm", "dora_scale", "lora_magnitude_vector")  # parts that join another kind
_MATRIX, _KERNEL = 2, 4  # numbers of axes


class LayerError(Exception):
    """A layer whose tensors mean nothing; the message has a place for its name, ``{layer}``."""


def layer_change(parts: Parts, strength: Strength) -> LayerChange:
    """Return what the tensors of one layer mean.

    Args:
        parts: the tensors by their part, see ``lora_file``; without alpha.
        strength: of this layer.

    Raises:
        LayerError: a part is missing or of another kind, or their shapes do not fit each other.
    """
    own = frozenset(part for part in parts if part not in _BESIDE)
    beside = frozenset(parts) - own
    if not own and beside & {"diff_b", "b_norm"}:
        return LayerChange(None, _bias(parts, 1.0))
    needed, optional, make = _kind(own)
    if missing := [part for part in needed if part not in own]:
        raise LayerError(f"it has no {missing[0]} for {{layer}}")
    if strange := sorted(own.difference(needed, optional)):
        raise LayerError(f"it has {strange[0]} beside {needed[0]} for {{layer}}, which cannot be merged together")
    change, used = make(parts, strength)
    return LayerChange(_decomposed(change, parts), _bias(parts, used))


_Make: TypeAlias = Callable[[Parts, Strength], tuple[Change, float]]


def _kind(own: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...], _Make]:
    """Return the kind that has most of these parts: those that it needs, those that it may have, and its maker."""
    pairs = tuple(f"lokr_w{half}{end}" for half in "12" for end in ("", "_a", "_b"))
    kinds: tuple[tuple[tuple[str, ...], tuple[str, ...], _Make], ...] = (
        (("down", "up"), ("mid",), _factors),
        (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), ("hada_t1", "hada_t2"), _hadamard),
        ((), (*pairs, "lokr_t2"), _kronecker),
        (("diff",), (), _difference),
        (("w_norm",), (), _difference),
        (("factor", "on_input"), (), _scaled),
        (("a1", "a2", "b1", "b2"), ("bm",), _generalized),
    )
    return max(kinds, key=lambda kind: len(own.intersection(kind[0] + kind[1])))


def _factors(parts: Parts, strength: Strength) -> tuple[Factors, float]:
    """Check and take the factors of a LoRA."""
    return _chain({part: parts[part] for part in ("down", "up", "mid") if part in parts}, strength)


def _chain(chain: Parts, strength: Strength) -> tuple[Factors, float]:
    """Check that down, mid and up can be multiplied, and take them."""
    down, up, mid = chain["down"], chain["up"], chain.get("mid")
    fit = all(factor.ndim in {_MATRIX, _KERNEL} and factor.numel() > 0 for factor in chain.values()) and _is_thin(up)
    if mid is None:
        fit = fit and up.shape[1] == down.shape[0]
    else:
        fit = fit and mid.ndim == _KERNEL and mid.shape[:2] == (up.shape[1], down.shape[0]) and _is_thin(down)
    if not fit:
        raise _misfit(chain)
    used = strength(down.shape[0])
    return Factors(down, up, mid, used), used


def _hadamard(parts: Parts, strength: Strength) -> tuple[Hadamard, float]:
    """Check and take the factors of LoHa."""
    sides = [(parts[f"hada_w{side}_a"], parts[f"hada_w{side}_b"]) for side in "12"]
    cores = [parts.get(f"hada_t{side}") for side in "12"]
    if any(factor.ndim != _MATRIX or factor.numel() == 0 for side in sides for factor in side):
        raise _misfit(parts)
    first, second = cores
    if first is None or second is None:
        if first is not second:
            raise LayerError("it has one of hada_t1 and hada_t2 for {layer}, not both")
        shapes = {(left.shape[0], right.shape[1]) for left, right in sides}
        fit = len(shapes) == 1 and all(left.shape[1] == right.shape[0] for left, right in sides)
        both = None
    else:
        both = (first, second)
        shapes = {(left.shape[1], right.shape[1]) for left, right in sides}
        fit = len(shapes) == 1 and all(_is_core(core, *side) for core, side in zip(both, sides, strict=True))
        fit = fit and first.shape[2:] == second.shape[2:]
    if not fit:
        raise _misfit(parts)
    used = strength(sides[0][1].shape[0])
    return Hadamard((sides[0], sides[1]), both, used), used


def _kronecker(parts: Parts, strength: Strength) -> tuple[Kronecker, float]:
    """Check and take the halves of LoKr."""
    halves: list[tuple[torch.Tensor, ...]] = []
    for half in ("lokr_w1", "lokr_w2"):
        pair = tuple(parts[f"{half}_{end}"] for end in "ab" if f"{half}_{end}" in parts)
        whole = (parts[half],) if half in parts else ()
        if len(whole) + len(pair) not in {1, 2} or bool(whole) == bool(pair) or len(pair) == 1:
            raise LayerError(f"it has neither {half} nor both of its factors for {{layer}}")
        halves.append(whole + pair)
    small, block = halves
    core = parts.get("lokr_t2")
    fit = all(factor.ndim == _MATRIX and factor.numel() > 0 for factor in small)
    fit = fit and all(factor.ndim in {_MATRIX, _KERNEL} and factor.numel() > 0 for factor in block)
    fit = fit and (len(small) == 1 or small[0].shape[1] == small[1].shape[0])
    if core is not None:
        fit = fit and len(block) == 2 and _is_core(core, *block)  # noqa: PLR2004 - two factors
    elif len(block) > 1:
        fit = fit and block[0].ndim == _MATRIX and block[0].shape[1] == block[1].shape[0]
    if not fit:
        raise _misfit(parts)
    factored = next((half for half in (small, block) if len(half) > 1), None)
    used = strength(None if factored is None else factored[1].shape[0])
    return Kronecker(small, block, core, used), used


def _difference(parts: Parts, _: Strength) -> tuple[Difference, float]:
    """Take a full difference."""
    return Difference(parts["diff"] if "diff" in parts else parts["w_norm"]), 1.0


def _scaled(parts: Parts, _: Strength) -> tuple[Scaled, float]:
    """Check and take the factors of IA3."""
    factor, on_input = parts["factor"], parts["on_input"]
    if on_input.numel() != 1 or factor.numel() != max(factor.shape, default=0):
        raise _misfit(parts)
    return Scaled(factor, by_column=bool(on_input)), 1.0


def _generalized(parts: Parts, strength: Strength) -> tuple[Generalized, float]:
    """Check and take the factors of GLoRA."""
    chain = {"down": parts["b2"], "up": parts["b1"], **({"mid": parts["bm"]} if "bm" in parts else {})}
    outer, used = _chain(chain, strength)
    inner = (parts["a1"], parts["a2"])
    columns = outer.shape[1]
    if not (
        all(factor.ndim in {_MATRIX, _KERNEL} and _is_thin(factor) for factor in inner)
        and inner[0].shape[0] == inner[1].shape[1] == columns
        and inner[0].shape[1] == inner[1].shape[0]
    ):
        raise _misfit(parts)
    return Generalized(inner, outer, used), used


def _decomposed(change: Change, parts: Parts) -> Change:
    """Put the magnitudes of DoRA around a change, where there are some.

    LyCORIS's are [out, 1, ...], or [1, in, ...] if it decomposes by input channels; PEFT's are [out] or [1, out, 1, 1].
    """
    given = [part for part in ("dora_scale", "lora_magnitude_vector") if part in parts]
    if not given:
        return change
    magnitude = parts[given[0]]
    if not isinstance(change, Sum) or isinstance(change, Difference) or len(given) > 1:
        raise LayerError(f"it has {given[-1]} for {{layer}} beside what has no direction")
    as_peft = given[0] == "lora_magnitude_vector"
    rows, columns = change.shape[:2]
    by_column = not as_peft and magnitude.ndim > 1 and magnitude.shape[0] == 1 != rows
    wanted = columns if by_column else rows
    count = magnitude.numel()
    if by_column and len(change.shape) == _MATRIX and count > 0 and (columns or 0) % count == 0:
        wanted = count  # behind the input channels may be a kernel; the model will tell
    if count != wanted or count != max(magnitude.shape, default=1):
        raise LayerError(f"{given[0]} of {{layer}} has {count} magnitudes, not {wanted}")
    return Decomposed(change, magnitude, by_column=by_column, as_peft=as_peft)


def _bias(parts: Parts, strength: float) -> torch.Tensor | None:
    """Return what is added to the bias; PEFT scales its own by the layer's strength."""
    given = [part for part in ("bias", "diff_b", "b_norm") if part in parts]
    if not given:
        return None
    if len(given) > 1 or parts[given[0]].ndim != 1:
        raise LayerError(f"it has no one vector as {given[0]} for {{layer}}")
    return parts[given[0]].float() * (strength if given[0] == "bias" else 1.0)


def _is_core(core: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> bool:
    """Return whether a core joins two factors that have the rank first."""
    return core.ndim == _KERNEL and core.shape[:2] == (left.shape[0], right.shape[0])


def _is_thin(factor: torch.Tensor) -> bool:
    """Return whether a factor is a matrix on the channels: a linear layer's, or a 1x1 convolution's."""
    return all(size == 1 for size in factor.shape[2:])


def _misfit(parts: Parts) -> LayerError:
    """Return the error of tensors that cannot be multiplied."""
    shapes = ", ".join(
        f"{part} {'x'.join(map(str, factor.shape)) or 'of one number'}" for part, factor in sorted(parts.items())
    )
    return LayerError(f"the factors of {{layer}} cannot be multiplied: {shapes}")
