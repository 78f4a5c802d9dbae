"""The plan of a checkpoint: which layers are moved, at what cost, and how near the estimate of their error is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nano_export.judge.original import Probe
from nano_export.judge.sensitivity import Sensitivity, sensitivity_of
from nano_export.quantize import Rule, candidates, fit, with_changes
from nano_export.quantize.plan import rule_for
from nano_export.quantize.scales import LayerError
from nano_export.quantize.search import Candidate, factor_of, predicted_db

PEAK = 2.0


def even(count: int = 100, error: float = 1e-6) -> list[Candidate]:
    return [Candidate(f"layer{i}/MatMul", "w8a8", error, 1000) for i in range(count)]


def test_even_layers_that_meet_the_goal_stay():
    assert fit(even(), 30.0, PEAK) == []


def test_a_layer_that_spoils_the_network_becomes_float_whatever_the_goal():
    layers = [*even(), Candidate("small/MatMul", "w8a8", 1e-4, 100)]
    (change,) = fit(layers, 10.0, PEAK)
    assert (change.layer, change.scheme) == ("small/MatMul", "float")
    assert "50 %" in change.reason
    assert change.share == pytest.approx(100 / 100_100)


def test_a_goal_is_met_at_the_least_cost():
    layers = [*even(), Candidate("worst/MatMul", "w8a8", 1e-3, 3000), Candidate("dear/MatMul", "w8a8", 1.2e-3, 9000)]
    changes = fit(layers, 30.0, PEAK)
    assert [change.layer for change in changes] == ["worst/MatMul"]  # it adds most for its arithmetic
    assert predicted_db(layers, changes, PEAK) > predicted_db(layers, [], PEAK) + 2


def test_no_more_becomes_float_than_the_budget_allows():
    changes = fit(even(), 150.0, PEAK)
    assert 0 < sum(change.share for change in changes) <= 0.0601


def test_more_becomes_float_where_arithmetic_is_cheap():
    layers = [*even(), Candidate("third/MatMul", "w8a8", 5e-5, 5000)]  # a third of the error, a twentieth of the work
    assert fit(layers, 10.0, PEAK) == []
    assert [change.layer for change in fit(layers, 10.0, PEAK, price=0.1)] == ["third/MatMul"]
    assert 0.5 < sum(change.share for change in fit(even(), 150.0, PEAK, price=0.1)) <= 0.601


def test_where_arithmetic_is_cheap_a_layer_counts_by_the_error_that_is_left():
    """A share just below the threshold does not cost a decibel that the same share just above it saves."""
    layers = [*even(), Candidate("worst/MatMul", "w8a8", 1e-4, 5000)]
    for error in (1.4e-5, 2.4e-5):  # 6.5 % of the error and 10.7 %, 4.5 % of the work: the threshold is at 9.1 %
        both = [*layers, Candidate("next/MatMul", "w8a8", error, 5000)]
        assert [change.layer for change in fit(both, 10.0, PEAK, price=0.1)] == ["worst/MatMul", "next/MatMul"]
    alone = [*even(), Candidate("next/MatMul", "w8a8", 0.8e-5, 5000)]  # the same place, and an even share
    assert fit(alone, 10.0, PEAK, price=0.1) == []


def test_what_was_measured_corrects_the_estimate():
    layers = even()
    predicted = predicted_db(layers, [], PEAK)
    goal = predicted - 2
    assert fit(layers, goal, PEAK, factor_of(layers, [], PEAK, predicted)) == []
    assert fit(layers, goal, PEAK, factor_of(layers, [], PEAK, predicted - 4)) != []


def test_a_float_layer_that_may_be_moved_becomes_int8_only_if_the_goal_is_met():
    layers = [*even(), Candidate("conv_shortcut/Conv", "float", 1e-5, 5000)]
    assert [change.scheme for change in fit(layers, 30.0, PEAK)] == ["w8a8"]
    assert "float" in {change.scheme for change in fit(layers, 46.0, PEAK)}
    assert "w8a8" not in {change.scheme for change in fit(layers, 46.0, PEAK)}


def test_changes_come_before_the_rules():
    rules = (Rule("*/Conv*", "w8a8", "a test", product_up_to=64), Rule("*/MatMul*", "w8a8", "a test"))
    (change,) = fit([*even(), Candidate("small/Conv/MatMul", "w8a8", 1e-4, 100)], 10.0, PEAK)
    moved = rule_for(with_changes(rules, [change]), "small/Conv/MatMul")
    assert moved is not None
    assert (moved.scheme, moved.product_up_to) == ("float", 64)
    untouched = rule_for(with_changes(rules, [change]), "layer3/MatMul")
    assert untouched is rules[1]


def test_split_layers_find_their_gradients():
    error = LayerError(np.arange(2), np.ones(2, np.float32), 30.0)
    names = (
        "ff.net.0.value/MatMul",
        "ff.net.0.gate/MatMul",
        "upsamplers.0.phases.3/Conv",
        "plain/MatMul",
        "new/MatMul",
    )
    gradients = {
        "ff.net.0.proj": np.array([1.0, 1.0, 5.0, 5.0]),
        "upsamplers.0.conv": np.array([8.0, 8.0]),
        "plain": np.array([3.0, 3.0]),
    }
    found = candidates(
        (Rule("*", "w8a8", "a test"),), dict.fromkeys(names, error), dict.fromkeys(names, 1), gradients, 1
    )
    assert {one.layer: one.error for one in found} == {names[0]: 2.0, names[1]: 10.0, names[2]: 4.0, names[3]: 6.0}


def test_a_rule_keeps_a_layer_float_unless_it_may_be_moved():
    error = {"conv_out/Conv": LayerError(np.arange(1), np.ones(1, np.float32), 30.0)}
    for movable in (False, True):
        rules = (Rule("*", "float", "a test", movable=movable),)
        found = candidates(rules, error, {"conv_out/Conv": 1}, {"conv_out": np.ones(1)}, 1)
        assert bool(found) == movable


class Network(nn.Module):
    """Convolutions with a nonlinearity, a norm and a way around, and a linear layer at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            nn.Conv2d(4, 16, 3, padding=1),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.Linear(16, 4),
        )
        self.norm = nn.GroupNorm(4, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.one(x)
        hidden = hidden + self.two(nn.functional.silu(self.norm(hidden)))
        out: torch.Tensor = self.three(hidden.permute(0, 2, 3, 1))
        return out


def test_the_predicted_error_is_the_measured_one():
    torch.manual_seed(0)
    network = Network().eval()
    x = torch.randn(8, 4, 16, 16)
    expected = network(x).detach()
    probe = Probe("unet", {"sample": x.numpy()}, expected.numpy())
    found: Sensitivity = sensitivity_of(
        network, "", lambda given: network(torch.from_numpy(given.inputs["sample"]).requires_grad_()), [probe]
    )
    assert found.size == expected.numel()
    for name in ("one", "two", "three"):
        layer = network.get_submodule(name)
        sigma = 0.01 * (1 + torch.arange(len(found.squares[name])) % 3)  # channels differ
        shape = (-1, 1, 1) if name != "three" else (-1,)

        def disturb(_layer, _inputs, output, sigma=sigma, shape=shape):
            return output + torch.randn(output.shape) * sigma.view(shape)

        hook = layer.register_forward_hook(disturb)
        with torch.no_grad():
            measured = float((network(x) - expected).square().mean())
        hook.remove()
        predicted = float((found.squares[name] * sigma.square().numpy()).sum()) / found.size
        assert predicted == pytest.approx(measured, rel=0.25), name
    one, two = (float(found.squares[name].sum()) for name in ("one", "two"))
    assert one != pytest.approx(two, rel=0.25)  # layers differ, so the check can fail
