"""Compares INT8 graphs with their exporter's goals: what they reached, and what it cost to get there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nano_runtime.bundle.manifest import Backend, Change, Manifest

__all__ = ["Shortfall", "cost_of", "shortfalls"]


class Shortfall(NamedTuple):
    """A graph that is farther from fp32 than its exporter aimed at; decibels of PSNR on equal inputs."""

    component: str
    backend: Backend
    reached_db: float
    goal_db: float


def shortfalls(manifest: Manifest) -> list[Shortfall]:
    """Return the graphs that fall short of their goal; none where no goal or no distance is recorded."""
    goals = {} if manifest.quantization is None else manifest.quantization.goal_db
    return [
        Shortfall(name, backend, reached, goal)
        for name, goal in goals.items()
        for backend in manifest.backends
        if (reached := manifest.components[name].fidelity.get(f"{backend}.psnr_db")) is not None and not reached >= goal
    ]


def cost_of(changes: Iterable[Change]) -> str:
    """Return what changes to the plan cost, or spare, for people: how much more of each graph's arithmetic is float."""
    shares: dict[str, float] = {}
    for change in changes:
        share = -change.share if change.scheme == "w8a8" else change.share
        shares[change.component] = shares.get(change.component, 0.0) + share
    parts = ", ".join(f"{name} {share:+.1%}" for name, share in shares.items())
    return f"arithmetic in floats: {parts}"
