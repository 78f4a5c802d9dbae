"""Whether a bundle can be opened and run at all, found out in a process that may die of it.

Engines and tokenizers are native code that was not written for hostile input: a crafted graph can end the process that
loads it, or take all its memory. Here that process is another one, with limits, and its end becomes an error.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import BACKENDS, installed
from nano_runtime.errors import BackendMissingError, BundleError, LoaderDiedError, MachineError, NanoError

__all__ = ["REPORT_BYTES", "Limits", "deep_fault", "engines_of"]

REPORT_BYTES: Final = 1 << 20
_MAX_CHARACTERS: Final = 600


@dataclass(frozen=True)
class Limits:
    """What one attempt may take.

    Attributes:
        seconds: of wall clock, and of processor time per thread.
        memory_bytes: of address space; only systems with ``RLIMIT_AS`` hold to it (Linux does, macOS and Windows do
            not).
    """

    seconds: float
    memory_bytes: int

    @classmethod
    def of(cls, bundle: Bundle, backend: Backend) -> Limits:
        """Be generous: the full-size INT8 bundle needs a seventh of this time, and less than half of the memory."""
        size = bundle.size_bytes(backend)
        return cls(seconds=60 + size / 20e6, memory_bytes=(2 << 30) + 3 * size)


def engines_of(bundle: Bundle) -> list[Backend]:
    """Return the engines that a bundle serves and that are installed.

    Raises:
        BackendMissingError: there is none.
    """
    served = [backend for backend in BACKENDS if backend in bundle.manifest.backends]
    usable = [backend for backend in served if installed(backend)]
    if not usable:
        raise BackendMissingError(served[0])
    return usable


def deep_fault(bundle: Bundle, backend: Backend, limits: Limits) -> NanoError | None:
    """Have another process load every graph and the tokenizer, and run each once; return what went wrong.

    The other process checks all checksums itself before, and is believed nothing but text: should hostile code run in
    it, the report is all it has here.
    """
    arguments = [str(bundle.path.resolve()), bundle.digest, backend, str(limits.seconds), str(limits.memory_bytes)]
    with TemporaryFile() as report:
        try:
            done = subprocess.run(  # noqa: S603 - our own module; paths are arguments, not commands
                [sys.executable, "-m", "nano_runtime.verify.trial_process", *arguments],
                # A module in the current folder, which may be the bundle, would be imported instead of the real one.
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
    """Return the last line of a report that can be read; the engine may have printed between them."""
    report.seek(0)
    for line in reversed(report.read(REPORT_BYTES).splitlines()):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict):
            return said
    return {}
