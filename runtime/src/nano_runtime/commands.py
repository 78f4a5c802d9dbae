"""Begins and ends the commands: Ctrl-C and SIGTERM end one with exit code 130 before it has read its modules, too.

Python's own handler would end it with a traceback, or be ignored where Python ignores exceptions.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["bench", "bundle", "ended", "ended_by_signals", "generate"]

_INTERRUPTED = 130


@contextmanager
def ended_by_signals(command: str) -> Iterator[None]:
    """Have signals end this process at once, which has made nothing yet, until ``run_command`` takes them over.

    Behind the block the command has ended: signals that come while Python ends change no exit code.

    Args:
        command: name to say it under.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        os.write(2, f"{command}: interrupted\n".encode())
        os._exit(_INTERRUPTED)

    # What runs in the background ignores SIGINT by its shell's wish.
    numbers = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) != signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def ended(code: int) -> int:
    """Return the exit code of a command; one that was interrupted ends here, and the process with it.

    Python would wait for threads first, in which native code may load a graph for hours.
    """
    if code == _INTERRUPTED:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # there may be none
                stream.flush()
        os._exit(code)
    return code


def generate() -> int:
    """Run ``nano-generate`` and return its exit code."""
    with ended_by_signals("nano-generate"):
        from nano_runtime.cli.generate import main

        return main()


def bench() -> int:
    """Run ``nano-bench`` and return its exit code."""
    with ended_by_signals("nano-bench"):
        from nano_runtime.cli.bench import main

        return main()


def bundle() -> int:
    """Run ``nano-bundle`` and return its exit code."""
    with ended_by_signals("nano-bundle"):
        from nano_runtime.cli.bundle import main

        return main()
