"""The grids of quantization: uint8 for activations, int8 for weights, and what a value becomes on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F32

__all__ = ["ALONE_LIMIT", "WEIGHT_LIMIT", "Range", "quantized_weight", "weight_scale"]

# Weights use [-63, 63]. Without VNNI, engines add two u8 x s8 products in 16 bits: 2 * 255 * 127 saturates, and
# 2 * 255 * 63 does not. On such a processor the full range cost 13 dB of a UNet call's PSNR; half the range costs 1 dB
# everywhere (bench/LOG.md, 2026-11-23), and no processor saturates.
WEIGHT_LIMIT = 63
ALONE_LIMIT = 127  # of weights that are multiplied in float, and of tables: nothing overflows there


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value that a grid covers; what is beyond is cut off."""

    low: float
    high: float

    def uint8_parameters(self) -> tuple[np.float32, np.uint8]:
        """Return scale and zero point of the asymmetric uint8 grid that covers the range and contains 0 exactly.

        Zero must be exact because convolutions pad with it. Jacob et al. 2018 (arXiv:1712.05877), section 3.
        """
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        scale = np.float32((high - low) / 255.0) if high > low else np.float32(1.0)
        return scale, np.uint8(np.clip(np.round(-low / scale), 0, 255))

    def rounded(self, values: F32) -> F32:
        """Return values as they are after quantizing and dequantizing them."""
        scale, zero_point = self.uint8_parameters()
        shifted = np.round(values / scale) + np.float32(zero_point)
        return (np.clip(shifted, 0, 255) - np.float32(zero_point)) * scale


def quantized_weight(
    weight: NDArray[np.float32], axis: int, limit: int = WEIGHT_LIMIT
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize symmetrically per channel: ``weight ~ q * scale``, q int8 in +-limit, scales float32 [channels]."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = weight_scale(weight, axis, limit)
    q = np.round(weight / np.expand_dims(scale, others))
    return np.clip(q, -limit, limit).astype(np.int8), scale


def weight_scale(weight: NDArray[np.float32], axis: int, limit: int = WEIGHT_LIMIT) -> NDArray[np.float32]:
    """Return the largest |w| / limit per channel; 1 for a channel of zeros."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.maximum(weight.max(axis=others), -weight.min(axis=others))
    return np.where(largest > 0, largest / np.float32(limit), np.float32(1.0)).astype(np.float32)
