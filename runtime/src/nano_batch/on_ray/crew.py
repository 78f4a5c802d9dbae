"""The processes that draw on a cluster: starts one a node, gives out units, and notices who is gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from nano_batch.draw import Draw
from nano_batch.on_ray.cluster import Node, has_head, nodes_of
from nano_batch.on_ray.errors import NoNodeError
from nano_batch.on_ray.rules import Rules
from nano_batch.on_ray.worker import Worker
from nano_batch.wanted import Wanted
from nano_runtime import __version__
from nano_runtime.errors.escaping import first_line

__all__ = ["Answer", "Crew", "Lost"]

_LOOK_S: Final = 5.0
_STARTS: Final = 3
"""How often a node's process may end while it starts."""

_ENDS: Final = 20
"""How many units, one after the other, may end a node's process before the node is taken for what is wrong."""


@dataclass(frozen=True)
class Answer:
    """Records of a unit that was drawn.

    Attributes:
        unit: what was asked for.
        records: of each, as ``Draw.draw`` returns them.
    """

    unit: Sequence[Wanted]
    records: list[dict[str, Any]]


@dataclass(frozen=True)
class Lost:
    """A unit that did not come back.

    Attributes:
        unit: what was asked for.
        why: in words, where the unit may be at fault; None where its node was.
    """

    unit: Sequence[Wanted]
    why: str | None


@dataclass(eq=False)
class _Member:
    """One process, as the driver sees it."""

    actor: Any
    node: Node
    since: float
    ref: Any
    unit: Sequence[Wanted] | None = None
    ready: bool = False


