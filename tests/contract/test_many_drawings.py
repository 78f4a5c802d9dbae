"""A process that draws a thousand pictures is as large afterwards as it was early on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MANY, SOME = 1000, 200
# From the second tenth to the last one, medians. What the C library keeps of freed memory varies by a few megabytes; a
# picture of 128 pixels forgotten in each of 800 drawings is 39 MB.
MOST_GROWTH_BYTES = 15e6
# Draws with ever new prompts, now and then two pictures at once, and with everything loaded anew, and tells what it
# holds. The last argument names what to forget in every drawing.
PROGRAM = """
import json, os, sys, threading
from pathlib import Path
from nano_runtime import Pipeline
bundle, backend, cache, count, leak = sys.argv[1:]
pipe = Pipeline.from_pretrained(bundle, backend, threads=1, cache=cache)
page, held = os.sysconf("SC_PAGE_SIZE"), []
for number in range(int(count)):
    result = pipe(f"a fox, number {number}", num_inference_steps=1, guidance_scale=1, seed=number, scheduler="ddim",
                  num_images_per_prompt=2 if number % 25 == 10 else 1)
    if leak == "memory":
        held.append(result.images[0].tobytes())
    elif leak == "files":
        held.append(open(os.devnull))
    elif leak == "threads":
        held.append(threading.Event())
        threading.Thread(target=held[-1].wait, daemon=True).start()
    if number % 50 == 49:
        pipe.close()
        for thread in threading.enumerate():  # which end when they have noticed
            if thread.name.startswith("nano-"):
                thread.join()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
    print(json.dumps([resident, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))]))
for event in held if leak == "threads" else ():
    event.set()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc, where Linux tells all this"),
]


def growth(cache: Path, bundle: Path, backend: str, count: int, leak: str = "") -> dict[str, float]:
    """Return by how much a process grew between the second tenth of its drawings and the last, in medians."""
    command = [sys.executable, "-c", PROGRAM, str(bundle), backend, str(cache), str(count), leak]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(samples) == count
    early, late = samples[count // 10 : count // 5], samples[-count // 10 :]
    middles = [[sorted(column)[len(column) // 2] for column in zip(*part, strict=True)] for part in (early, late)]
    print(backend, leak, count, *middles)  # noqa: T201 - with -s
    return dict(zip(("bytes", "files", "threads"), (b - a for a, b in zip(*middles, strict=True)), strict=True))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_process_does_not_grow(tmp_path, int8, backend, full):
    grown = growth(tmp_path, int8, backend, MANY if full else SOME)
    assert grown["bytes"] < MOST_GROWTH_BYTES
    assert grown["files"] == 0
    assert grown["threads"] == 0


@pytest.mark.parametrize("leak", ["memory", "files", "threads"])
def test_forgetting_anything_in_each_drawing_is_seen(tmp_path, int8, leak):
    """The control."""
    grown = growth(tmp_path, int8, "onnxruntime", MANY if leak == "memory" else SOME, leak)
    assert grown["bytes" if leak == "memory" else leak] > (MOST_GROWTH_BYTES if leak == "memory" else 0)
