"""Makes the n-th file operation below a folder fail, as a full, broken or forbidden disk does: once, or from then on.

The operations are those that Python's own layers end in: functions of ``os``, and every ``write`` of an open file.
What native code writes by itself is not seen.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

__all__ = ["ERRORS", "SHORT", "Faults", "failing"]

SHORT = 0
"""Instead of an error: a write that takes only a part of what it is given."""
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE)

_OPENS, _CHANGES = (
    ("open", "scandir", "listdir"),
    ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "utime", "link"),
)
_APPLIES = {errno.EMFILE: {*_OPENS, "io.open"}}  # what can fail for want of descriptors; the others strike anywhere


class Faults:
    """Counts the operations below a folder, and fails some.

    Args:
        below: the folder; what happens elsewhere is neither counted nor harmed.
        first: number of the first operation to fail, from 1; 0 for none.
        error: errno to fail with, or ``SHORT``.
        lasting: whether all later ones fail too.
    """

    def __init__(self, below: Path, first: int, error: int, *, lasting: bool) -> None:
        self.below = below
        self.first = first
        self.error = error
        self.lasting = lasting
        self.count = 0
        self.struck = 0

    def strikes(self, operation: str, path: object) -> bool:
        """Count an operation if it is one that this fault could strike; say whether it does."""
        concerns = operation == "write" if self.error == SHORT else operation in _APPLIES.get(self.error, {operation})
        if not concerns or not self._is_below(path):
            return False
        self.count += 1
        strikes = 0 < self.first <= self.count and (self.lasting or self.count == self.first)
        self.struck += strikes
        return strikes

    def check(self, operation: str, path: Any) -> None:
        """Raise if it is this operation's turn."""
        if self.strikes(operation, path):
            raise OSError(self.error, os.strerror(self.error), None if isinstance(path, int) else os.fspath(path))

    def _is_below(self, path: Any) -> bool:
        where = _opened(path) if isinstance(path, int) else Path(os.fsdecode(path)).absolute()
        return where.is_relative_to(self.below)


@contextmanager
def failing(below: Path, first: int, error: int, *, lasting: bool) -> Iterator[Faults]:
    """Let operations below a folder fail while the block runs; see ``Faults``."""
    faults = Faults(below, first, error, lasting=lasting)
    functions = {name: _checked(getattr(os, name), name, faults) for name in (*_OPENS, *_CHANGES)}
    opener = _opener(faults)
    with ExitStack() as patches:
        patches.enter_context(patch.multiple(os, **dict[str, Any](functions)))
        patches.enter_context(patch.object(io, "open", opener))
        patches.enter_context(patch.object(builtins, "open", opener))
        kept = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10's pathlib calls functions that it kept
        if kept is not None:
            theirs = {name: staticmethod(function) for name, function in functions.items() if name in vars(kept)}
            replaced: dict[str, Any] = {**theirs, "open": staticmethod(opener)}
            patches.enter_context(patch.multiple(kept, **replaced))
        yield faults


def _checked(function: Callable[..., Any], operation: str, faults: Faults) -> Callable[..., Any]:
    """Wrap a function of ``os`` whose first argument is a path or a descriptor."""

    def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        folder = kwargs.get("dir_fd")
        where = path if folder is None else _opened(folder) / os.fsdecode(path)
        faults.check(operation, where)
        return function(path, *args, **kwargs)

    return call


def _opened(descriptor: int) -> Path:
    """Return what a descriptor was opened as."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _opener(faults: Faults) -> Callable[..., Any]:
    """Return an ``open`` whose files ask before every write."""
    real = io.open

    class Raw(io.FileIO):
        def write(self, content: Any) -> int:
            if faults.error == SHORT and faults.strikes("write", self.fileno()):
                content = memoryview(content).cast("B")[: max(1, len(content) // 2)]
            elif faults.error != SHORT:
                faults.check("write", self.fileno())
            written = super().write(content)
            assert written is not None  # None is for files that do not block
            return written

    def call(file: Any, mode: str = "r", buffering: int = -1, *text: Any, **more: Any) -> Any:
        if isinstance(file, int):
            return real(file, mode, buffering, *text, **more)
        faults.check("io.open", os.fsdecode(file))
        if not set(mode) & set("wxa+"):
            return real(file, mode, buffering, *text, **more)
        raw = Raw(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *text, **more)

    return call
