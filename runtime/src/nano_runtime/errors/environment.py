"""Errors of this machine, which lacks something: exit code 4."""

from __future__ import annotations

import errno
from pathlib import Path

from nano_runtime.errors.branches import MachineError
from nano_runtime.errors.wording import how_to_install

__all__ = [
    "BackendMissingError",
    "DiskSpaceError",
    "KilledError",
    "NoProcessError",
    "NotEnoughMemoryError",
    "OutOfMemoryError",
    "OutputError",
    "SigningMissingError",
    "WorkerDiedError",
]


class BackendMissingError(MachineError, ImportError):
    """The engine's package is not installed."""

    def __init__(self, backend: str) -> None:
        super().__init__(
            f"the engine {backend} is not installed",
            how_to_install(backend, backend),
        )


class SigningMissingError(MachineError, ImportError):
    """The package that signs and verifies is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "signatures need the package model-signing, which is not installed",
            how_to_install("signing", "model-signing", "pyopenssl"),
        )


class DiskSpaceError(MachineError, OSError):
    """Too little disk space to finish."""

    def __init__(self, path: Path, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"{path} has {free_bytes / 1e9:.2f} GB free, {needed_bytes / 1e9:.2f} GB are needed",
            "Free some space, or choose an output folder on another disk.",
        )


class NotEnoughMemoryError(MachineError, MemoryError):
    """Too little memory to begin."""

    def __init__(self, what: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"{what} needs {needed_bytes / 1e9:.2f} GB of memory, {free_bytes / 1e9:.2f} GB are available",
            "Close other programs, or use a machine with more memory.",
        )


class OutOfMemoryError(MachineError, MemoryError):
    """Memory ran out in the middle of the work."""

    def __init__(self, doing: str) -> None:
        super().__init__(
            f"memory ran out while {doing}",
            "Close other programs, raise this process's memory limit if it has one, or draw fewer pictures at once.",
        )


class OutputError(MachineError, OSError):
    """A file or folder that cannot be written, for a reason of ours or of the system's."""

    def __init__(self, path: Path, why: str | OSError) -> None:
        full = isinstance(why, OSError) and why.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = why if isinstance(why, str) else why.strerror or str(why) or type(why).__name__
        advice = "Free some space, or choose a path on another disk." if full else "Choose another output path."
        super().__init__(f"{path} cannot be written: {reason}", advice)


class KilledError(MachineError, ChildProcessError):
    """A drawing whose process the caller ended."""

    def __init__(self) -> None:
        super().__init__("the drawing was ended by kill()", "Draw again: the next call starts a new process.")


class NoProcessError(MachineError, ChildProcessError):
    """A process that cannot be started."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no process can be started: {why}", "Close other programs, and try again.")


class WorkerDiedError(MachineError, ChildProcessError):
    """A process that this program started, and that ended without an answer."""

    def __init__(self, work: str, exit_code: int | None) -> None:
        end = f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
        super().__init__(
            f"the process for {work} ended without an answer ({end})",
            "Signal 9 usually means too little memory: close other programs, or measure fewer bundles at once.",
        )
