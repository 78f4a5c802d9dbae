"""The far end of a worker: answers one line of JSON with another, so that any library can be timed by the same driver.

A worker runs in its library's own environment and needs no more than numpy and Pillow besides. It is started as
``python workers/NAME.py`` and reads from standard input:

    {"model": DIR, "noise": FILE, "threads": 2, "steps": 20, "guidance": 7.5, "size": 128, "cache": null, "options": {}}
        loads the model; answers {"load_ms": ...}
    {"prompt": TEXT, "noise_index": 0, "png": FILE}
        draws and, after the clock has stopped, saves; answers {"draw_ms": ..., "calls": ..., "peak_rss_bytes": ...}

It ends with its input. What libraries print goes to standard error, whatever way they print it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Draw", "Job", "Picture", "serve"]


@dataclass(frozen=True)
class Job:
    """What to load, and how to draw.

    Attributes:
        model: folder in the library's own format.
        noise: .npy file, float32 [n, 4, size/8, size/8], unit variance: what the pictures start from.
        threads: processor threads.
        steps: of the checkpoint's own scheduler, PNDM; 0 leaves sampler and steps to the worker.
        guidance: scale of classifier-free guidance.
        size: height and width in pixels.
        cache: folder for what the library compiles, None for no cache.
        options: what distinguishes several peers of one library, defined by its worker.
    """

    model: Path
    noise: Path
    threads: int
    steps: int
    guidance: float
    size: int
    cache: Path | None
    options: dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """What was drawn, uint8 [size, size, 3], and how often the UNet ran for it, as counted while it ran."""

    pixels: NDArray[np.uint8]
    calls: int


Draw = Callable[[str, NDArray[np.float32]], Picture]
"""Draws a prompt from noise, float32 [1, 4, size/8, size/8]."""


def serve(load: Callable[[Job], Draw]) -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries written in C++ print to the descriptor itself
    sys.stdout = sys.stderr

    def answer(**content: float) -> None:
        print(json.dumps(content), file=answers, flush=True)

    job = json.loads(sys.stdin.readline())
    job.update({key: None if job[key] is None else Path(job[key]) for key in ("model", "noise", "cache")})
    job = Job(**job)
    noise = np.load(job.noise)
    start = perf_counter()
    draw = load(job)
    answer(load_ms=(perf_counter() - start) * 1e3)
    for line in sys.stdin:
        request = json.loads(line)
        start = perf_counter()
        picture = draw(request["prompt"], noise[request["noise_index"]][np.newaxis])
        draw_ms = (perf_counter() - start) * 1e3
        Image.fromarray(picture.pixels).save(request["png"], format="PNG")
        answer(draw_ms=draw_ms, calls=picture.calls, peak_rss_bytes=_peak_rss_bytes())


def _peak_rss_bytes() -> int:
    """Return the most memory this process ever had resident (Linux: VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    assert found is not None, "the driver needs Linux"  # noqa: S101 - stated in its help
    return int(found[1]) * 1024
