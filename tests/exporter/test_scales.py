"""Scales and ranges are chosen by the error of the products, and a folded network gets what the plain one gets."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from tests.exporter.test_quantize import constant, layer, value

from nano_export.quantize.calibration import Seen
from nano_export.quantize.layers import Layer
from nano_export.quantize.scales import choose, choose_output

CHANNELS, MADE = 48, 32


def seen(rows: np.ndarray) -> Seen:
    return Seen(rows.min(axis=0), rows.max(axis=0), rows)


def product(weight: np.ndarray) -> Layer:
    x = value("x", (2, 16, len(weight)))
    return Layer(layer("MatMul", [x, constant("w", weight.astype(np.float32))], "linear/MatMul", (2, 16, MADE)), x)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def rows(rng) -> np.ndarray:
    return rng.normal(size=(256, CHANNELS)).astype(np.float32)


@pytest.fixture
def weight(rng) -> np.ndarray:
    return rng.normal(size=(CHANNELS, MADE)).astype(np.float32)


def test_even_channels_are_left_alone(rows, weight):
    assert choose(seen(rows), [product(weight)]).gain_db < 1


@pytest.mark.parametrize("factor", [10, 40, 100])
def test_a_folded_network_quantizes_as_well_as_the_plain_one(rows, weight, factor):
    # One channel in twelve is scaled up, and the rows that read it are scaled down: the same products.
    folding = np.where(np.arange(CHANNELS) % 12, 1, factor).astype(np.float32)
    plain = choose(seen(rows), [product(weight)])
    folded = choose(seen(rows * folding), [product(weight / folding[:, None])])
    assert folded.scale is not None
    assert abs(folded.errors["linear/MatMul"].db - plain.errors["linear/MatMul"].db) < 1
    unscaled = choose(seen(rows * folding), [product(weight / folding[:, None])], scaled=False)
    assert unscaled.errors["linear/MatMul"].db < plain.errors["linear/MatMul"].db - 8  # what it costs without


def test_weights_alone_are_scaled_for_the_activations_that_they_read(rows, weight):
    folding = np.where(np.arange(CHANNELS) % 12, 1, 100).astype(np.float32)
    plain = choose(seen(rows), [product(weight)], rounded=False)
    folded = choose(seen(rows * folding), [product(weight / folding[:, None])], rounded=False)
    unscaled = choose(seen(rows * folding), [product(weight / folding[:, None])], rounded=False, scaled=False)
    assert abs(folded.errors["linear/MatMul"].db - plain.errors["linear/MatMul"].db) < 2
    assert unscaled.errors["linear/MatMul"].db < plain.errors["linear/MatMul"].db - 8


def test_channels_that_nothing_reads_cost_nothing(rows, weight):
    unread = np.arange(CHANNELS) % 12 == 0
    weight[unread] = 0
    large = np.where(unread, 1000, np.exp(0.8 * np.random.default_rng(1).normal(size=CHANNELS))).astype(np.float32)
    plain = choose(seen(rows * ~unread), [product(weight)])
    found = choose(seen(rows * large), [product(weight / large[:, None])])
    assert abs(found.errors["linear/MatMul"].db - plain.errors["linear/MatMul"].db) < 1


@pytest.mark.parametrize("rounded", [True, False], ids=["w8a8", "w8"])
def test_a_constant_part_costs_nothing(rows, weight, rounded):
    constant = np.where(np.arange(CHANNELS) % 12, 0, 40).astype(np.float32)
    plain = choose(seen(rows), [product(weight)], rounded=rounded)
    shifted = choose(seen(rows + constant), [product(weight)], shifted=0.95, rounded=rounded)
    assert shifted.offset is not None
    assert np.abs(shifted.offset - constant).max() < 2
    error, without = (np.mean(one.errors["linear/MatMul"].squared) for one in (shifted, plain))
    assert error < 1.3 * without
    left = choose(seen(rows + constant), [product(weight)], rounded=rounded)
    assert np.mean(left.errors["linear/MatMul"].squared) > 4 * without  # what it costs


def test_a_small_constant_part_stays(rows, weight):
    assert choose(seen(rows + np.float32(0.1)), [product(weight)], shifted=0.95).offset is None


def test_the_reported_error_is_that_of_the_product(rows, weight):
    chosen = choose(seen(rows), [product(weight)], scaled=False)
    steps = np.abs(weight).max(axis=0) / 63
    actual = chosen.range.rounded(rows) @ (np.round(weight / steps) * steps)
    expected = np.square(actual - rows @ weight).mean(axis=0)
    error = chosen.errors["linear/MatMul"]
    assert error.squared == pytest.approx(expected[error.columns], rel=0.6)  # by a part of the rows
    assert error.squared.mean() == pytest.approx(expected.mean(), rel=0.1)
    assert error.db == pytest.approx(
        10 * np.log10(np.square(rows @ weight).sum() / (expected.sum() * len(rows))), abs=0.5
    )


def test_a_rare_large_value_is_cut_off(rng):
    values = np.abs(rng.normal(size=(1024, 256))).astype(np.float32)
    values[3, 5] = 8.0
    assert choose_output(seen(values)).range.high < 7
    values[::2] *= 3  # large values that are not rare
    assert choose_output(seen(values)).range.high > 7


def test_a_layer_without_a_constant_weight_is_no_layer():
    node = layer("MatMul", [value("a", (2, 3)), value("b", (3, 2))], "scores/MatMul", (2, 2))
    with pytest.raises(ValueError, match="no constant weight"):
        Layer(node, ir.Value(name="a")).matrices(3)