@dataclass
class Crew:
    """All processes of a job.

    Attributes:
        ray: the module, connected.
        draw: what each of them does.
        rules: how the cluster is used.
        say: gets a line about nodes that do not draw.
    """

    ray: Any
    draw: Draw
    rules: Rules
    say: Callable[[str], None]
    _members: list[_Member] = field(default_factory=list)
    _aside: dict[str, tuple[str, str]] = field(default_factory=dict)
    _starts: Counter[str] = field(default_factory=Counter)
    _ends: Counter[str] = field(default_factory=Counter)
    _looked: float = float("-inf")
    _headless: bool = False

    @property
    def idle(self) -> int:
        """Number of processes that wait for a unit."""
        return sum(member.ready and member.unit is None for member in self._members)

    @property
    def busy(self) -> int:
        """Number of processes that draw."""
        return sum(member.unit is not None for member in self._members)

    def look(self) -> None:
        """Start processes on nodes that have none: new ones, and those whose process ended. Once in five seconds.

        Raises:
            NoNodeError: no node can draw.
        """
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        if not has_head(self.ray):
            if not self._headless:
                self.say(
                    "warning: the head node of the cluster does not answer; processes go on with what they have, but "
                    "Ray ends this command if it stays away; then the same command, on a new cluster, draws the rest"
                )
            self._headless = True
            return
        self._headless = False
        nodes = nodes_of(self.ray)
        for node in nodes:
            cpus = node.cpus if self.rules.cpus is None else self.rules.cpus
            here = sum(member.node.id == node.id for member in self._members)
            if node.id not in self._aside:
                for _ in range(node.cpus // cpus - here):
                    self._start(node, cpus)
        if not self._members:
            least = self.rules.cpus or 1
            small = [node for node in nodes if node.cpus < least and node.id not in self._aside]
            few = [(node.name, f"--ray-cpus asks for {least} processors, and it has {node.cpus}") for node in small]
            if reasons := [*self._aside.values(), *few]:
                raise NoNodeError(reasons)

    def give(self, unit: Sequence[Wanted]) -> None:
        """Have an idle process draw a unit."""
        member = next(member for member in self._members if member.ready and member.unit is None)
        member.unit, member.since = unit, time.monotonic()
        member.ref = member.actor.draw.remote([one.as_dict() for one in unit])

    def events(self, wait_s: float) -> Iterator[Answer | Lost]:
        """Yield what became of units, as it is known; wait a moment for the first.

        Args:
            wait_s: longest time to wait, in seconds.
        """
        asked = {member.ref: member for member in self._members if member.ref is not None}
        if not asked:
            time.sleep(wait_s)
            return
        self.ray.wait(list(asked), num_returns=1, timeout=wait_s)
        done, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for ref in done:
            if asked[ref] in self._members:
                yield from self._heard(asked[ref])
        for member in list(self._members):
            if member.unit is not None and time.monotonic() - member.since > self.rules.patience_s:
                yield from self._ended(member, f"did not come back within {self.rules.patience_s:.0f} seconds")

    def state(self) -> str:
        """Say what the processes do."""
        starting = sum(not member.ready for member in self._members)
        free, total = (pool.get("CPU", 0) for pool in (self.ray.available_resources(), self.ray.cluster_resources()))
        return (
            f"{self.busy} processes draw, {starting} are starting; {free:g} of the cluster's {total:g} processors are "
            "free"
        )

    def dismiss(self) -> None:
        """End all processes."""
        for member in list(self._members):
            self._forget(member)

    def _start(self, node: Node, cpus: int) -> None:
        """Start a process on a node; it says when it is ready."""
        here = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
        options = {"num_cpus": cpus, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": here}
        # The actor is the process that a bad picture ends; one more around the engine would only cost memory.
        arguments = {**self.draw.arguments, "isolated": False, "digest": self.draw.pipeline.bundle.digest}
        actor = self.ray.remote(Worker).options(**options).remote(type(self.draw), arguments, cpus, __version__)
        self._members.append(_Member(actor, node, time.monotonic(), actor.fault.remote()))

    def _heard(self, member: _Member) -> Iterator[Answer | Lost]:
        """Take an answer of a process, or its end."""
        try:
            answer = self.ray.get(member.ref)
        except self.ray.exceptions.RayError as error:
            yield from self._ended(member, _cause(self.ray, error), first_line(error))
            return
        unit, member.unit, member.ref = member.unit, None, None
        if isinstance(answer, str):
            self._set_aside(member.node, answer)
            if unit is not None:
                yield Lost(unit, None)
            return
        member.ready = True
        self._starts[member.node.id] = 0
        if unit is not None:
            self._ends[member.node.id] = 0
            yield Answer(unit, answer)
        if member.node.id in self._aside:
            self._forget(member)

    def _ended(self, member: _Member, why: str, detail: str = "") -> Iterator[Lost]:
        """Forget a process that ended, or has to; yield what it had."""
        self._forget(member)
        self._looked = float("-inf")
        node, unit = member.node, member.unit
        alive = any(one.id == node.id for one in nodes_of(self.ray))
        if not alive:
            self.say(f"node {node.name} is gone; the others go on")
        elif not member.ready:
            self._starts[node.id] += 1
            if self._starts[node.id] >= _STARTS:
                self._set_aside(node, f"its process ended {_STARTS} times while it started: {detail or why}")
        elif unit is not None and len(unit) > 1:
            self._ends[node.id] += 1
            if self._ends[node.id] >= _ENDS:
                self._set_aside(node, f"{_ENDS} units, one after the other, ended its process: {detail or why}")
        if unit is not None:
            yield Lost(unit, why if alive else None)

    def _set_aside(self, node: Node, why: str) -> None:
        """Give nothing more to a node."""
        if node.id in self._aside:
            return
        self._aside[node.id] = (node.name, why)
        self.say(f"warning: node {node.name} does not draw: {why}")
        for member in [one for one in self._members if one.node.id == node.id and one.unit is None]:
            self._forget(member)

    def _forget(self, member: _Member) -> None:
        """End a process, if it has not ended."""
        self._members.remove(member)
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(member.actor)


def _cause(ray: Any, error: Exception) -> str:  # noqa: ANN401 - a module without types
    """Say why a process ended."""
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "memory" in first_line(error):
        return "ran its node out of memory"
    return "ended its process"
