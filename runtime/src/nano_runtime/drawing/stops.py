"""Stopping drawings that are under way, one or all, and leaving pictures out, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from weakref import ref

__all__ = ["Stop", "Stops"]


class Stop:
    """The wish to stop one drawing, or to leave out some of its pictures.

    Attributes:
        asked: it was told to stop: it makes no further UNet call.
        left: pictures that nobody waits for any more.
        over: it has ended.
    """

    def __init__(self, here: threading.local) -> None:
        self.asked = False
        self.left: frozenset[int] = frozenset()  # replaced, never changed
        self.over = False
        self._here = here
        self._leaving = threading.RLock()

    def leave(self, pictures: Iterable[int]) -> None:
        """Leave pictures out; the others are drawn as they would be with them."""
        with self._leaving:
            self.left |= frozenset(pictures)

    def is_here(self) -> None:
        """Note that this thread goes on with the drawing: what the thread asks of the pipeline, it asks of this one."""
        self._here.stop = self


class Stops:
    """All drawings of a pipeline, in any number of threads."""

    def __init__(self) -> None:
        self._here = threading.local()
        self._lock = threading.Lock()
        self._begun: tuple[ref[Stop], ...] = ()  # replaced, never changed: other threads walk through it

    def begin(self) -> Stop:
        """Return the stop of a drawing that begins in this thread."""
        stop = Stop(self._here)
        stop.is_here()
        with self._lock:
            self._begun = (*(of for of in self._begun if of() is not None), ref(stop))
        return stop

    @property
    def asked(self) -> bool:
        """Whether this thread's drawing was told to stop; in a thread that has none under way, whether any was."""
        return any(stop.asked for stop in self._meant())

    @asked.setter
    def asked(self, value: bool) -> None:
        for stop in self._meant():
            stop.asked = value

    def _meant(self) -> list[Stop]:
        """Return the drawing that this thread went on with last, or all others if that one is over."""
        own: Stop | None = getattr(self._here, "stop", None)
        if own is not None and not own.over:
            return [own]
        under_way = [stop for of in self._begun if (stop := of()) is not None and not stop.over]
        return under_way if under_way or own is None else [own]
