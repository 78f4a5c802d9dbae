"""Torch's noise in numpy: ``torch.randn`` on a CPU generator, bit for bit.

A seed draws the same picture as in diffusers only if the first latents are the same numbers. torch draws them in three
layers, and this file repeats each:

1. mt19937, seeded with the low 32 bits of the seed (Matsumoto & Nishimura 1998, ``init_genrand`` of their 2002 code);
2. uniforms: the low 24 bits of one word (float32), or the low 53 bits of two words (float64);
3. Box-Muller (1958). Tensors of 16 elements or more go through blocks of 16 in float32: eight radii, eight angles.
   Smaller ones go one by one through float64, and the second normal of a pair waits for the next small tensor.

The bits of layer 3 in float32 depend on the approximation of logarithm, sine and cosine. torch's AVX2 kernel, which it
also takes on machines with AVX-512, uses the single precision polynomials of Cephes (Moshier 1989), and its compiler
fuses a product and a sum into one step that is rounded once. This file does the same, so it gives those bits on any
machine. torch itself calls the C library on a machine without AVX2, which differs by up to 2.3e-6 (in 1e6 draws).
(Matches torch 2.13, ``aten/src/ATen/native/cpu/DistributionTemplates.h``.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F32
from nano_runtime.errors import SeedError

__all__ = ["NoiseSource", "TorchGenerator", "no_noise", "noise_source", "randn"]

_BLOCK: Final = 16
_WORDS: Final = 624  # state of mt19937
_MASK_24: Final = (1 << 24) - 1
_MASK_32: Final = (1 << 32) - 1
_MASK_53: Final = (1 << 53) - 1
_MAX_SEED: Final = (1 << 64) - 1

# Cephes, single precision: log(1 + x) = x - x²/2 + x³ P(x); sine and cosine on [-π/4, π/4], powers of x² falling.
_LOG: Final = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_SIN: Final = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS: Final = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_LN2: Final = (0.693359375, -2.12194440e-4)  # a high part that is exact in float32, and the rest of ln 2
_QUARTER_PI: Final = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)  # three parts of π/4

NoiseSource: TypeAlias = Callable[[], F32]  # each call draws fresh unit noise for a batch of latents


class TorchGenerator:
    """A stream of numbers that successive draws consume, as ``torch.Generator("cpu").manual_seed(seed)``.

    Args:
        seed: 0 to 2**64 - 1. Only the low 32 bits matter, as in torch.

    Raises:
        SeedError: the seed is out of that range.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed <= _MAX_SEED:
            raise SeedError(seed)
        self._words = np.random.MT19937()
        self._words.state = {"bit_generator": "MT19937", "state": {"key": _init_genrand(seed), "pos": _WORDS}}
        self._waiting: float | None = None

    def randn(self, shape: tuple[int, ...]) -> F32:
        """Draw standard normals: ``torch.randn(shape, generator=self)`` as float32."""
        count = math.prod(shape)
        if count < _BLOCK:
            return np.array([self._one() for _ in range(count)], np.float32).reshape(shape)
        normals = self._uniforms(count)
        whole = count - count % _BLOCK
        normals[:whole] = _box_muller(normals[:whole])
        if whole < count:  # torch then draws the last 16 anew, over the end of the last whole block
            normals[-_BLOCK:] = _box_muller(self._uniforms(_BLOCK))
        return normals.reshape(shape)

    def _uniforms(self, count: int) -> F32:
        """Draw float32 uniforms in [0, 1), multiples of 2**-24."""
        low = self._words.random_raw(count) & np.uint64(_MASK_24)
        return low.astype(np.float32) * np.float32(2.0**-24)

    def _one(self) -> float:
        """Draw one normal of a tensor with fewer than 16 elements, in float64."""
        if self._waiting is not None:
            normal, self._waiting = self._waiting, None
            return normal
        high_1, low_1, high_2, low_2 = self._words.random_raw(4).tolist()
        angle = 2.0 * math.pi * (((high_1 << 32 | low_1) & _MASK_53) * 2.0**-53)
        radius = math.sqrt(-2.0 * math.log1p(-((high_2 << 32 | low_2) & _MASK_53) * 2.0**-53))
        self._waiting = radius * math.sin(angle)
        return radius * math.cos(angle)


