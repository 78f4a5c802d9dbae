"""A confined child process of a library, which may have loaded an engine already: it is spawned, never forked.

No signal handler is set, and none is needed: whoever waits for an answer gets an error when the child is killed.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from nano_runtime.system.children import module_command
from nano_runtime.system.confined import described
from nano_runtime.system.confinement import Confinement
from nano_runtime.system.messages import Channel

__all__ = ["SpawnedChild"]

_MOST_TALK: Final = 64 << 10  # bytes that native code may print
_ALONE: Final = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # of Windows: no Ctrl-C


class SpawnedChild:
    """A child that runs a module and talks over its standard input and output.

    Linux kills it when the thread that started it ends, so it has a thread of its own, which waits for its end.

    Args:
        module: to run; it gets ``arguments``.
        arguments: of the module.
        within: what the child may reach.
        talk: gets what native code prints there, line by line, in that thread.

    Attributes:
        channel: to the child.
        killed: whether ``kill`` was called.
        code: its exit code, or the negative number of the signal that ended it; None while it lives.

    Raises:
        OSError: it cannot be started.
    """

    channel: Channel

    def __init__(self, module: str, arguments: Sequence[str], within: Confinement, talk: Callable[[str], None]) -> None:
        self._command = [*module_command("nano_runtime.system.confined"), described(within), module, *arguments]
        self._talk = talk
        self._started = threading.Event()
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self.killed = False
        self.code: int | None = None
        threading.Thread(target=self._live, name="nano-child", daemon=True).start()
        self._started.wait()
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise self._error or OSError("the process was not started")
        self.channel = Channel(self._process.stdout.fileno(), self._process.stdin.fileno())

    def __del__(self) -> None:
        """Close the pipes, when nobody reads them any more."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()

    def wait(self, seconds: float) -> int | None:
        """Wait for the end of the child, but not for long; return ``code``."""
        self._over.wait(seconds)
        return self.code

    def kill(self) -> None:
        """End the child at once, whatever it is at, and wait for its end."""
        self.killed = True
        if self._process is not None:
            with suppress(OSError):
                self._process.kill()
            self._over.wait()

    def _live(self) -> None:
        """Start the child, hand on what it prints, and wait for its end."""
        if hasattr(signal, "pthread_sigmask"):  # not Windows: it inherits this, and hears no Ctrl-C from the first
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(  # noqa: S603 - our own module; paths are arguments, not commands
                self._command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, creationflags=_ALONE,
                cwd=Path(__file__).parents[2],
            )  # fmt: skip
        except OSError as error:
            self._error = error
            self._started.set()
            return
        self._started.set()
        if self._process.stderr is not None:
            self._hand_on(self._process.stderr)
        self.code = self._process.wait()
        self._over.set()

    def _hand_on(self, printed: IO[bytes]) -> None:
        """Hand on lines, up to a limit."""
        room = _MOST_TALK
        while line := printed.readline(_MOST_TALK):
            if len(line) <= room:
                self._talk(line.decode(errors="replace").rstrip("\r\n"))
            room = max(0, room - len(line))
