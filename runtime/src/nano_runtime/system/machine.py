"""Describes this machine: processor, usable cores, instruction sets, memory, package versions.

Most of it comes from ``/proc`` and ``/sys`` on Linux. A value that another system does not tell is None, never a guess.
"""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from nano_runtime.system.processors import usable_cores

__all__ = [
    "ISA_FLAGS",
    "PACKAGES",
    "Machine",
    "describe_machine",
    "instruction_sets",
    "memory_available_bytes",
    "peak_rss_bytes",
    "swap_free_bytes",
]

ISA_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
PACKAGES = ("nano-runtime", "blake3", "numpy", "pillow", "tokenizers", "msgspec", "onnxruntime", "openvino")

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """One machine, as a benchmark reports it.

    Attributes:
        cpu: model name as the processor gives it.
        cores: performance cores this process may use.
        isa: those of ``ISA_FLAGS`` the processor has; None where the system does not say.
        memory_available_bytes: memory a new process could take now; None where the system does not say.
        system: kernel name, release and architecture.
        python: version of the interpreter.
        versions: installed versions of ``PACKAGES``.
    """

    cpu: str
    cores: int
    isa: tuple[str, ...] | None
    memory_available_bytes: int | None
    system: str
    python: str
    versions: dict[str, str]


def describe_machine() -> Machine:
    """Look at the machine this process runs on."""
    cpuinfo = _read(_CPUINFO)
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return Machine(
        cpu=model.group(1).strip() if model is not None else platform.processor() or platform.machine(),
        cores=usable_cores(),
        isa=_isa(cpuinfo),
        memory_available_bytes=memory_available_bytes(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions=_versions(),
    )


def instruction_sets() -> tuple[str, ...] | None:
    """Return those of ``ISA_FLAGS`` the processor has, or None where the system does not say."""
    return _isa(_read(_CPUINFO))


def memory_available_bytes() -> int | None:
    """Return the memory a new process could take without swapping, or None where the system does not say."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", _read(_MEMINFO), re.MULTILINE)
    if found is None:
        return None
    available = int(found.group(1)) * 1024
    limit, used = _read(_CGROUP / "memory.max").strip(), _read(_CGROUP / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        available = min(available, max(0, int(limit) - int(used)))
    return available


def swap_free_bytes() -> int:
    """Return the swap that is free; 0 where the system does not say."""
    found = re.search(r"^SwapFree:\s*(\d+) kB$", _read(_MEMINFO), re.MULTILINE)
    return 0 if found is None else int(found.group(1)) * 1024


def peak_rss_bytes() -> int | None:
    """Return the most memory this process ever had resident, or None where the system does not say.

    Linux's ``VmHWM`` is preferred to ``getrusage``, whose figure a process inherits from the one that started it.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB$", _read(_STATUS), re.MULTILINE)
    if found is not None:
        return int(found.group(1)) * 1024
    try:
        import resource  # noqa: PLC0415 - does not exist on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read(path: Path) -> str:
    """Return a pseudo-file's text; nothing where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _isa(cpuinfo: str) -> tuple[str, ...] | None:
    """Return the flags of interest from ``/proc/cpuinfo`` of an x86 machine."""
    flags = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if flags is None:
        return None
    present = set(flags.group(1).split())
    return tuple(flag for flag in ISA_FLAGS if flag in present)


def _versions() -> dict[str, str]:
    """Return the installed versions of ``PACKAGES``, read from their metadata without importing them."""
    here = {
        distribution.name.lower().replace("_", "-"): distribution.version for distribution in metadata.distributions()
    }
    return {package: here[package] for package in PACKAGES if package in here}
