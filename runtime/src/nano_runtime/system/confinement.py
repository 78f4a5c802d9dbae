"""Bounds what a child process can do, before it loads an engine: it dies with its parent, and reaches only its files.

Everything here is asked of the system, which enforces it whatever native code does. Only Linux has all of it. Where a
part is missing, the others still hold, and nobody is told: the checks of a bundle stand without them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from nano_runtime.system.disk_cache import make_private
from nano_runtime.system.landlock import restrict
from nano_runtime.system.machine import memory_available_bytes, swap_free_bytes

__all__ = ["LEAST_MEMORY", "Confinement", "die_with_parent", "limit", "memory_for_child"]

LEAST_MEMORY: Final = 3 << 30
"""Bytes that a child may always have: an engine reserves more than it uses."""

_PR_SET_PDEATHSIG: Final = 1
# What Python, the loader and the engines look at to know the machine; never /etc as a whole, or other processes.
_SYSTEM: Final = (
    *("/usr", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/gnu/store", "/snap", "/run/current-system"),
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/alternatives"),
    *("/sys", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys", "/proc/filesystems"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
)
_PACKAGES: Final = (
    "numpy",
    "PIL",
    "onnxruntime",
    "openvino",
    "tokenizers",
    "msgspec",
    "blake3",
    "pyarrow",
    "nano_runtime",
)


@dataclass(frozen=True)
class Confinement:
    """What a child process may reach.

    Attributes:
        reads: files and folders, beside those of Python, its packages and the system.
        writes: folders that it also writes to; missing ones are made, for this user alone.
        memory_bytes: that it may take; None for as much as there is.
    """

    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    memory_bytes: int | None = None

    def apply(self) -> bool:
        """Bind this process, which must have no other thread yet; return whether the kernel guards its files."""
        limit("CORE", 0)
        if self.memory_bytes is not None:
            limit("DATA", self.memory_bytes)
        for folder in self.writes:
            with suppress(OSError):  # then nothing is kept
                make_private(folder)
        reads = (*map(Path, _SYSTEM), *_python(), *self.reads)
        return restrict(reads, (*self.writes, Path(os.devnull)))


def memory_for_child() -> int | None:
    """Return the bytes that a child may take: what the machine has for it, swap too; None where it does not say."""
    available = memory_available_bytes()
    return None if available is None else max(available + swap_free_bytes(), LEAST_MEMORY)


def limit(kind: str, most: int) -> None:
    """Set a resource limit of this process, where the system has such; one that is lower already stays.

    Args:
        kind: as in ``resource.RLIMIT_kind``.
        most: the limit.
    """
    try:
        import resource  # noqa: PLC0415 - does not exist on Windows
    except ImportError:
        return
    number: int | None = getattr(resource, f"RLIMIT_{kind}", None)
    if number is not None:
        hard = resource.getrlimit(number)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(number, (allowed, allowed))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, also if that is over by now.

    Args:
        parent: process id of the parent, as it knows it itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _python() -> Iterator[Path]:
    """Yield the folders of the interpreter, of what can be imported, and of libraries that the user added.

    The current folder, which ``python -m`` looks into, is none of them. Packages may be links into a store (uv), so
    where they really are counts, too; libraries of a wheel lie beside its package.
    """
    here = os.path.realpath(os.curdir)
    searched: Sequence[str] = (*sys.path, *os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    yield from (Path(one) for one in searched if one and os.path.realpath(one) != here)
    yield from map(Path, {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix})
    for name in _PACKAGES:
        with suppress(ImportError, ValueError):
            found = find_spec(name)
            if found is not None and found.origin is not None:
                package = Path(os.path.realpath(found.origin)).parent
                yield from (package, *package.parent.glob(f"{package.name}.libs"))
