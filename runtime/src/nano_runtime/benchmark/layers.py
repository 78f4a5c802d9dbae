"""Sorts an engine's profile: matrix work into the groups of the manifest, everything else by operator.

Engines rewrite a graph before they run it: there are fewer operators, with other names. The kind of an operator and the
shape of its output remain, and they suffice to find its group, in all engines alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from nano_runtime.benchmark.limits import Rates, limit_ms
from nano_runtime.bundle.manifest import Work
from nano_runtime.engines.base import LayerTime, OperatorKind, Precision

__all__ = ["GroupTime", "group_times"]

_MAP_RANK = 4  # [batch, channels, height, width] or [batch, height, width, channels]


@dataclass(frozen=True)
class GroupTime:
    """The time of some operators of one graph together, in one call.

    Attributes:
        name: ``16x16 conv`` for matrix work, otherwise the operator as the engine calls it.
        operators: how many there are.
        ms: of wall clock.
        limit_ms: the least time on this machine; None for operators that do no matrix work, whose limit is not known.
    """

    name: str
    operators: int
    ms: float
    limit_ms: float | None


def group_times(
    times: Iterable[LayerTime],
    work: Sequence[Work],
    rows: float,
    rates: Rates | None,
    precision: Precision,
    *,
    operators: Mapping[str, OperatorKind],
) -> list[GroupTime]:
    """Add up a profile by group: matrix work in the manifest's order, then the others, the longest first.

    Args:
        times: of one graph.
        work: of the same graph; without it, groups are told by kind alone and have no limit.
        rows: size of the batch.
        rates: of this machine; None leaves all without a limit.
        precision: arithmetic of the layers that are not quantized.
        operators: kinds of the engine's operators that do matrix work (``Engine.operators``).
    """
    sums: dict[str, list[float]] = defaultdict(list)
    known = dict.fromkeys(group.positions for group in work)
    for time in times:
        sums[_group(time, operators.get(time.operator), tuple(known))].append(time.ms)
    groups: dict[str, list[Work]] = defaultdict(list)
    for group in work:
        groups[_name(group.positions, group.kind)].append(group)
    matrix = [
        GroupTime(
            name, len(sums[name]), sum(sums[name]), None if rates is None else limit_ms(parts, rows, rates, precision)
        )
        for name, parts in groups.items()
    ]
    others = [GroupTime(name, len(samples), sum(samples), None) for name, samples in sums.items() if name not in groups]
    return matrix + sorted(others, key=lambda group: -group.ms)


def _group(time: LayerTime, kind: OperatorKind | None, known: Sequence[tuple[int, ...]]) -> str:
    """Return the name of an operator's group; ``kind`` is None for operators that do no matrix work."""
    if kind is None:
        return time.operator
    if kind == "matmul" and len(time.shape) == _MAP_RANK:
        kind = "attention"  # [batch, heads, positions, ...]: linear layers have no heads
    return _name(_positions(time.shape, kind, known), kind)


def _positions(shape: tuple[int, ...], kind: OperatorKind, known: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return which of the known positions an output has; nothing if it has none of them."""
    if kind == "conv":  # channels first, or last
        return next((positions for positions in (shape[2:], shape[1:-1]) if positions in known), ())
    lengths = {prod(positions): positions for positions in known}
    found = [axis for axis in shape[1:-1] if axis in lengths]  # attention has heads too, before or behind
    return lengths[max(found)] if found else ()


def _name(positions: tuple[int, ...], kind: OperatorKind) -> str:
    """Return ``16x16 conv``, ``77 matmul``, or ``matmul`` for layers on one vector per sample."""
    return f"{'x'.join(map(str, positions))} {kind}".lstrip()
