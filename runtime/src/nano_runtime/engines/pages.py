"""Gives memory back to the system that the process does not need: mapped weights after packing, and freed heap.

An engine maps a weights file, packs the weights into a layout of its own, and keeps both. And the C library keeps the
memory that a closed engine frees, for later use. On a machine with little memory, either can make the difference
between drawing and swapping. Everything here does nothing on other systems than Linux.
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
def mapped_once(file: Path | None, own: mmap.mmap | None = None) -> Iterator[None]:
    """While the block runs and at its end, give back the pages of a file that this process has mapped and read.

    They are clean copies of the disk: the system reads a page again when it is touched again, from its own cache if
    that still holds it. Writable mappings are left alone, but for one that is ours.

    Args:
        file: whose pages are given back; None does nothing.
        own: a mapping of it into which nobody writes.
    """
    if file is None or sys.platform != "linux":
        yield
        return
    done = threading.Event()
    giver = threading.Thread(target=_give_back_until, args=(file.resolve(), own, done), name="nano-pages")
    giver.start()
    try:
        yield
    finally:
        done.set()
        giver.join()
        _give_back(file.resolve(), own)


def give_back_heap() -> None:
    """Give back freed memory that the C library keeps; see ``man 3 malloc_trim``, which only the GNU C library has."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _give_back_until(file: Path, own: mmap.mmap | None, done: threading.Event) -> None:
    """Give the pages back again and again."""
    while not done.wait(_EVERY_S):
        _give_back(file, own)


def _give_back(file: Path, own: mmap.mmap | None) -> None:
    """Give back the pages of all read-only mappings of a file (``man 2 madvise``); none if memory for that runs out."""
    with suppress(MemoryError, OSError):
        if own is not None:
            own.madvise(mmap.MADV_DONTNEED)
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for line in _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            where, permissions, *rest = line.split(maxsplit=5)
            if rest[-1] == str(file) and "w" not in permissions:
                start, end = (int(address, 16) for address in where.split("-"))
                madvise(start, end - start, mmap.MADV_DONTNEED)
