"""The error boundary of all commands: a user's error becomes two or three lines and an exit code; a bug, a traceback.

0 done · 1 our bug · 2 usage · 3 bundle invalid · 4 this machine · 5 network · 6 some rows failed
130 interrupted · 141 reader gone
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from nano_runtime.cli.interruptions import interruptible
from nano_runtime.cli.parser import Parser, digest, number
from nano_runtime.cli.streams import silence_stdout, usable_streams
from nano_runtime.errors import MachineError, NanoError
from nano_runtime.errors.escaping import escaped
from nano_runtime.system.files import MACHINE_ERRNOS
from nano_runtime.system.out_of_memory import is_out_of_memory
from nano_runtime.version import __version__

__all__ = [
    "EXIT_BROKEN_PIPE",
    "EXIT_INTERRUPTED",
    "Parser",
    "digest",
    "exit_code_of",
    "make_parser",
    "megabytes",
    "number",
    "run_command",
]

EXIT_INTERRUPTED = 130
_RUNTIME = "nano_runtime"
EXIT_BROKEN_PIPE = 141  # a shell reports this for a program that SIGPIPE ended

Options = TypeVar("Options", bound=argparse.Namespace)


def make_parser(prog: str, description: str, examples: str) -> Parser:
    """Return a parser with ``--version``, and examples below its help."""
    parser = Parser(
        prog=prog,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    return parser


def megabytes(size: int, decimals: int = 1) -> str:
    """Return a size in bytes as megabytes (10^6 bytes), without the unit."""
    return f"{size / 1e6:.{decimals}f}"


def run_command(
    parser: Parser,
    options: Options,
    action: Callable[[Options], int],
    argv: Sequence[str] | None,
    package: str = _RUNTIME,
) -> int:
    """Parse the command line, act, and return the exit code.

    Args:
        parser: fills ``options``, and says what arguments are called on the command line.
        options: an empty namespace of the command's own type.
        action: does the work and returns an exit code.
        argv: arguments without the program's name; None takes those of the process.
        package: of the command, whose warnings are printed as the runtime's are.
    """
    with usable_streams(), interruptible() as interruption, _warnings_on_stderr(parser.prog, {_RUNTIME, package}):
        return exit_code_of(parser, lambda: interruption.heeded(lambda: action(parser.read(argv, options))))


def exit_code_of(parser: Parser, work: Callable[[], int]) -> int:
    """Return the exit code of work, and say what went wrong if anything did; bugs are raised.

    Args:
        parser: knows what arguments are called on the command line.
        work: returns an exit code.
    """
    try:
        code = work()
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        _say(parser.prog, "interrupted")
        return EXIT_INTERRUPTED
    except NanoError as error:
        what, hint = error.worded(parser.spelled)
        _say(parser.prog, what, *error.details, hint)
        return error.exit_code
    except (MemoryError, ImportError, RuntimeError, SystemError) as error:  # the last three are native code's
        if not is_out_of_memory(error):
            raise
        _say(parser.prog, "this machine ran out of memory", "Close other programs, or draw fewer pictures at once.")
        return MachineError.exit_code
    except OSError as error:
        if error.errno not in MACHINE_ERRNOS:
            raise
        _say(
            parser.prog,
            str(error.strerror) if error.filename is None else f"{error.filename}: {error.strerror}",
            "Free some space, or choose a place you may write to.",
        )
        return MachineError.exit_code
    return code


def _say(prog: str, what: str, *hints: str) -> None:
    """Print an error on standard error: one line says what happened, the others what to do."""
    print(f"{prog}: {escaped(what)}", *map(escaped, hints), sep="\n", file=sys.stderr)


class _OneLine(logging.Formatter):
    """Formats log records as one line without control characters, because they quote prompts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return escaped(super().format(record))


class _Once(logging.Filter):
    """Lets each message pass once: the pictures of a sheet all have the same to say."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message is new."""
        said = record.getMessage()
        new = said not in self._told
        self._told.add(said)
        return new


class _Handler(logging.Handler):
    """Prints records on what is standard error by then: a child has one of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        print(self.format(record), file=sys.stderr)


@contextmanager
def _warnings_on_stderr(prog: str, packages: Collection[str]) -> Iterator[None]:
    """Print the packages' logs, from warnings on, as lines of this command."""
    handler = _Handler()
    handler.addFilter(_Once())
    handler.setFormatter(_OneLine(f"{prog}: warning: %(message)s"))
    loggers = [logging.getLogger(name) for name in packages]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
