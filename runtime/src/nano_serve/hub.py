"""Hands events from any thread to listeners in the event loop; a slow listener gets the newest of each kind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Event", "Hub", "Listener"]

_MOST_PENDING: Final = 2000  # events of different keys; a listener that is so far behind is let go


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        name: of the event.
        key: of two events with one key, only the newer is of interest.
        job: id of the job that it is about; None for none.
        data: what there is to say.
    """

    name: str
    key: Hashable
    job: str | None
    data: Any


class Listener:
    """The events that one reader has not read yet. Made in the event loop that reads it."""

    def __init__(self, job: str | None) -> None:
        self.job = job
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        self._pending: dict[Hashable, Event] = {}
        self._lost = False

    def put(self, event: Event) -> None:
        """Add an event, from any thread."""
        if self.job is not None and event.job != self.job:
            return
        with self._lock:
            self._pending.pop(event.key, None)  # the newest goes to the end
            self._pending[event.key] = event
            self._lost = len(self._pending) > _MOST_PENDING
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._news.set)

    async def next(self, seconds: float | None = None) -> Event | None:
        """Wait for the next event.

        Returns:
            None if none came in time.

        Raises:
            ConnectionError: the reader is so far behind that it must begin anew.
        """
        while True:
            self._news.clear()
            with self._lock:
                if self._lost:
                    raise ConnectionError("too far behind")
                if self._pending:
                    return self._pending.pop(next(iter(self._pending)))
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except asyncio.TimeoutError:
                return None


class Hub:
    """All listeners."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()  # replaced, never changed
        self._lock = threading.Lock()

    @property
    def heard(self) -> bool:
        """Whether anybody listens to all jobs."""
        return any(listener.job is None for listener in self._listeners)

    def publish(self, name: str, key: Hashable, data: Any, job: str | None = None) -> None:  # noqa: ANN401 - as JSON
        """Tell all listeners, from any thread."""
        event = Event(name, key, job, data)
        for listener in self._listeners:
            listener.put(event)

    @contextmanager
    def listening(self, job: str | None = None) -> Iterator[Listener]:
        """Give a listener: to everything, or to what concerns one job."""
        listener = Listener(job)
        with self._lock:
            self._listeners = (*self._listeners, listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)
