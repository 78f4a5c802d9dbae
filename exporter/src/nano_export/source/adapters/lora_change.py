"""The kinds of change that a LoRA file can hold for one layer, and the arithmetic of each: old weight -> new weight.

Factors are floats of any precision; all arithmetic is float32. Shapes are those of torch's layers: [out, in] of a
linear layer, [out, in, kh, kw] of a convolution, [n] of a norm.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch

__all__ = [
    "Change",
    "Decomposed",
    "Difference",
    "Factors",
    "Generalized",
    "Hadamard",
    "Kronecker",
    "LayerChange",
    "Scaled",
    "Sum",
    "fits",
]

Shape: TypeAlias = tuple[int | None, ...]
"""Sizes; None stands for any. A linear layer may be spelled as a 1x1 convolution, and a kernel be flattened."""


class Change(Protocol):
    """What one layer's tensors in a file do to its weight."""

    @property
    def shape(self) -> Shape:
        """Shape of the weights that it can change; see ``fits``."""

    def changed(self, weight: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the new weight: float32, of the old one's shape.

        Args:
            weight: float32, of a shape that fits.
            scale: the user's; 1 is the change as it was trained.
        """


class Sum(ABC):
    """A change that is added to the weight, whatever that is."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """See ``Change``."""

    @abstractmethod
    def delta(self) -> torch.Tensor:
        """Return what is added at scale 1: float32, as many numbers as the weight has, in its order."""

    def changed(self, weight: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the sum; see ``Change``."""
        return weight + scale * self.delta().reshape(weight.shape)


@dataclass(frozen=True)
class Factors(Sum):
    """LoRA and LoCon: strength * up @ mid @ down (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
        down: [rank, in] or [rank, in, kh, kw].
        up: [out, rank] or [out, rank, 1, 1].
        mid: [rank, rank, kh, kw], LoCon's factor between two 1x1 factors; or None.
        strength: alpha / rank.
    """

    down: torch.Tensor
    up: torch.Tensor
    mid: torch.Tensor | None
    strength: float

    @property
    def shape(self) -> Shape:
        """Out, in, kh, kw. A linear layer is a 1x1 convolution, here as in some files."""
        kernel = (self.down if self.mid is None else self.mid).shape[2:]
        return (self.up.shape[0], self.down.shape[1], *(kernel or (1, 1)))

    def delta(self) -> torch.Tensor:
        """Multiply the factors.

        They are convolutions in a row, ``down``, ``mid``, ``up``; those with a 1x1 kernel are matrices on the channels.
        """
        down, up = self.down.float().flatten(1), self.up.float().flatten(1)
        if self.mid is None:
            return (up @ down).mul_(self.strength)
        return torch.einsum("or,rskl,si->oikl", up, self.mid.float(), down).mul_(self.strength)


@dataclass(frozen=True)
class Hadamard(Sum):
    """LoHa: strength * (w1_a @ w1_b) * (w2_a @ w2_b) (Hyeon-Woo et al. 2021, arXiv 2108.06098).

    With cores it is Tucker's form for convolutions, and both factors of a side have the rank first, as LyCORIS writes.

    Attributes:
        sides: the two pairs; [out, rank] and [rank, in] or [rank, in * kh * kw], with cores [rank, out] and [rank, in].
        cores: one [rank, rank, kh, kw] of each side, or None.
        strength: alpha / rank.
    """

    sides: tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    cores: tuple[torch.Tensor, torch.Tensor] | None
    strength: float

    @property
    def shape(self) -> Shape:
        """Out, and in or in * kh * kw; with cores out, in, kh, kw."""
        (left, right), _ = self.sides
        if self.cores is None:
            return (left.shape[0], right.shape[1])
        return (left.shape[1], right.shape[1], *self.cores[0].shape[2:])

    def delta(self) -> torch.Tensor:
        """Multiply the sides element by element."""
        if self.cores is None:
            one, other = (left.float() @ right.float() for left, right in self.sides)
        else:
            one, other = (
                _tucker(core, left, right) for core, (left, right) in zip(self.cores, self.sides, strict=True)
            )
        return (one * other).mul_(self.strength)


@dataclass(frozen=True)
class Kronecker(Sum):
    """LoKr: strength times the Kronecker product of a small matrix and a block (Edalati et al. 2022, arXiv 2212.10650).

    Attributes:
        small: [a, b], whole or as the two factors of it.
        block: [c, d] or [c, d, kh, kw] or [c, d * kh * kw], whole or as the two factors of it; out is a * c, in b * d.
        core: [rank, rank, kh, kw] between the factors of the block, which then are [rank, c] and [rank, d]; or None.
        strength: alpha / rank.
    """

    small: tuple[torch.Tensor, ...]
    block: tuple[torch.Tensor, ...]
    core: torch.Tensor | None
    strength: float

    @property
    def shape(self) -> Shape:
        """Out, in and the kernel; or out and in * kh * kw."""
        a, b = self.small[0].shape[0], self.small[-1].shape[1]
        if self.core is not None:
            return (a * self.block[0].shape[1], b * self.block[1].shape[1], *self.core.shape[2:])
        return (a * self.block[0].shape[0], b * self.block[-1].shape[1], *self.block[-1].shape[2:])

    def delta(self) -> torch.Tensor:
        """Multiply the factors of each half, then the halves."""
        small = _product(self.small)
        block = _product(self.block) if self.core is None else _tucker(self.core, *self.block).contiguous()
        return torch.kron(small.reshape(*small.shape, *[1] * (block.ndim - 2)), block).mul_(self.strength)


@dataclass(frozen=True)
class Difference(Sum):
    """A full difference of the weight; what LyCORIS calls full, and trains for norms.

    Attributes:
        difference: of the weight's shape.
    """

    difference: torch.Tensor

    @property
    def shape(self) -> Shape:
        """The weight's."""
        return tuple(self.difference.shape)

    def delta(self) -> torch.Tensor:
        """Return the difference."""
        return self.difference.float()


@dataclass(frozen=True)
class Decomposed:
    """DoRA (Liu et al. 2024, arXiv 2402.09353): direction from the sum of weight and change, magnitude from the file.

    Two libraries agree at scale 1 only. PEFT scales the change inside of the norm. LyCORIS takes the whole change and
    scales the step from the sum's norms to the magnitudes.

    Attributes:
        direction: the change that is added.
        magnitude: one for each row of the weight, or with ``by_column`` for each input channel, in any shape.
        by_column: whether the norm is taken over each input channel, not over each row.
        as_peft: whether PEFT's meaning of the scale counts, not LyCORIS's.
    """

    direction: Sum
    magnitude: torch.Tensor
    by_column: bool
    as_peft: bool

    @property
    def shape(self) -> Shape:
        """That of the change."""
        return self.direction.shape

    def changed(self, weight: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the weight with new norms."""
        total: torch.Tensor = self.direction.changed(weight, scale if self.as_peft else 1.0)
        others = tuple(axis for axis in range(total.ndim) if axis != int(self.by_column))
        norms: torch.Tensor = torch.linalg.vector_norm(total, dim=others, keepdim=True)
        magnitude = self.magnitude.float().reshape(norms.shape)
        if self.as_peft:
            return total * (magnitude / norms)
        step = magnitude / (norms + torch.finfo(torch.float32).eps)
        return total * (scale * (step - 1) + 1)


@dataclass(frozen=True)
class Scaled:
    """IA3 as LyCORIS writes it: weight * (1 + scale * factor), for each row or each input channel.

    Attributes:
        factor: one number for each, in any shape.
        by_column: whether each input channel has one, not each row.
    """

    factor: torch.Tensor
    by_column: bool

    @property
    def shape(self) -> Shape:
        """One size is known."""
        count = self.factor.numel()
        return (None, count, None, None) if self.by_column else (count, None, None, None)

    def changed(self, weight: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the scaled weight."""
        sizes = [1] * weight.ndim
        sizes[int(self.by_column)] = -1
        return weight * (1 + scale * self.factor.float().reshape(sizes))


@dataclass(frozen=True)
class Generalized:
    """GLoRA (Chavan et al. 2023, arXiv 2306.07967) as LyCORIS writes it: W + strength * (W @ a1 @ a2 + b1 @ b2).

    Attributes:
        inner: a1 [in, rank] and a2 [rank, in], on the input channels.
        outer: b1 and b2, as ``up`` and ``down`` of a LoRA, strength included.
        strength: alpha / rank.
    """

    inner: tuple[torch.Tensor, torch.Tensor]
    outer: Factors
    strength: float

    @property
    def shape(self) -> Shape:
        """That of the outer part."""
        return self.outer.shape

    def changed(self, weight: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the weight with both parts added."""
        left, right = (factor.float().flatten(1) for factor in self.inner)
        inner = torch.einsum("oi...,ir,rj->oj...", weight, left, right)
        return self.outer.changed(weight, scale) + scale * self.strength * inner


@dataclass(frozen=True)
class LayerChange:
    """All that a file changes in one layer.

    Attributes:
        weight: the change of the weight; None without one.
        bias: what is added to the bias at scale 1, strength included; None without one.
    """

    weight: Change | None
    bias: torch.Tensor | None


def fits(change: Shape, weight: Sequence[int]) -> bool:
    """Return whether a change has the shape of a weight: as it is, as a 1x1 convolution's, or with a flat kernel."""
    if len(weight) == 1:
        return change == tuple(weight)
    flat = (weight[0], math.prod(weight[1:]))
    padded = (*weight, 1, 1)[:4]
    return any(
        len(change) == len(wanted)
        and all(size is None or size == other for size, other in zip(change, wanted, strict=True))
        for wanted in (flat, padded)
    )


def _product(factors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return a matrix that is whole, or the product of its two factors; a kernel stays behind."""
    if len(factors) == 1:
        return factors[0].float()
    left, right = (factor.float() for factor in factors)
    return (left @ right.flatten(1)).reshape(left.shape[0], *right.shape[1:])


def _tucker(core: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Multiply a core [rank, rank, kh, kw] with the factors of its two sides, which have the rank first."""
    return torch.einsum("ijkl,ip,jr->prkl", core.float(), left.float(), right.float())