def randn(seed: int, shape: tuple[int, ...]) -> F32:
    """Draw ``torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))``.

    Args:
        seed: 0 to 2**64 - 1.
        shape: shape of the array; for latents (batch, channels, height, width).

    Returns:
        Float32 standard normals, the same bits as torch's AVX2 kernel.

    Raises:
        SeedError: the seed is out of range.
    """
    return TorchGenerator(seed).randn(shape)


def noise_source(seeds: Sequence[int], shape: tuple[int, ...]) -> NoiseSource:
    """Return the source of all the noise that a batch needs, one stream for each picture.

    The first draw equals the first latents of diffusers with a list of generators. The later draws equal the noise that
    its stochastic schedulers add.

    Args:
        seeds: seeds of the pictures, each 0 to 2**64 - 1.
        shape: shape of one picture's latents.

    Raises:
        SeedError: a seed is out of range.
    """
    generators = [TorchGenerator(seed) for seed in seeds]
    return lambda: np.stack([generator.randn(shape) for generator in generators])


def no_noise() -> F32:
    """Refuse to draw: the source of a sampler that was made for its timesteps only, or that adds no noise.

    Raises:
        TypeError: always.
    """
    raise TypeError("this sampler adds noise on its way, and was made without a source of it")


def _init_genrand(seed: int) -> NDArray[np.uint32]:
    """Return mt19937's first 624 words (Knuth's multiplier 1812433253, TAOCP vol. 2, 3rd ed., p. 106)."""
    words = [seed & _MASK_32]
    for index in range(1, _WORDS):
        last = words[-1]
        words.append((1812433253 * (last ^ last >> 30) + index) & _MASK_32)
    return np.array(words, np.uint32)


def _box_muller(uniforms: F32) -> F32:
    """Turn blocks of 16 float32 uniforms in [0, 1) into normals: radii from the first eight, angles from the rest."""
    blocks = uniforms.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(np.float32(-2) * _log(np.float32(1) - blocks[:, 0]))
    sine, cosine = _sincos(np.float32(2 * math.pi) * blocks[:, 1])
    normals = np.stack([radius * cosine, radius * sine], axis=1)
    return (normals + np.float32(0)).reshape(-1)  # torch adds the mean, which turns -0 into 0


def _log(x: F32) -> F32:
    """Return the natural logarithm of float32 in (0, 1]."""
    fraction, exponent = np.frexp(x)
    small = fraction < np.float32(math.sqrt(0.5))
    e = (exponent - small).astype(np.float32)
    x = np.where(small, fraction + fraction, fraction) - np.float32(1)
    squared = x * x
    y = _fma(_polynomial(_LOG, x) * x, squared, e * np.float32(_LN2[1]))
    y -= np.float32(0.5) * squared
    return _fma(e, np.float32(_LN2[0]), x + y)


def _sincos(angle: F32) -> tuple[F32, F32]:
    """Return sine and cosine of float32 in [0, 2π]."""
    octant = (angle * np.float32(4 / math.pi)).astype(np.int32)
    octant += octant & 1  # to the nearest multiple of π/2, in eighths of a turn
    x = angle
    for part in _QUARTER_PI:
        x = _fma(octant.astype(np.float32), np.float32(-part), x)
    squared = x * x
    sine = _fma(_polynomial(_SIN, squared) * squared, x, x)
    half = np.float32(0.5) * squared
    cosine = _fma(_polynomial(_COS, squared) * squared, squared, -half) + np.float32(1)
    swapped = octant & 2 != 0
    sine, cosine = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return np.where(octant & 4 != 0, -sine, sine), np.where((octant + 2) & 4 != 0, -cosine, cosine)


def _polynomial(coefficients: tuple[float, ...], x: F32) -> F32:
    """Evaluate a polynomial by Horner's rule in float32 with fused steps, highest power first."""
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = _fma(y, x, np.float32(coefficient))
    return y


def _fma(a: F32, b: F32 | np.float32, c: F32 | np.float32) -> F32:
    """Return a * b + c in float32, rounded once.

    The product is exact in float64. The sum is rounded to odd (Boldo & Melquiond 2008): if it is not exact, which
    Knuth's TwoSum tells, its last bit is made 1. Then rounding it once more, to float32, gives the right result.
    """
    product = np.asarray(a, np.float64) * np.float64(b)
    addend = np.asarray(c, np.float64)
    total = product + addend
    rest = total - product
    error = (product - (total - rest)) + (addend - rest)
    bits = total.view(np.int64)
    towards = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where((error != 0) & (bits & 1 == 0), bits + towards, bits)
    return odd.view(np.float64).astype(np.float32)
