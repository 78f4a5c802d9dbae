"""Chooses how each activation is quantized: a scale for every channel and one range, by the error of the products.

A layer computes ``x W``. For any positive vector ``s``, ``(x / s) (s W)`` is the same, and quantizes differently:
channels that are much larger than the others give up range to the weights that read them. For each channel, ``s`` is 1,

    sqrt(max|x| / max|W|)       or       max(1, max|x| / (2 median of max|x|))

The first is that of Nagel et al. 2019 (arXiv:1906.04721, equation 11), and SmoothQuant's (arXiv:2211.10438) with alpha
0.5. A network whose channels were scaled up in one layer and down in the next gets the same ``x / s`` and ``s W``.
Other exponents, chosen for each layer by its error, made the network's output worse (bench/LOG.md). The second leaves
all channels but outliers as they are. The range is that of all values seen, or a part of it: where few values are
large, cutting them off costs less than the coarser grid that holds them.

A constant part ``c`` of the channels can be taken out as well: ``x W = (x - c) W + c W``, where ``c W`` is exact. It is
the middle between the smallest and the largest value of each channel (Outlier Suppression+, arXiv:2304.09145), or the
mean where weights alone are quantized.

The output of a convolution, which is rounded too, has its outliers brought down in the second way: they lose nothing,
and all other channels gain. A constant part is left out of it, too, where that is worth an operator that adds it again.

Of all choices, the one is taken whose products of watched rows, quantized as the graph will quantize them, differ least
from the float products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nano_export.quantize.calibration import Seen
from nano_export.quantize.grids import ALONE_LIMIT, WEIGHT_LIMIT, Range
from nano_export.quantize.layers import Layer
from nano_runtime.arrays import F32

__all__ = ["WORTH_AN_OPERATOR", "Choice", "LayerError", "Output", "choose", "choose_output"]

_SHARES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the largest value, where large ones are cut off
_ROWS, _TAPS, _COLUMNS = 96, 3, 256  # looked at, of each product: enough to choose by
_LEAST_GAIN = 0.95  # share of the squared error that may be left, or the simpler choice stays
WORTH_AN_OPERATOR = 0.5  # share of the squared error that one more operator in every call may leave: 3 dB
_WORTH_A_SUM = 0.25  # share that one on a whole feature map may leave: 6 dB
_CONSTANT = 0.2  # share of the activation's power; a smaller constant part is not worth a try


@dataclass(frozen=True)
class LayerError:
    """What quantization adds to the output of one layer.

    Attributes:
        columns: the output channels that were looked at, int64 [n].
        squared: mean squared error of each, in the units of the float network, float32 [n].
        db: signal over error, of all of them, in dB.
    """

    columns: np.ndarray
    squared: F32
    db: float


@dataclass(frozen=True)
class Choice:
    """How one activation is quantized.

    Attributes:
        offset: what is taken from its channels first, float32 [C]; None for 0.
        scale: what its channels are divided by, and the weights' rows multiplied with, float32 [C]; None for 1.
        range: of the activation after both.
        gain_db: how much less error than without ``scale``.
        errors: by name of the layer.
    """

    offset: F32 | None
    scale: F32 | None
    range: Range
    gain_db: float
    errors: dict[str, LayerError]


def choose(
    seen: Seen, layers: Sequence[Layer], *, scaled: bool = True, shifted: float = 0.0, rounded: bool = True
) -> Choice:
    """Choose offset, scale and range of an activation for all the layers that read it.

    Args:
        seen: the activation during calibration.
        layers: that read it.
        scaled: whether a scale is allowed at all.
        shifted: share of the squared error that an offset may leave; 0 allows none.
        rounded: whether the activation is quantized; otherwise the weights alone are, and the range means nothing.
    """
    products = [_Product(seen, layer, rounded=rounded) for layer in layers]
    best, plain = _best(seen, products, scaled=scaled, rounded=rounded)
    offset: F32 | None = None
    if shifted and (constant := _constant_part(seen, rounded=rounded)) is not None:
        rest = Seen(seen.low - constant, seen.high - constant, seen.rows - constant)
        others = [
            _Product(rest, layer, rounded=rounded, power=product.power)
            for layer, product in zip(layers, products, strict=True)
        ]
        found, without = _best(rest, others, scaled=scaled, rounded=rounded)
        if found.error < shifted * best.error:
            offset, products, best, plain = constant, others, found, without
    errors = {layer.name: product.report(best) for layer, product in zip(layers, products, strict=True)}
    gain = 10 * np.log10(max(plain.error, 1e-30) / max(best.error, 1e-30)) if best.scale is not None else 0.0
    return Choice(offset, best.scale, best.range, float(gain), errors)


def _best(seen: Seen, products: Sequence[_Product], *, scaled: bool, rounded: bool) -> tuple[_Try, _Try]:
    """Return the scale and range of least error, and the error without both."""
    full = _full_range(seen, None)
    plain = best = _Try(None, full, sum(product.error(None, full) for product in products))
    if scaled:
        largest = np.maximum(np.abs(seen.low), np.abs(seen.high))
        weights = np.max([product.largest for product in products], axis=0)
        for scale in (_even_out(largest, weights), _bring_down(largest)):
            extent = _full_range(seen, scale)
            found = _Try(scale, extent, sum(product.error(scale, extent) for product in products))
            best = found if found.error < _LEAST_GAIN * best.error else best
    for share in _SHARES if rounded else ():
        full = _full_range(seen, best.scale)
        extent = Range(full.low * share, full.high * share)
        found = _Try(best.scale, extent, sum(product.error(best.scale, extent) for product in products))
        if found.error < _LEAST_GAIN * best.error:
            best = found
    return best, plain


@dataclass(frozen=True)
class Output:
    """How an activation is quantized that no product follows.

    Attributes:
        offset: what is taken from its channels first, and added again last, float32 [C]; None for 0.
        scale: what its channels are divided by, and multiplied with again when they are read, float32 [C]; None for 1.
        range: after both.
        squared: mean squared error of each channel, float32 [C].
    """

    offset: F32 | None
    scale: F32 | None
    range: Range
    squared: F32


def choose_output(seen: Seen, *, scaled: bool = True) -> Output:
    """Choose the range of least squared rounding and clipping error, with outlier channels brought down.

    Args:
        seen: the activation during calibration.
        scaled: whether scale and offset are allowed.
    """
    best = _choose_output(seen, scaled=scaled)
    if not scaled or (constant := _constant_part(seen, rounded=True)) is None:
        return best
    rest = Seen(seen.low - constant, seen.high - constant, seen.rows - constant)
    found = _choose_output(rest, scaled=True)
    return replace(found, offset=constant) if found.squared.sum() < _WORTH_A_SUM * best.squared.sum() else best


def _choose_output(seen: Seen, *, scaled: bool) -> Output:
    """Choose scale and range of an output whose constant part was taken away, or has none."""
    scale = _bring_down(np.maximum(np.abs(seen.low), np.abs(seen.high)))
    divisor = scale if scaled and scale.max() > 1 else None
    rows = seen.rows if divisor is None else seen.rows / divisor
    full = _full_range(seen, divisor)
    best, least = full, np.square(full.rounded(rows) - rows)
    for share in _SHARES:
        extent = Range(full.low * share, full.high * share)
        if (error := np.square(extent.rounded(rows) - rows)).sum() < _LEAST_GAIN * least.sum():
            best, least = extent, error
    squared = least.mean(axis=0) if divisor is None else least.mean(axis=0) * np.square(divisor)
    return Output(None, divisor, best, squared.astype(np.float32))


@dataclass(frozen=True)
class _Try:
    """One choice and the sum of the relative squared errors of all products."""

    scale: F32 | None
    range: Range
    error: float


class _Product:
    """A part of a layer's product, in float: rows of its activation times some taps and columns of its weight."""

    def __init__(self, seen: Seen, layer: Layer, *, rounded: bool, power: float | None = None) -> None:
        self._rounded = rounded
        rng = np.random.default_rng(0)
        channels = seen.rows.shape[1]
        matrices = layer.matrices(channels)  # [taps, C, C']
        self.largest = np.abs(matrices).max(axis=(0, 2))  # [C]
        taps, _, made = matrices.shape
        self._columns = np.sort(rng.permutation(made)[:_COLUMNS])
        chosen = np.sort(rng.permutation(taps)[:_TAPS])
        self._largest_of_columns = np.abs(matrices[:, :, self._columns]).max(axis=0)  # [C, n]
        self._weight = matrices[chosen][:, :, self._columns].transpose(1, 0, 2).reshape(channels, -1)  # [C, t * n]
        self._share = taps / len(chosen)
        self._rows = seen.rows[:_ROWS]
        self._product = self._rows @ self._weight
        self.power = float(np.square(self._product).sum()) + 1e-20 if power is None else power

    def error(self, scale: F32 | None, extent: Range) -> float:
        """Return the squared error as a share of the squared output."""
        return float(np.square(self._difference(scale, extent)).sum()) / self.power

    def report(self, chosen: _Try) -> LayerError:
        """Return the error of each column, all taps together."""
        difference = self._difference(chosen.scale, chosen.range).reshape(len(self._rows), -1, len(self._columns))
        squared = np.square(difference).mean(axis=0).sum(axis=0) * self._share
        total = float(np.square(difference).sum()) / self.power
        return LayerError(self._columns, squared.astype(np.float32), float(-10 * np.log10(max(total, 1e-30))))

    def _difference(self, scale: F32 | None, extent: Range) -> F32:
        """Return what quantization adds to each product."""
        rows, weight, largest = self._rows, self._weight, self._largest_of_columns
        if scale is not None:
            rows, weight, largest = rows / scale, weight * scale[:, np.newaxis], largest * scale[:, np.newaxis]
        steps = np.maximum(largest.max(axis=0), 1e-30) / (WEIGHT_LIMIT if self._rounded else ALONE_LIMIT)  # [n]
        steps = np.tile(steps, weight.shape[1] // len(steps))
        rows = extent.rounded(rows) if self._rounded else rows
        difference: F32 = rows @ (np.round(weight / steps) * steps) - self._product
        return difference


def _even_out(largest: F32, weights: F32) -> F32:
    """Return ``sqrt(max|x| / max|W|)``; 1 for channels that are always 0. What nothing reads is made as usual."""
    used = (largest > 0) & (weights > 0)
    scale = np.ones_like(largest)
    if used.any():
        scale[used] = np.sqrt(largest[used] / weights[used])
        scale[used] /= np.exp(np.log(scale[used]).mean())
        unread = (largest > 0) & (weights <= 0)
        scale[unread] = largest[unread] / np.median(largest[used] / scale[used])
    return scale


def _bring_down(largest: F32) -> F32:
    """Return the scale that brings channels of more than twice the usual size down to that, and leaves the others."""
    scale: F32 = np.maximum(largest / max(2 * float(np.median(largest)), 1e-30), 1).astype(np.float32)
    return scale


def _constant_part(seen: Seen, *, rounded: bool) -> F32 | None:
    """Return the constant part of each channel; None if it is small."""
    mean: F32 = seen.rows.mean(axis=0)
    if float(np.square(mean).sum()) < _CONSTANT * float(np.square(seen.rows).mean(axis=0).sum()):
        return None
    middle: F32 = ((seen.low + seen.high) / 2).astype(np.float32)
    return middle if rounded else mean


def _full_range(seen: Seen, scale: F32 | None) -> Range:
    divisor = np.float32(1) if scale is None else scale
    return Range(float((seen.low / divisor).min()), float((seen.high / divisor).max()))
