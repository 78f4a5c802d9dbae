"""The engine ``ray`` of a job: gives out what is pending, logs what comes back, and tries again what does not."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nano_batch.draw import Draw, units_of
from nano_batch.job import Log
from nano_batch.on_ray.cluster import joined
from nano_batch.on_ray.crew import Answer, Crew, Lost
from nano_batch.on_ray.errors import StalledError
from nano_batch.on_ray.rules import Rules
from nano_batch.wanted import Wanted

__all__ = ["TRIES", "OnRay"]

TRIES: Final = 3
"""How often a picture may end its process."""

_TICK_S: Final = 1.0
_QUIET_S: Final = 30.0


@dataclass(frozen=True)
class OnRay:
    """Draws pictures on a cluster, and logs what became of them.

    A unit whose process ends goes round again at the end, each of its pictures alone. One that has ended its process
    three times is a failed picture.

    Attributes:
        rules: how the cluster is used.
        say: gets a line about nodes.
    """

    rules: Rules
    say: Callable[[str], None]

    def __call__(
        self, draw: Draw, pictures: Sequence[Wanted], log: Log, told: Callable[[list[dict[str, Any]]], None]
    ) -> None:
        """Draw pictures.

        Args:
            draw: draws and writes them, in processes on the nodes.
            pictures: with keys of their own.
            log: of this process; the only one that writes to it.
            told: gets the records of pictures when they are in the log.

        Raises:
            RayMissingError: Ray is not installed.
            ClusterError: there is no cluster.
            NoNodeError: no node can draw any more.
            StalledError: nothing happens.
            OutputError: the log cannot be written.
        """
        with joined(self.rules.address) as ray:
            crew = Crew(ray, draw, self.rules, self.say)
            try:
                _Round(crew, log, told, deque(units_of(pictures))).draw()
            finally:
                crew.dismiss()


@dataclass
class _Round:
    """The pictures of a job, on their way round a crew."""

    crew: Crew
    log: Log
    told: Callable[[list[dict[str, Any]]], None]
    work: deque[list[Wanted]]
    tries: Counter[str] = field(default_factory=Counter)
    ways: set[str] = field(default_factory=set)
    ways_told: int = 1
    heard: float = field(default_factory=time.monotonic)
    warned: float = field(default_factory=time.monotonic)

    def draw(self) -> None:
        """Draw until nothing is left."""
        while self.work or self.crew.busy:
            if self.work:
                self.crew.look()
            while self.work and self.crew.idle:
                self.crew.give(self.work.popleft())
            before = self.crew.idle
            for event in self.crew.events(_TICK_S):
                self._take(event)
            if self.crew.busy or self.crew.idle != before:
                self.heard = self.warned = time.monotonic()
            self._watch()

    def _take(self, event: Answer | Lost) -> None:
        """Log what came back, and put what did not at the end."""
        if isinstance(event, Answer):
            self._finish(event.records)
        elif event.why is None:
            self.work.appendleft(list(event.unit))
        else:
            self.tries.update(one.key for one in event.unit)
            self._finish([self._failed(one, event.why) for one in event.unit if self.tries[one.key] >= TRIES])
            self.work.extend([one] for one in event.unit if self.tries[one.key] < TRIES)

    def _finish(self, records: list[dict[str, Any]]) -> None:
        if records:
            self.log.add(records)
            self.told(records)
        for by in [record["drawn_by"] for record in records if record["done"] and record["seconds"] is not None]:
            self.ways.add(" ".join(map(str, (by["backend"], by["engine_version"], by["precision"]))) + _sets(by))
        if len(self.ways) > self.ways_told:
            self.ways_told = len(self.ways)
            self.crew.say(
                f"warning: nodes draw in different ways ({'; '.join(sorted(self.ways))}): pictures are alike to the "
                "eye, though not in every bit; metadata.jsonl says which"
            )

    def _failed(self, one: Wanted, why: str) -> dict[str, Any]:
        return {
            "key": one.key,
            "done": False,
            "error": f"{why} {TRIES} times",
            "hint": "It may need more memory than a process has, or be a fault of the engine: draw it alone, with "
            "nano-generate, to see. The same command tries it again.",
        }

    def _watch(self) -> None:
        """Say that nothing starts, and end when that takes too long.

        Raises:
            StalledError: nothing has happened for too long.
        """
        now = time.monotonic()
        if now - self.heard > self.crew.rules.patience_s:
            raise StalledError(now - self.heard, self.crew.state())
        if now - self.warned > _QUIET_S:
            self.warned = now
            self.crew.say(f"waiting for the cluster: {self.crew.state()}")


def _sets(by: Mapping[str, Any]) -> str:
    """Name the instruction sets that a picture was drawn with."""
    return "" if by["instruction_sets"] is None else f" with {', '.join(by['instruction_sets'])}"
