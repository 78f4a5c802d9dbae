"""The base of all errors, and its four branches with their exit codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from nano_runtime.errors.escaping import escaped
from nano_runtime.errors.wording import spelled

__all__ = [
    "BundleError",
    "MachineError",
    "NanoError",
    "NetworkError",
    "UsageError",
]


class NanoError(Exception):
    """Base of all errors a user can cause.

    Args:
        what: one line, what happened and to which file or value. Names of arguments in it may be marked; see
            ``errors.wording``.
        hint: one line, what to do next.
        details: lines between them, where there is a list of faults.

    Attributes:
        what: as above, fit to print.
        hint: as above, fit to print.
        details: as above, fit to print.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, hint: str, details: Sequence[str] = ()) -> None:
        self._marked = what, hint
        self.what, self.hint = self.worded(None)
        self.details = tuple(map(escaped, details))
        super().__init__("\n".join((self.what, *self.details, self.hint)))

    def worded(self, spell: Callable[[str], str] | None) -> tuple[str, str]:
        """Return what happened and what to do, fit to print.

        Messages quote names from files and the words of engines; a terminal would obey control characters in them.

        Args:
            spell: turns the name of an argument into what the caller knows it by; None leaves Python's names.
        """
        what, hint = (escaped(spelled(text, spell)) for text in self._marked)
        return what, hint

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the branch with the finished message, because the arguments of a leaf are no longer known."""
        branch = next(base for base in type(self).__mro__ if "__init__" not in vars(base))
        return branch, (*self._marked, self.details)


class UsageError(NanoError, ValueError):
    """The request cannot be met as it was asked."""

    exit_code = 2


class BundleError(NanoError, ValueError):
    """The bundle is missing, damaged or not usable."""

    exit_code = 3


class MachineError(NanoError):
    """This machine lacks something: an engine, disk space, memory, or a permission."""

    exit_code = 4


class NetworkError(NanoError, ConnectionError):
    """The network, or the server at the other end, failed."""

    exit_code = 5
