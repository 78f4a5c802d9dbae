"""An error as a message between processes: its branch and its words. Whoever gets it believes nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nano_runtime.errors.branches import BundleError, MachineError, NanoError, UsageError
from nano_runtime.errors.environment import OutOfMemoryError

__all__ = ["error_of", "told"]

_BRANCHES: Final = {branch.__name__: branch for branch in (UsageError, MachineError, BundleError)}
_MEMORY: Final = "memory"


def told(error: NanoError | MemoryError) -> dict[str, Any]:
    """Return the message for an error."""
    if not isinstance(error, NanoError):
        return {"error": _MEMORY, "what": str(error).partition("\n")[0].removeprefix("memory ran out while ")}
    branch = next(name for name, one in _BRANCHES.items() if isinstance(error, one))
    what, hint = error.worded(None)
    return {"error": branch, "what": what, "hint": hint}


def error_of(message: Mapping[str, Any]) -> NanoError | None:
    """Return the error that a message tells, of which only text is believed; None if it tells of none."""
    if "error" not in message:
        return None
    what, hint = str(message.get("what")), str(message.get("hint"))
    if message["error"] == _MEMORY:
        return OutOfMemoryError(what)
    return _BRANCHES.get(str(message["error"]), BundleError)(what, hint)
