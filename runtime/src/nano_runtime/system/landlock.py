"""Landlock, Linux's way for a process to give up rights: files that it may reach, TCP, signals to others.

The interface is that of ``include/uapi/linux/landlock.h``, up to version 6; glibc has no functions for it. It binds the
thread that asks and all that it starts, not the threads that are there already.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["landlock_version", "restrict"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on all processors that Python is built for
_VERSION: Final = 1  # the flag LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_O_PATH: Final = getattr(os, "O_PATH", 0) | getattr(os, "O_CLOEXEC", 0)

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_TRUNCATE: Final = 1 << 14
_OF_FILES: Final = _WRITE_FILE | _READ_FILE | _TRUNCATE  # the rights here that a rule for a plain file may name
_READ: Final = _READ_FILE | _READ_DIR
_WRITE: Final = _READ | _WRITE_FILE | _TRUNCATE | _MAKE_FILE | _REMOVE_FILE | _MAKE_DIR | _REMOVE_DIR
_ALL_FILES: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights of files that a version knows; the last stands for later ones."""
_TCP: Final = 0b11  # bind and connect, from version 4 on
_SCOPED: Final = 0b11  # abstract Unix sockets of others, and signals to others, from version 6 on
_WITH_TCP, _WITH_SCOPES, _LAST = 4, 6, 5


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # which Python 3.14 wants beside ``_pack_``
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def landlock_version() -> int:
    """Return the version of the kernel's interface; 0 where it has none, or does not allow it."""
    if sys.platform != "linux":
        return 0
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(reads: Iterable[Path], writes: Iterable[Path]) -> bool:
    """Leave this thread, and all that it starts, nothing but these places; nothing is executed, no TCP is spoken.

    Open files stay open. What a path stands for now is meant: a link's target, and all that is below a folder.

    Args:
        reads: files and folders that may be read; missing ones are passed over.
        writes: folders whose files may also be written, made and removed, or files that may be written.

    Returns:
        Whether the kernel does so; else nothing has changed.
    """
    version = landlock_version()
    if version == 0:
        return False
    known = _ALL_FILES[min(version, _LAST)]
    asked = _Ruleset(known, _TCP if version >= _WITH_TCP else 0, _SCOPED if version >= _WITH_SCOPES else 0)
    size = 24 if version >= _WITH_SCOPES else 16 if version >= _WITH_TCP else 8  # a kernel refuses fields it lacks
    try:
        ruleset = _call(_CREATE_RULESET, ctypes.byref(asked), size, 0)
    except OSError:
        return False
    try:
        for paths, rights in ((reads, _READ), (writes, _WRITE)):
            for path in paths:
                _allow(ruleset, path, rights & known)
        _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call(_RESTRICT_SELF, ruleset, 0)
    except OSError:
        return False
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Add a rule; none for a path that is not there."""
    with _opened(path) as found:
        if found is not None:
            plain = not stat.S_ISDIR(os.fstat(found).st_mode)
            rule = _PathBeneath(rights & _OF_FILES if plain else rights, found)
            with suppress(OSError):  # of a file system that has no such rules, as that of pipes
                _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Yield a descriptor that only names a file or folder; None where there is none."""
    try:
        descriptor = os.open(path, _O_PATH)
    except (OSError, ValueError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    """Make a system call.

    Raises:
        OSError: it failed.
    """
    syscall = _libc().syscall
    syscall.restype = ctypes.c_long
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = syscall(ctypes.c_long(number), *words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
