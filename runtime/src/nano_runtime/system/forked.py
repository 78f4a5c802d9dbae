"""A child process that is forked before anything large is imported, and that can be ended whatever native code does.

The parent has the terminal, the signals and the files. Ctrl-C and SIGTERM first ask the child to end, so that it tidies
up. If it has not ended after a moment, or at a second signal, it is killed: native code answers no signal.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from nano_runtime.system.confinement import Confinement, die_with_parent
from nano_runtime.system.messages import Channel, ChannelError, Message

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ForkedChild", "can_fork"]

_GRACE_S: Final = 0.3  # between asking and killing; with the end of both processes, within a second
_MOST_TALK: Final = 64 << 10  # bytes that native code may print
_AT_ONCE: Final = 64 << 10


def can_fork() -> bool:
    """Return whether this process may fork: on Linux, with one thread, which libraries that compute have no longer."""
    if sys.platform != "linux":
        return False
    try:
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - pathlib would do the same
    except OSError:
        return False


class ForkedChild:
    """The parent's end of a child; use it in a ``with`` block, behind which no process is left.

    Signals reach the child only by way of the parent, also those that a terminal sends to both.

    Args:
        work: is called in the child, with its end of the channel; what it returns or raises is of no interest. Its
            standard output and error are a pipe to the parent.
        confinement: of the child.
        talk: gets what native code prints in the child, line by line.

    Attributes:
        channel: to the child.
        interrupted: whether it was asked to end.
    """

    def __init__(
        self, work: Callable[[Channel], object], confinement: Confinement, talk: Callable[[str], None]
    ) -> None:
        to_child, to_parent, captured = os.pipe(), os.pipe(), os.pipe()
        self.channel = Channel(to_parent[0], to_child[1])
        self.interrupted = False
        self._talk, self._captured, self._printed, self._line = talk, captured[0], 0, b""
        self._code: int | None = None
        self._before: dict[signal.Signals, Any] = {}
        parent = os.getpid()
        gc.freeze()  # or the collector would touch, and so copy, in the child all that is shared
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._pid = os.fork()
            if self._pid == 0:
                for descriptor in (to_child[1], to_parent[0], captured[0]):
                    os.close(descriptor)
                _be_child(work, Channel(to_child[0], to_parent[1]), captured[1], confinement, (parent, held))
            for descriptor in (to_child[0], to_parent[1], captured[1]):
                os.close(descriptor)
            self._take_signals()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def __enter__(self) -> Self:
        """Return the child."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End the child if it is still there, and give signals back to whom they belonged."""
        try:
            self.kill()
            self.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self.channel.close()
            os.close(self._captured)

    def messages(self) -> Iterator[Message]:
        """Yield what the child sends, until it ends."""
        waiting = [self.channel.reading, self._captured]
        while True:
            ready, _, _ = select.select(waiting, [], [])
            if self._captured in ready and not self._print_captured():
                waiting.remove(self._captured)
            if self.channel.reading in ready:
                try:
                    message = self.channel.receive()
                except ChannelError:
                    self.kill()  # which is over already, or sends nonsense
                    break
                yield message

    def wait(self) -> int:
        """Wait for the end of the child; return its exit code, or the negative number of the signal that ended it."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            while select.select([self._captured], [], [], 0)[0] and self._print_captured():
                pass
        return self._code

    def kill(self) -> None:
        """End the child at once, whatever it is at."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _take_signals(self) -> None:
        """Have Ctrl-C and SIGTERM end the child, unless whoever started this process wants them to be ignored."""

        def at_once(_number: int, _frame: FrameType | None) -> None:
            self.kill()
            raise KeyboardInterrupt

        def ask(number: int, frame: FrameType | None) -> None:
            if self.interrupted:
                at_once(number, frame)
            self.interrupted = True
            self._send(signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, _GRACE_S)

        for number, handler in ((signal.SIGINT, ask), (signal.SIGTERM, ask), (signal.SIGALRM, at_once)):
            if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGALRM:
                self._before[number] = signal.signal(number, handler)

    def _print_captured(self) -> bool:
        """Hand on what native code printed, up to a limit; return whether there may be more."""
        part = os.read(self._captured, _AT_ONCE)
        room = max(0, _MOST_TALK - self._printed)
        self._printed += len(part)
        *lines, self._line = (self._line + part[:room]).split(b"\n")
        if not part and self._line:
            lines, self._line = [*lines, self._line], b""
        for line in lines:
            self._talk(line.decode(errors="replace"))
        return bool(part)


def _be_child(
    work: Callable[[Channel], object],
    channel: Channel,
    printed: int,
    confinement: Confinement,
    of_parent: tuple[int, set[int | signal.Signals]],
) -> None:
    """Be the child, from the fork to its end; this never returns."""
    code = 1
    try:
        parent, held = of_parent
        die_with_parent(parent)
        for descriptor in (1, 2):
            os.dup2(printed, descriptor)
        os.close(printed)
        confinement.apply()
        with _interruptions(channel):
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            work(channel)
        code = 0
    except KeyboardInterrupt:
        pass
    except BaseException:  # noqa: BLE001 - nothing may get out into what the parent was doing
        with suppress(BaseException):
            traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


@contextmanager
def _interruptions(channel: Channel) -> Iterator[None]:
    """Turn the first SIGTERM into a ``KeyboardInterrupt``, but never in the middle of a message; leave the rest."""
    asked = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            channel.interrupt()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the parent decides
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGALRM, lambda *_: channel.interrupt())  # of who noticed that the first was lost
    yield
