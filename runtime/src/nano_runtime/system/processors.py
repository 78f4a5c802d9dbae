"""Counts the processors that this process may use, and the cores of them that are worth a thread.

A step of a network waits for its slowest thread, so efficiency cores and second threads of a core slow it down. The
default is one thread for each performance core. Sources are the system's own tables: ``/sys`` and ``/proc`` on Linux
(``cpu_core/cpus`` of Intel's hybrid processors, ``cpu_capacity`` of ARM's), ``hw.perflevel0.physicalcpu`` on macOS, and
``GetLogicalProcessorInformationEx`` on Windows. Where they are silent, every processor counts.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from nano_runtime.errors.wording import shown

__all__ = ["most_threads", "thread_count", "usable_cores"]

_ROOT = Path("/")
_LARGE = 0.5  # of the largest capacity: cores below it are efficiency cores; big.LITTLE's have a quarter to a third

# Windows: winnt.h, SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX
_PROCESSOR_CORE = 0  # RelationProcessorCore
_HEADER, _CORE, _GROUP = struct.Struct("<II"), struct.Struct("<BB20xH"), struct.Struct("<QH6x")

_log = logging.getLogger(__name__)


def thread_count(asked: int | None) -> int:
    """Return the number of threads to compute with: as many as asked for, but no more than there are processors.

    More threads than processors wait for each other: 64 on two cores took 33 s for a picture of 2 s.

    Args:
        asked: at least 1; None takes ``usable_cores``.
    """
    if asked is None:
        return usable_cores()
    if asked > (most := most_threads()):
        plural = "processor" if most == 1 else "processors"
        instead = f"{most} threads instead of {shown(asked)}"
        _log.warning("this process may use %d %s, so it runs %s", most, plural, instead)
        return most
    return asked


def usable_cores(root: Path = _ROOT) -> int:
    """Return the performance cores that this process may use: by affinity, then by the container's quota; at least 1.

    Args:
        root: of the file system with ``/proc`` and ``/sys``.
    """
    if sys.platform == "darwin":
        return max(1, _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or os.cpu_count() or 1)
    if sys.platform == "win32":
        return max(1, _windows_cores() or os.cpu_count() or 1)
    cores = _physical(_read(root / "proc/cpuinfo"), _performance(root, _allowed()))
    return max(1, min(cores, math.floor(_quota(root))) if math.isfinite(_quota(root)) else cores)


def most_threads(root: Path = _ROOT) -> int:
    """Return the processors that this process may use, second threads of a core included; at least 1."""
    return max(1, min(len(_allowed()), math.ceil(_quota(root))) if math.isfinite(_quota(root)) else len(_allowed()))


def _allowed() -> set[int]:
    """Return the numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _performance(root: Path, allowed: set[int]) -> set[int]:
    """Return those of the allowed processors that are not of the slow kind; all where there are no kinds."""
    devices = root / "sys/devices"
    if fast := allowed & _listed(_read(devices / "cpu_core/cpus")):
        return fast
    capacities = {number: _read(devices / f"system/cpu/cpu{number}/cpu_capacity").strip() for number in allowed}
    known = {number: int(text) for number, text in capacities.items() if text.isdigit()}
    if len(known) < len(allowed):
        return allowed
    return {number for number, capacity in known.items() if capacity >= _LARGE * max(known.values())}


def _listed(text: str) -> set[int]:
    """Return the numbers of a list as the kernel writes it: ``0-3,8``."""
    found = re.findall(r"(\d+)(?:-(\d+))?", text)
    return {number for first, last in found for number in range(int(first), int(last or first) + 1)}


def _physical(cpuinfo: str, allowed: set[int]) -> int:
    """Count the (package, core) pairs behind the allowed logical processors; the processors where pairs are unknown."""
    pairs = set()
    for block in cpuinfo.split("\n\n"):
        fields = dict(re.findall(r"^(processor|physical id|core id)\s*:\s*(\d+)$", block, re.MULTILINE))
        if len(fields) == len(("processor", "physical id", "core id")) and int(fields["processor"]) in allowed:
            pairs.add((fields["physical id"], fields["core id"]))
    return len(pairs) or len(allowed)


def _quota(root: Path) -> float:
    """Return the processors' time that this process's control groups allow, in processors; infinite for no limit.

    A group has the limits of all above it. Inside a container its own group is the root of what it sees.
    """
    found = [math.inf]
    for line in _read(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        base = root / "sys/fs/cgroup"
        for folder in _upwards(path):
            if not controllers:
                found.append(_share(_read(base / folder / "cpu.max")))
            elif "cpu" in controllers.split(","):
                for name in ("cpu", controllers):
                    numbers = (_read(base / name / folder / f"cpu.cfs_{of}_us").strip() for of in ("quota", "period"))
                    found.append(_share(" ".join(numbers)))
    return min(found)


def _upwards(path: str) -> Iterator[str]:
    """Yield a group's path below the root of all groups, and those of the groups above it."""
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    for length in range(len(parts), -1, -1):
        yield "/".join(parts[:length])


def _share(text: str) -> float:
    """Return the processors of a line "quota period", both in microseconds; infinite for no limit."""
    found = re.match(r"(\d+) ([1-9]\d*)", text)
    return math.inf if found is None else int(found.group(1)) / int(found.group(2))


def _sysctl(name: str) -> int | None:
    """Return a whole number that macOS's kernel knows by a name; None where there is none."""
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    try:
        answer = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    except (AttributeError, OSError):
        return None
    return value.value if answer == 0 and value.value > 0 else None


def _windows_cores() -> int | None:
    """Return the performance cores of this process on Windows; None where the system does not say."""
    try:
        kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
        size = ctypes.c_ulong(0)
        kernel.GetLogicalProcessorInformationEx(_PROCESSOR_CORE, None, ctypes.byref(size))
        table = ctypes.create_string_buffer(size.value)
        if not kernel.GetLogicalProcessorInformationEx(_PROCESSOR_CORE, table, ctypes.byref(size)):
            return None
        own, all_of_them = ctypes.c_size_t(0), ctypes.c_size_t(0)
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        process = ctypes.c_void_p(kernel.GetCurrentProcess())
        kernel.GetProcessAffinityMask(process, ctypes.byref(own), ctypes.byref(all_of_them))
    except (AttributeError, OSError):
        return None
    return _fastest_cores(table.raw, own.value)


def _fastest_cores(table: bytes, mask: int) -> int:
    """Count the cores of the highest efficiency class in Windows' table, which is the fastest.

    Args:
        table: records of ``SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX`` for cores.
        mask: bits of the processors of group 0 that may be used; 0 where the process is in several groups.
    """
    classes: list[int] = []
    place = 0
    while place + _HEADER.size <= len(table):
        kind, size = _HEADER.unpack_from(table, place)
        if size <= 0:
            break
        if kind == _PROCESSOR_CORE:
            _, efficiency, _count = _CORE.unpack_from(table, place + _HEADER.size)
            bits, group = _GROUP.unpack_from(table, place + _HEADER.size + _CORE.size)
            if mask == 0 or (group == 0 and bits & mask):
                classes.append(efficiency)
        place += size
    return classes.count(max(classes)) if classes else 0


def _read(path: Path) -> str:
    """Return a pseudo-file's text; nothing where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
