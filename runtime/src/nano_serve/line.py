"""The line of waiting jobs: bounded, and fair between clients; hands out rounds of pictures that share UNet calls."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nano_serve.errors import BusyError, StoppingError
from nano_serve.jobs import Job

__all__ = ["Line", "Part", "Round"]

_MOST_AT_ONCE: Final = 4  # pictures that share a UNet call; the pipeline takes no more
_GUESS_SECONDS: Final = 5.0  # of a job, before any was drawn


@dataclass(frozen=True)
class Part:
    """One picture of a job, by its place."""

    job: Job
    place: int


@dataclass(frozen=True)
class Round:
    """Pictures that are drawn together; they agree in all but prompts and seeds."""

    parts: tuple[Part, ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs that have a picture in it, each once."""
        return tuple(dict.fromkeys(part.job for part in self.parts))


class Line:
    """Jobs that still have pictures to draw.

    Clients take turns, a round each: one who asked for a hundred pictures keeps nobody waiting for more than four.

    Args:
        most_waiting: jobs that may wait, without those under way.
    """

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self.seconds_per_job = _GUESS_SECONDS
        self._changed = threading.Condition()
        self._jobs: dict[str, deque[Job]] = {}
        self._turns: deque[str] = deque()
        self._in_hand: tuple[Job, ...] = ()
        self._closed = self._woken = False

    def add(self, job: Job) -> None:
        """Let a job wait.

        Raises:
            BusyError: as many wait as may wait.
            StoppingError: nothing is drawn any more.
        """
        with self._changed:
            if self._closed:
                raise StoppingError
            waiting = sum(1 for _ in self._queued())
            if waiting >= self.most_waiting:
                raise BusyError(waiting, waiting * self.seconds_per_job)
            self._append(job)
            self._changed.notify_all()

    def put_back(self, parts: tuple[Part, ...]) -> None:
        """Return pictures that were handed out, to be drawn without those of other jobs."""
        with self._changed:
            for job in Round(parts).jobs:
                places = tuple(part.place for part in parts if part.job is job)
                job.alone = True
                job.todo = (*places, *job.todo)
                if job not in self._jobs.get(job.client, ()):
                    self._append(job)
            self._changed.notify_all()

    def remove(self, job: Job) -> bool:
        """Take a job out; return whether nobody is drawing it."""
        with self._changed:
            if job in (own := self._jobs.get(job.client, deque())):
                own.remove(job)
                job.todo = ()
                self._forget_empty()
            return job not in self._in_hand

    def returned(self, drawn: Round) -> None:
        """Note that a round is over."""
        with self._changed:
            self._in_hand = tuple(job for job in self._in_hand if job not in drawn.jobs)

    def take(self, seconds: float | None) -> Round | None:
        """Wait for the next round.

        Args:
            seconds: to wait; None waits without end.

        Returns:
            None if none came, or the line was closed, or somebody was to be woken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._turns or self._closed or self._woken, seconds)
            if self._closed or not self._turns:
                self._woken = False
                return None
            self._turns.rotate(-1)
            first = self._jobs[self._turns[-1]][0]
            parts: list[Part] = []
            for job in [first, *(job for job in self._all() if job is not first)]:
                if job.kind_of_call == first.kind_of_call:
                    free = _MOST_AT_ONCE - len(parts)
                    parts += [Part(job, place) for place in job.todo[:free]]
                    job.todo = job.todo[free:]
                    if job.status == "queued" and free:
                        job.status = "generating"
            self._forget_empty()
            handed = Round(tuple(parts))
            self._in_hand = handed.jobs
            return handed

    def wake(self) -> None:
        """End the wait for the next round, now or when nothing waits."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> tuple[Job, ...]:
        """Hand out nothing any more; return the jobs that wait."""
        with self._changed:
            self._closed = True
            left = tuple(self._all())
            self._jobs.clear()
            self._turns.clear()
            self._changed.notify_all()
            return left

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for their first picture."""
        with self._changed:
            return sum(1 for _ in self._queued())

    def positions(self) -> dict[str, int]:
        """Return the places of waiting jobs, from 1, by id."""
        with self._changed:
            return {job.id: number for number, job in enumerate(self._queued(), 1)}

    def _append(self, job: Job) -> None:
        if job.client not in self._jobs:
            self._jobs[job.client] = deque()
            self._turns.append(job.client)
        self._jobs[job.client].append(job)

    def _all(self) -> Iterator[Job]:
        """Yield all jobs in the order in which they would begin: a job of every client, then the next of every one."""
        queues = [self._jobs[client] for client in self._turns]
        for number in range(max(map(len, queues), default=0)):
            yield from (queue[number] for queue in queues if number < len(queue))

    def _queued(self) -> Iterator[Job]:
        return (job for job in self._all() if job.status == "queued")

    def _forget_empty(self) -> None:
        """Take out jobs that have nothing to do, and clients without a job."""
        for client in list(self._turns):
            self._jobs[client] = deque(job for job in self._jobs[client] if job.todo)
            if not self._jobs[client]:
                del self._jobs[client]
                self._turns.remove(client)
