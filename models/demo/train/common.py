"""What both trainings share: rate, weight average, and averaging gradients over processes."""

from __future__ import annotations

import copy

import torch
from torch import distributed

__all__ = ["Average", "rate", "share_gradients"]


def rate(step: int, steps: int, *, warmup: int = 100, decay: float = 0.35) -> float:
    """Trapezoid: linear warm-up, plateau, linear decay over the last share `decay`; counts steps, never seconds.

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
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Move the average towards `model`."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)  # noqa: SLF001


def share_gradients(model: torch.nn.Module) -> None:
    """Replace every gradient by its mean over the worker processes; nothing to do with one process.

    Two processes of one thread each beat one process of two threads on a machine that others use too: they meet once
    per step and not once per operator.
    """
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
