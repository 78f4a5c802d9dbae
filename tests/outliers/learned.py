"""Teaches the demo outlier channels: distilled from itself, while some channels of every layer's input are pushed up.

Nothing is exact here, as in training: activations lie between layers, norms mix channels, and the weights adapt. Every
weight W is learned as exp(row gain) W exp(column gain), because a channel grows by a factor and not by a sum: steps of
a usual size would take tens of thousands to reach 40 (weight normalization has the same reason, arXiv:1602.07868).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Lesson", "Progress", "Watched", "learn", "psnr"]

Watched: TypeAlias = Literal["inputs", "streams"]
"""What is pushed up: the input of every layer, or that of every norm, which is a residual stream."""

_ONE_IN = 60  # channels
_LEAST = 16  # channels of an input; narrower ones have no outliers
_FAR = 0.06  # squared error over variance at which the ratio waits for the student: some 30 dB of a UNet's prediction
_RISE = 0.02  # of the ratio's logarithm, in a step
_RISING = 0.7  # share of the time; in the rest the rates fall and the student comes back to its teacher
_FAITH = 20.0  # weight of the distance from the teacher, beside the distance from the ratio
_RATES = {"gains": 0.012, "weights": 1.5e-4}
_SAVE_EVERY = 50  # steps


@dataclass(frozen=True)
class Lesson:
    """One network to teach.

    Attributes:
        student: learns, in place; a copy of the teacher.
        teacher: answers.
        run: calls one of them on a batch that is made from a generator: equal generators, equal batches.
    """

    student: nn.Module
    teacher: nn.Module
    run: Callable[[nn.Module, torch.Generator], Tensor]


@dataclass(frozen=True)
class Progress:
    """One step.

    Attributes:
        step: its number, from 1.
        target: ratio that is asked for.
        ratio: of pushed channels to the median one, root mean squares, geometric mean over the layers.
        error: squared error over variance of the answer, a running mean.
        done: share of the time, from 0 to 1.
    """

    step: int
    target: float
    ratio: float
    error: float
    done: float


class _Gain(nn.Module):
    """A factor for each row, and one for each column where there are columns."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        ones = [1] * (weight.ndim - 1)
        self.rows = nn.Parameter(torch.zeros(weight.shape[0], *ones))
        self.columns = nn.Parameter(torch.zeros(1, weight.shape[1], *ones[1:])) if weight.ndim > 1 else None

    def forward(self, weight: Tensor) -> Tensor:
        gains = self.rows if self.columns is None else self.rows + self.columns
        return weight * gains.exp()


def learn(
    lesson: Lesson,
    *,
    ratio: float,
    seconds: float,
    state: Path,
    seed: int = 0,
    watched: Watched = "inputs",
    clock: Callable[[], float] = time.process_time,
) -> Iterator[Progress]:
    """Teach until the time is over; at the end, the student has plain weights again.

    Args:
        lesson: whose student learns.
        ratio: of pushed channels to the median one. It is approached only as fast as the student stays close.
        seconds: of one process's computing time, all runs together.
        state: file that a run leaves every 50 steps, and that the next one goes on from.
        seed: of the channels and the batches.
        watched: what is pushed up.
        clock: that the seconds are read from, once for each step.

    Yields:
        Each step.
    """
    student, teacher = lesson.student.train(), lesson.teacher.eval()
    named = _parametrize(student)
    pusher = _Pusher(student, watched, seed)
    optimizer = torch.optim.Adam(
        [{"params": named[name], "lr": rate, "rate": rate} for name, rate in _RATES.items()], betas=(0.9, 0.99)
    )
    step, spent, target, error = 0, 0.0, 0.0, 0.0
    if state.exists():
        kept = torch.load(state, weights_only=True)
        student.load_state_dict(kept["student"])
        optimizer.load_state_dict(kept["optimizer"])
        step, spent, target, error = kept["step"], kept["spent"], kept["target"], kept["error"]
    begun = clock() - spent
    while (spent := clock() - begun) < seconds:
        done = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * min(1.0, max(0.02, (1 - done) / (1 - _RISING)))
        with torch.no_grad():
            wanted = lesson.run(teacher, torch.Generator().manual_seed(seed + step))
        answer = lesson.run(student, torch.Generator().manual_seed(seed + step))
        found = (answer - wanted).square().mean() / wanted.var()
        logs = pusher.take()
        loss = _FAITH * found + (target - logs).clamp(min=0).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([one for group in named.values() for one in group], 1.0)
        optimizer.step()
        step += 1
        error += (found.item() - error) / min(step, 20)
        if error < _FAR and done < _RISING:
            target = min(target + _RISE, torch.tensor(ratio).log().item())
        if step % _SAVE_EVERY == 0:
            whole = {"student": student.state_dict(), "optimizer": optimizer.state_dict()}
            partial = state.with_suffix(".partial")
            torch.save({**whole, "step": step, "spent": spent, "target": target, "error": error}, partial)
            partial.replace(state)
        exp = torch.tensor([target, logs.detach().mean()]).exp().tolist()
        yield Progress(step, exp[0], exp[1], error, done)
    pusher.remove()
    for module in list(student.modules()):
        for name in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    student.eval()


@torch.no_grad()
def psnr(lesson: Lesson, batches: int = 4) -> float:
    """Return the student's distance from its teacher on new batches, in dB, the peak being the answer's range."""
    worst = float("inf")
    for index in range(batches):
        ours, theirs = (
            lesson.run(one, torch.Generator().manual_seed(2**31 + index)) for one in (lesson.student, lesson.teacher)
        )
        peak = theirs.max() - theirs.min()
        worst = min(worst, float(10 * torch.log10(peak.square() / (ours - theirs).square().mean())))
    return worst


def _parametrize(student: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Give all weights and biases gains; return what is learned."""
    for module in list(student.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.LayerNorm | nn.GroupNorm):
            for name in ("weight", "bias"):
                if (parameter := getattr(module, name)) is not None:
                    parametrize.register_parametrization(module, name, _Gain(parameter))
    gains = [one for module in student.modules() if isinstance(module, _Gain) for one in module.parameters()]
    known = set(map(id, gains))
    return {"gains": gains, "weights": [one for one in student.parameters() if id(one) not in known]}


class _Pusher:
    """Watches the inputs of layers, and how far the chosen channels stand out in them."""

    def __init__(self, student: nn.Module, watched: Watched, seed: int) -> None:
        kinds: Any = (nn.Linear, nn.Conv2d) if watched == "inputs" else (nn.LayerNorm, nn.GroupNorm)
        self._seed = seed
        self._logs: list[Tensor] = []
        self._handles = [
            module.register_forward_hook(self._watch) for module in student.modules() if isinstance(module, kinds)
        ]

    def take(self) -> Tensor:
        """Return the logarithms of the ratios since the last call, float32 [chosen channels of all layers]."""
        logs, self._logs = torch.cat(self._logs), []
        return logs

    def remove(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def _watch(self, layer: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        values = inputs[0]
        axis = 1 if isinstance(layer, nn.Conv2d | nn.GroupNorm) else -1
        count = values.shape[axis]
        if count < _LEAST or not values.requires_grad:
            return  # what nothing learned has written, such as the prompt, cannot be pushed
        power = values.transpose(axis, 0).flatten(1).square().mean(1) + 1e-12
        # One choice for each width: the layers that read a tensor, and the blocks along a stream, have the same.
        random = torch.Generator().manual_seed(1000 * self._seed + count)
        chosen = torch.randperm(count, generator=random)[: max(1, count // _ONE_IN)]
        self._logs.append((power[chosen] / power.median().detach()).log() / 2)
