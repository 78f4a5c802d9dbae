"""Ctrl-C and SIGTERM end a command by a ``KeyboardInterrupt``, which comes again where it was lost.

Python drops what a handler raises inside of a callback, as its import system has them, and native code turns it into an
error of its own. While native code runs, no handler is called: a thread then ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["Interruption", "hangup_ends", "interruptible", "native_code_ends"]

_AGAIN_S: Final = 0.02  # behind the callback in which it was lost
_PATIENCE_S: Final = 0.7  # with native code; with the end of the process, within a second
_INTERRUPTED: Final = 130
_HANGUP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)  # Windows has none


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


@contextmanager
def hangup_ends() -> Iterator[None]:
    """Have SIGHUP, of a terminal that is closed, end this block as SIGTERM does, unless it is ignored, as by nohup.

    The block must be in the main thread.
    """
    if _HANGUP is None or signal.getsignal(_HANGUP) != signal.SIG_DFL:
        yield
        return
    signal.signal(_HANGUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(_HANGUP, signal.SIG_DFL)


@contextmanager
def native_code_ends(command: str, tidied: Callable[[], object]) -> Iterator[None]:
    """End the process with exit code 130 if a signal that ends commands does not end this block within a moment.

    Native code, which may run for hours, lets no handler be called. The block must be in the main thread, and leave
    soon when a ``KeyboardInterrupt`` is raised in it.

    Args:
        command: name to say it under.
        tidied: is called before the end, in another thread.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    left = threading.Event()

    def watch() -> None:
        while number := os.read(heard, 1):
            if number[0] in (signal.SIGINT, signal.SIGTERM, _HANGUP) and not left.wait(_PATIENCE_S):
                tidied()
                with suppress(OSError):  # the terminal may be gone
                    os.write(2, f"{command}: interrupted\n".encode())
                os._exit(_INTERRUPTED)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.close(told)
        thread.join()
        os.close(heard)
