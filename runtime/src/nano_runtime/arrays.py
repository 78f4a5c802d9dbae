"""The array types of this package, each defined once: F32, F64, U8 and the mapping of arrays by tensor name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["F32", "F64", "U8", "Arrays"]

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
U8: TypeAlias = NDArray[np.uint8]
Arrays: TypeAlias = Mapping[str, NDArray[np.float32] | NDArray[np.int64]]
"""Tensors by name, as a graph takes them."""
