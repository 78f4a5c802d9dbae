"""The same request gives the same bytes, with whatever it is drawn, and a process does not grow with what it drew."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from nano_runtime import Pipeline

ENGINES = ("onnxruntime", pytest.param("openvino", marks=pytest.mark.slow))  # it compiles each graph for seconds
# How far a picture in [0, 1] may be from itself drawn alone. Measured: 0 for all four on AVX2. An engine may choose
# another kernel for another batch, which sums in another order; in INT8 such a sum can be rounded to the next number.
ALONE = {"fp32": 1e-5, "int8": 1e-2}


def draw(pipe: Pipeline, seed: int, count: int = 1):
    return pipe("a red fox", num_inference_steps=4, seed=seed, num_images_per_prompt=count, output_type="np").images


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("weights", [pytest.param("fp32", marks=pytest.mark.slow), "int8"])
def test_two_processes_write_the_same_file(request, tmp_path, weights, backend):
    command = [sys.executable, "-m", "nano_runtime.cli.generate", "a fox", "--bundle", request.getfixturevalue(weights),
               "--backend", backend, "--steps", "3", "--seed", "7", "--threads", "2", "-n", "2"]  # fmt: skip
    digests = []
    for run in ("first", "second"):
        folder = tmp_path / run
        folder.mkdir()
        subprocess.run([*command, "-o", folder], capture_output=True, check=True)
        digests.append([sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())])
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 2  # another seed is another file


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("weights", [pytest.param("fp32", marks=pytest.mark.slow), "int8"])
def test_a_picture_of_a_batch_is_the_one_its_seed_draws_alone(request, weights, backend):
    pipe = Pipeline.from_pretrained(request.getfixturevalue(weights), backend)
    together = draw(pipe, 5, count=4)
    alone = np.concatenate([draw(pipe, 5 + i) for i in range(4)])
    distance = float(np.abs(together - alone).max())
    print(f"{weights} on {backend}: {distance:.2g}")  # noqa: T201 - with -s
    assert distance <= ALONE[weights]
    assert np.abs(together - alone[::-1]).max() > 2 * ALONE[weights]  # other pictures are further away


# Draws and notes, after each picture, what this process holds; the last argument keeps that many bytes of each.
DRAW_MANY = """
import json, sys
from pathlib import Path

from nano_runtime import Pipeline
from nano_runtime.benchmark.cold_start import anonymous_bytes

bundle, backend, count, kept_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
pipe = Pipeline.from_pretrained(bundle, backend, threads=1)
kept, samples = [], []
for number in range(count):
    prompt = f"a fox, {number % 20}"
    pipe(prompt, num_inference_steps=1, seed=number, guidance_scale=1.0, scheduler="ddim", output_type="np")
    kept.append(b"k" * kept_bytes)
    samples.append([anonymous_bytes(), *(len(list(Path("/proc/self", folder).iterdir())) for folder in ("task", "fd"))])
print(json.dumps(samples))
"""


def draw_many(bundle: Path, backend: str, count: int, kept_bytes: int = 0) -> np.ndarray:
    """Return memory (bytes), threads and open files of a process of its own after each of its later `count // 2`.

    In a process of its own, because what other tests left behind in this one comes and goes when it likes.
    """
    command = [sys.executable, "-c", DRAW_MANY, str(bundle), backend, str(count), str(kept_bytes)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return np.array(json.loads(ended.stdout))[count // 2 :].T


def growth(memory: np.ndarray) -> float:
    """Return by how many bytes the last fifth lies above the first, each by its median."""
    fifth = len(memory) // 5
    return float(np.median(memory[-fifth:]) - np.median(memory[:fifth]))


def allowed(count: int) -> float:
    """Return how many bytes that may be: half a kB a picture would be noticed in a day."""
    return 1e6 + 500 * count


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_process_does_not_grow_with_what_it_draws(int8, backend, count):
    """The first pictures fill caches and pools; after that, memory, threads and open files stay as they are."""
    memory, threads, descriptors = draw_many(int8, backend, count)
    print(f"{backend}: {growth(memory) / 1e3:.0f} kB more after the second half of {count}")  # noqa: T201 - with -s
    assert growth(memory) < allowed(count)
    assert threads.min() == threads.max()
    assert descriptors.min() == descriptors.max()


@pytest.mark.slow
def test_a_process_that_keeps_something_of_each_picture_is_found(int8):
    memory, _, _ = draw_many(int8, "onnxruntime", count=100, kept_bytes=100_000)
    assert growth(memory) > allowed(100)
