"""Runs the long commands that build things: output into a log, its end into the error."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PeerError", "log_tail", "run_logged"]

_TAIL_LINES = 12


class PeerError(Exception):
    """A peer could not be installed, exported or run; the message ends with what it said itself."""

    def __init__(self, what: str, log: Path) -> None:
        super().__init__(f"{what}; {log} ends:\n{log_tail(log)}")


def log_tail(log: Path) -> str:
    """Return the last lines of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])


def run_logged(command: Sequence[str | Path], log: Path) -> None:
    """Run a command to its end.

    Raises:
        PeerError: it failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code != 0:
        raise PeerError(f"{' '.join(map(str, command))} failed with {code}", log)
