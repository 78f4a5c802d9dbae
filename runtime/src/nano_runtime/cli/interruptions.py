"""Ctrl-C and SIGTERM end a command by a ``KeyboardInterrupt``, which comes again where it was lost.

Python drops what a handler raises inside of a callback, as its import system has them, and native code turns it into an
error of its own.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["Interruption", "interruptible"]

_AGAIN_S: Final = 0.02  # behind the callback in which it was lost


class Interruption:
    """Whether a command was told to end.

    Attributes:
        asked: whether it was.
    """

    asked: bool = False

    def heeded(self, work: Callable[[], int]) -> int:
        """Return the result of work; if it was told to end, whatever it raises is the interruption.

        Raises:
            KeyboardInterrupt: it was told to end.
        """
        try:
            return work()
        except Exception as error:
            if self.asked:
                raise KeyboardInterrupt from error
            raise

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Be the handler of signals."""
        self.asked = True
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Take the signals over that are not ignored, so that ``finally`` blocks run and no unfinished file stays."""
    interruption = Interruption()
    hook = sys.unraisablehook

    def dropped(lost: UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)
        elif hasattr(signal, "setitimer"):  # not Windows
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

    before: dict[signal.Signals, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGALRM"):
        number: signal.Signals | None = getattr(signal, name, None)
        if number is not None and (signal.getsignal(number) != signal.SIG_IGN or name == "SIGALRM"):
            before[number] = signal.signal(number, interruption.interrupt)
    sys.unraisablehook = dropped
    try:
        yield interruption
    finally:
        sys.unraisablehook = hook
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for taken, handler in before.items():
            signal.signal(taken, handler)
