"""What the trainings share: the learning-rate shape, the running average of the weights, and pausing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch

__all__ = ["Average", "State", "load_state", "new_state", "rate", "save_state"]


def rate(step: int, steps: int, *, warmup: int = 100, decay: float = 0.35) -> float:
    """Trapezoid: linear warm-up, plateau, linear decay over the last share `decay`; counts steps, never seconds.

    A finished training goes on with a larger `steps`: the rate simply climbs back to the plateau.

    Returns:
        A factor in 0..1 for the peak learning rate.
    """
    return min(1.0, (step + 1) / warmup, max(0.01, (steps - step) / (decay * steps)))


class Average:
    """An exponential moving average of a model's parameters (EMA).

    The weight of the past grows with the number of updates, so that early averages do not remember the start.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        """Start from the model's present weights; `decay` is the share of the past kept per update, in the limit."""
        self.model: Any = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Move the average towards `model`."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mean, value in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


class State(NamedTuple):
    """Everything a paused training needs to go on.

    Attributes:
        model: the network in training, one of diffusers' classes.
        average: its running average, the one to use.
        optimizer: with its moments.
        step: number of steps done.
    """

    model: Any
    average: Average
    optimizer: torch.optim.Optimizer
    step: int


def new_state(model: torch.nn.Module, *, average: float, decay: float) -> State:
    """Step 0 of training `model` with AdamW; `average` as in `Average`, `decay` is the weight decay."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=decay, fused=True)
    return State(model, Average(model, average), optimizer, 0)


def save_state(path: Path, state: State) -> None:
    """Write the state; a reader never sees half a file."""
    whole = {
        "model": state.model.state_dict(),
        "avg": state.average.model.state_dict(),
        "updates": state.average.updates,
        "opt": state.optimizer.state_dict(),
        "step": state.step,
    }
    partial = path.with_suffix(".partial")
    torch.save(whole, partial)
    partial.replace(path)


def load_state(path: Path, state: State) -> State:
    """Fill a fresh state from a file, or return it unchanged when there is no file yet."""
    if not path.exists():
        return state
    whole = torch.load(path, weights_only=True)
    state.model.load_state_dict(whole["model"])
    state.average.model.load_state_dict(whole["avg"])
    state.average.updates = whole["updates"]
    state.optimizer.load_state_dict(whole["opt"])
    for group in state.optimizer.param_groups:
        group["fused"] = True
    return state._replace(step=whole["step"])
