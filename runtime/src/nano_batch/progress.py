"""Shows how far a job is: a bar on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Progress", "counted", "duration", "pace"]

_FIRST_S: Final = 10.0
_LONGEST_S: Final = 300.0
_MINUTE_S: Final = 60.0
_WHOLE: Final = 100  # pictures a minute; from here on they are told without a fraction


class Progress:
    """Counts pictures, and tells on standard error how many a minute there are and how long the rest takes.

    Elsewhere than on a terminal the first line comes after ten seconds, and each pause is twice as long as the one
    before, up to five minutes. The first pictures, which wait for the engine, tell no pace.

    Args:
        total: pictures of the job.
        finished: of them, before it began.
        say: prints a line.
    """

    def __init__(self, total: int, finished: int, say: Callable[[str], None]) -> None:
        self._total, self._before, self._say = total, finished, say
        self._began = time.monotonic()
        self._pause = _FIRST_S
        self._next = self._began + _FIRST_S
        self.drawn = self.failed = 0
        self._start: tuple[float, int] | None = None  # when the first pictures were there, and how many
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            from tqdm import tqdm  # noqa: PLC0415 - only terminals need it

            self._bar = tqdm(total=total, initial=finished, unit="picture", leave=False, file=sys.stderr)

    def add(self, drawn: int, failed: int) -> None:
        """Count pictures that were drawn, and others that failed."""
        self.drawn += drawn
        self.failed += failed
        if self._start is None:
            self._start = time.monotonic(), drawn + failed
        if self._bar is not None:
            self._bar.update(drawn + failed)
        elif (now := time.monotonic()) >= self._next:
            self._pause = min(2 * self._pause, _LONGEST_S)
            self._next = now + self._pause
            self._say(self.line())

    def line(self) -> str:
        """Return how far it is in words."""
        done = self._before + self.drawn + self.failed
        said = f"{done} of {counted(self._total)}"
        if (rate := self._per_minute()) > 0:
            left = (self._total - done) / rate * _MINUTE_S
            said += f", {pace(rate)}, {duration(left)} left"
        return said + (f"; {self.failed} failed" if self.failed else "")

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def _per_minute(self) -> float:
        """Return how many pictures a minute there were since the first ones, failed ones too; 0 if it is not known."""
        if self._start is None:
            return 0.0
        when, first = self._start
        return (self.drawn + self.failed - first) / max(time.monotonic() - when, 1e-9) * _MINUTE_S

    def clear(self) -> None:
        """Take the bar from the terminal, so that something can be printed."""
        if self._bar is not None:
            self._bar.clear()

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def pace(per_minute: float) -> str:
    """Return how many pictures a minute there are, in words."""
    return f"{per_minute:,.0f} a minute" if per_minute >= _WHOLE else f"{per_minute:.3g} a minute"


def counted(number: int) -> str:
    """Return a number of pictures, in words."""
    return f"{number} picture{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
