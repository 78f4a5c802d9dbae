"""The measurement: fresh starts first, then rounds in which loaded peers draw one picture each, in turns.

Not all peers fit into memory together, and a machine's speed drifts, so they are timed in groups: as many as fit, and
in every group both of ours and the best peer. A ratio is taken within a round, never across.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench.peers.catalogue import BEST, OURS, Peer
from bench.peers.processes import Setup, Start, Worker, start_nano_generate, start_worker

from nano_runtime.system.machine import memory_available_bytes

__all__ = ["Sample", "groups", "measure_draws", "measure_starts", "write_noise"]

_SPARE = 1.15
"""What a process needs for later pictures and the page cache, over the peak of its start."""


@dataclass(frozen=True)
class Sample:
    """A picture drawn by a loaded peer.

    Attributes:
        peer: name.
        group: number of the group it was drawn in.
        run: 0 is a worker's first picture, which is not warm.
        ms: milliseconds of wall clock from prompt to pixels.
        calls: UNet calls.
        peak_rss_bytes: of the worker so far.
    """

    peer: str
    group: int
    run: int
    ms: float
    calls: int
    peak_rss_bytes: int


def write_noise(path: Path, runs: int, size: int) -> None:
    """Write what all peers start from, float32 [runs + 1, 4, size/8, size/8] of unit variance, seeded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).standard_normal((runs + 1, 4, size // 8, size // 8), np.float32)
    np.save(path, noise)


def measure_starts(peers: Sequence[Peer], setup: Setup, runs: int) -> Iterator[Start]:
    """Start every peer ``runs`` + 1 times, in turns; those that cache, with and without, from an empty cache on."""
    for peer in peers:
        shutil.rmtree(setup.cache(peer.name), ignore_errors=True)
    for run in range(runs + 1):
        for peer in peers if run % 2 == 0 else reversed(peers):
            start = start_nano_generate if peer in OURS else start_worker
            for cached in (False, True) if peer.caches or peer in OURS else (False,):
                yield start(peer, setup, run, cached=cached)


def groups(peers: Sequence[Peer], peak_bytes: Mapping[str, int], available_bytes: int | None) -> list[list[Peer]]:
    """Divide peers into groups that fit into memory; ours and the best, if they take part, are in each.

    Args:
        peers: those that take part.
        peak_bytes: by name.
        available_bytes: None where the system does not say; each group then gets one more peer.
    """
    always = [peer for peer in peers if peer in OURS or peer == BEST]
    others = sorted((peer for peer in peers if peer not in always), key=lambda peer: peak_bytes[peer.name])
    room = 0.0 if available_bytes is None else available_bytes - _SPARE * sum(peak_bytes[peer.name] for peer in always)
    divided: list[list[Peer]] = []
    left = -1.0
    for peer in others:
        need = _SPARE * peak_bytes[peer.name]
        if not divided or need > left:
            divided.append([])
            left = room
        divided[-1].append(peer)
        left -= need
    return [[*always, *group] for group in divided] if divided else [always]


def measure_draws(peers: Sequence[Peer], starts: Sequence[Start], setup: Setup, runs: int) -> Iterator[Sample]:
    """Load each group, and have it draw ``runs`` + 1 pictures in turns, forth and back."""
    peaks = {peer.name: max(start.peak_rss_bytes for start in starts if start.peer == peer.name) for peer in peers}
    for number, group in enumerate(groups(peers, peaks, memory_available_bytes())):
        with ExitStack() as stack:
            workers = []
            for peer in group:  # one after the other: a load would disturb a draw
                worker = Worker(peer, setup, cached=False)
                stack.enter_context(closing(worker))
                worker.loaded()
                workers.append(worker)
            for run in range(runs + 1):
                for worker in workers if run % 2 == 0 else reversed(workers):
                    answer = worker.draw(run, setup.picture(worker.peer.name, run))
                    yield Sample(worker.peer.name, number, run, answer.draw_ms, answer.calls, answer.peak_rss_bytes)
