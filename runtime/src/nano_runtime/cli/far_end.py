"""Has the work of a command done in a child process, of which only bounded text and whole pictures come back."""

from __future__ import annotations

import io
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from nano_runtime.cli import EXIT_INTERRUPTED, Parser, exit_code_of
from nano_runtime.cli.desk import Desk, FarDesk, NearDesk
from nano_runtime.errors import EngineDiedError, NanoError
from nano_runtime.errors.escaping import escaped, escaped_lines
from nano_runtime.system.bytecode import compile_modules, uncompiled_modules
from nano_runtime.system.confinement import Confinement
from nano_runtime.system.forked import ForkedChild
from nano_runtime.system.messages import Channel, ChannelError

__all__ = ["done_in_child"]

_MOST_CODE: Final = 255


def done_in_child(
    parser: Parser, work: Callable[[Desk], int], desk: NearDesk, within: Confinement, bundle: Path
) -> int:
    """Do the work of a command in a child process, and return the exit code.

    Args:
        parser: knows what arguments are called on the command line.
        work: is done in the child; it prints, and uses the desk that it is given, as if it were here.
        desk: of this process.
        within: what the child may reach.
        bundle: the folder that it draws from.

    Raises:
        EngineDiedError: the child came to an end without having said how.
        KeyboardInterrupt: it was ended by Ctrl-C or SIGTERM.
        NanoError: a file cannot be written.
    """
    sys.stdout.flush()
    code: int | None = None
    uncompiled: list[str] = []
    with ForkedChild(partial(_work, parser, work), within, _talk) as child:
        try:
            for what, content in child.messages():
                match what:
                    case {"out": str(text)}:
                        print(escaped_lines(text), end="", flush=True)
                    case {"err": str(text)}:
                        print(escaped_lines(text), end="", file=sys.stderr)
                    case {"code": int(number)} if 0 <= number <= _MOST_CODE:
                        code = number
                    case {"uncompiled": list(sources)}:
                        uncompiled = list(map(str, sources))
                    case _:
                        desk.answer(child.channel, what, content)
        except ChannelError as error:
            raise EngineDiedError(bundle, None) from error
        except (KeyboardInterrupt, NanoError):
            _say_on(desk)
            raise
        ended = child.wait()
    if code is None or code == EXIT_INTERRUPTED:
        _say_on(desk)
        if child.interrupted or code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        raise EngineDiedError(bundle, ended)
    desk.end()
    compile_modules(uncompiled)
    return code


def _say_on(desk: NearDesk) -> None:
    """Say how to go on, which the work can no longer do itself."""
    desk.end()
    if desk.said is not None:
        print(escaped(desk.said), file=sys.stderr)


def _talk(line: str) -> None:
    """Show what native code printed."""
    if line.strip():
        print(escaped(line), file=sys.stderr)


def _work(parser: Parser, work: Callable[[Desk], int], channel: Channel) -> None:
    """Be the far end: do the work, and send how it ended."""
    before = frozenset(sys.modules)
    sys.stdout, sys.stderr = _Sent(channel, "out"), _Sent(channel, "err")
    try:
        code = exit_code_of(parser, partial(_interruptible, work, channel))
    except Exception:  # noqa: BLE001 - a bug, whose traceback is shown as ever
        traceback.print_exc()
        code = 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it has ended
    sys.stdout.flush()
    sys.stderr.flush()
    if uncompiled := uncompiled_modules(before):
        channel.send({"uncompiled": uncompiled})
    channel.send({"code": code})


def _interruptible(work: Callable[[Desk], int], channel: Channel) -> int:
    """Do the work; when it was told to end, whatever it raises is the interruption, of which the near end speaks.

    Native code that Python called turns a ``KeyboardInterrupt`` into an error of its own.
    """
    try:
        return work(FarDesk(channel))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception:
        if channel.interrupted:
            return EXIT_INTERRUPTED
        raise


class _Sent(io.TextIOBase):
    """A standard stream of the child: whole lines become messages."""

    def __init__(self, channel: Channel, name: str) -> None:
        super().__init__()
        self._channel = channel
        self._name = name
        self._line = ""

    def write(self, text: str) -> int:
        """Send whole lines, and keep the rest."""
        self._line += text
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what is left."""
        text, self._line = self._line, ""
        if text:
            what: dict[str, Any] = {self._name: text}
            self._channel.send(what)

    def writable(self) -> bool:
        """Return True."""
        return True
