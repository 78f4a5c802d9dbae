"""Compares what INT8 graphs reached, as their exporter measured it, with the goal that it had for them."""

from __future__ import annotations

from typing import NamedTuple

from nano_runtime.bundle.manifest import Backend, Manifest

__all__ = ["Shortfall", "shortfalls"]


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
