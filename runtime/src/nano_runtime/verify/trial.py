"""Tries a bundle in a child process with limits: native code may die of a crafted file, and only the child dies.

Engines and tokenizers were not written for hostile input. A crafted graph can end the process that loads it, or take
all its memory. Here that becomes an error.
"""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import BACKENDS, installed
from nano_runtime.errors import BackendMissingError, BundleError, LoaderDiedError, MachineError, NanoError
from nano_runtime.system.children import module_command
from nano_runtime.system.confined import described
from nano_runtime.system.confinement import LEAST_MEMORY, Confinement, memory_for_child

__all__ = ["REPORT_BYTES", "Limits", "engines_of", "trial_fault"]

REPORT_BYTES: Final = 1 << 20
_MAX_CHARACTERS: Final = 600


@dataclass(frozen=True)
class Limits:
    """Limits of one trial.

    Attributes:
        seconds: of wall clock, and of processor time per thread.
        memory_bytes: of address space; only systems with ``RLIMIT_AS`` enforce it (Linux does, macOS and Windows do
            not).
    """

    seconds: float
    memory_bytes: int

    @classmethod
    def of(cls, bundle: Bundle, backend: Backend) -> Limits:
        """Return generous limits.

        Memory is what the machine has for another process, and no more time is given than for weights that fit into
        it: the sizes in a manifest are whatever its author says, as a file can be one large hole.
        """
        known = memory_for_child()
        memory = LEAST_MEMORY if known is None else known
        return cls(seconds=90 + min(bundle.size_bytes(backend), memory) / 8e6, memory_bytes=memory)


def engines_of(bundle: Bundle) -> list[Backend]:
    """Return the installed engines that a bundle serves.

    Raises:
        BackendMissingError: there is none.
    """
    served = [backend for backend in BACKENDS if backend in bundle.manifest.backends]
    usable = [backend for backend in served if installed(backend)]
    if not usable:
        raise BackendMissingError(served[0])
    return usable


def trial_fault(bundle: Bundle, backend: Backend, limits: Limits) -> NanoError | None:
    """Have a child process load the tokenizer and every graph, and run each once; return the fault, or None.

    The child compares all checksums itself first. Only text is taken from it: hostile code that runs in the child can
    write a false report, and nothing else here.
    """
    within = described(Confinement(reads=(bundle.path.resolve(),)))
    arguments = [
        within,
        "nano_runtime.verify.trial_process",
        str(bundle.path.resolve()),
        bundle.digest,
        backend,
        str(limits.seconds),
        str(limits.memory_bytes),
    ]
    with TemporaryFile() as report:
        try:
            done = subprocess.run(  # noqa: S603 - our own module; paths are arguments, not commands
                [*module_command("nano_runtime.system.confined"), *arguments],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=report,
                stderr=subprocess.DEVNULL,
                timeout=limits.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            how = f"did not come to an end in {limits.seconds:.0f} s"
        else:
            how = _end(done.returncode)
        said = _read(report)
    if said.get("done") is True and how == _end(0):
        return None
    if "what" in said:
        branch = MachineError if said.get("code") == MachineError.exit_code else BundleError
        return branch(str(said["what"])[:_MAX_CHARACTERS], str(said.get("hint"))[:_MAX_CHARACTERS])
    listed = {entry.path for entry in bundle.manifest.files}
    file = said.get("file")
    return LoaderDiedError(bundle.path / file if file in listed else bundle.path, "load and run", how)


def _end(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _read(report: IO[bytes]) -> dict[str, Any]:
    """Return the last line that is JSON; the engine may print to the report too."""
    report.seek(0)
    for line in reversed(report.read(REPORT_BYTES).splitlines()):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict):
            return said
    return {}
