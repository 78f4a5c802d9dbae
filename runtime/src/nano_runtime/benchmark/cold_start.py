"""Times a fresh ``nano-generate`` process from its start to its first picture, and watches its memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nano_runtime.errors import WorkerDiedError
from nano_runtime.system.children import module_command
from nano_runtime.system.timing import Stopwatch

__all__ = ["Start", "anonymous_bytes", "start"]

_LOOK_EVERY_S = 0.01


@dataclass(frozen=True)
class Start:
    """One fresh process.

    Attributes:
        first_png_ms: milliseconds from the start of the process to its first file, within 10.
        peak_rss_bytes: peak of its resident memory, mapped files included; None where the system does not say.
        peak_anonymous_bytes: peak of the resident memory that no file backs, which the system cannot take back without
            swapping, of it and its child together, read every 10 ms; None where the system does not say.
    """

    first_png_ms: float
    peak_rss_bytes: int | None
    peak_anonymous_bytes: int | None


def start(*arguments: str) -> Start:
    """Run ``nano-generate`` with these arguments and an output and seed of its own, and watch it.

    Raises:
        WorkerDiedError: it failed.
    """
    with TemporaryDirectory(prefix="nano-start-") as folder:
        command = [*module_command("nano_runtime.cli.generate"), *arguments]
        command += ["--seed", "0", "--output", folder, "--json"]
        first = Path(folder) / "nano-0.png"
        first_png_ms: float | None = None
        anonymous: list[int] = []
        watch = Stopwatch()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603
            try:
                while process.poll() is None:
                    time.sleep(_LOOK_EVERY_S)
                    if first_png_ms is None and first.exists():
                        first_png_ms = watch.timings().total_ms
                    now = [anonymous_bytes(one) for one in (process.pid, *_children(process.pid))]
                    if now[0] is not None:
                        anonymous.append(sum(bytes_ for bytes_ in now if bytes_ is not None))
                report, _ = process.communicate()
            finally:
                process.kill()
        if process.returncode != 0 or not first.exists():
            raise WorkerDiedError(f"nano-generate {' '.join(arguments)}", process.returncode)
        return Start(
            first_png_ms=watch.timings().total_ms if first_png_ms is None else first_png_ms,
            peak_rss_bytes=json.loads(report)["peak_rss_bytes"],
            peak_anonymous_bytes=max(anonymous, default=None),
        )


def _children(process: int) -> list[int]:
    """Return the children of a process; none where the system does not say."""
    try:
        return [*map(int, Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split())]
    except OSError:
        return []


def anonymous_bytes(process: int | None = None) -> int | None:
    """Return the resident memory of a process that no file backs; None where the system does not say, or it is gone.

    Args:
        process: its number; None means this one.
    """
    try:
        status = Path(f"/proc/{os.getpid() if process is None else process}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^RssAnon:\s*(\d+) kB$", status, re.MULTILINE)
    return None if found is None else int(found.group(1)) * 1024
