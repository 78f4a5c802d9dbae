"""Gives memory back that a process holds twice or no more: mapped files an engine has packed, and freed heap.

An engine maps a weights file, packs its weights into a layout of its own, and keeps both; and what a closed engine
frees stays with the process, as the C library hopes for more. On a machine with little memory either is the difference
between drawing and swapping. Outside of Linux nothing here does anything.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["give_back_heap", "mapped_once"]

_MAPS = Path("/proc/self/maps")
_EVERY_S = 0.05  # an engine packs some 20 MB in that time


@contextmanager
def mapped_once(file: Path | None) -> Iterator[None]:
    """While the block runs and at its end, give back the pages of a file that this process has mapped and read.

    They are clean copies of what is on the disk: a page that is touched again is there again, from the system's cache
    if there is room for one. Mappings that can be written are left alone; no file, nothing to do.
    """
    if file is None or sys.platform != "linux":
        yield
        return
    done = threading.Event()
    giver = threading.Thread(target=_give_back_until, args=(file.resolve(), done), name="nano-pages")
    giver.start()
    try:
        yield
    finally:
        done.set()
        giver.join()
        _give_back(file.resolve())


def give_back_heap() -> None:
    """Give back what was freed but kept; see ``man 3 malloc_trim``, which only the GNU C library has."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _give_back_until(file: Path, done: threading.Event) -> None:
    """Give the pages back again and again."""
    while not done.wait(_EVERY_S):
        _give_back(file)


def _give_back(file: Path) -> None:
    """Give back the pages of all read-only mappings of a file; none if there is no memory to find them.

    See ``man 2 madvise``.
    """
    with suppress(MemoryError, OSError):
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for line in _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            where, permissions, *rest = line.split(maxsplit=5)
            if rest[-1] == str(file) and "w" not in permissions:
                start, end = (int(address, 16) for address in where.split("-"))
                madvise(start, end - start, mmap.MADV_DONTNEED)
