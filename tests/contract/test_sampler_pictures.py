"""Whole pictures of every sampler against diffusers' own pipeline, those that add noise with the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product

import numpy as np
import pytest
from bench.parity import GUIDANCE, REFERENCES, SEED, SPREAD_NAMES, Drawing, distance

from nano_export.judge.original import diffusers_pipeline
from nano_export.source import builtin
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import BACKENDS
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.noise import randn
from nano_runtime.sampling.samplers import SAMPLERS

# Few steps on one engine, and one sampler for each way to spread the noise levels; all of it with `make test-slow`.
FEW = 5
QUICK = (*SAMPLERS, "dpmpp_2m_karras", "euler_exponential", "unipc_beta")
EVERY = product((*SAMPLERS, *SPREAD_NAMES), (20,), (GUIDANCE, 1.0))
# Of the largest latent. Engines sum in another order than torch, and guidance magnifies the difference 7.5 times in
# each call; python -m bench.parity prints every distance.
TOLERANCE = 1e-4
# What every deliberate mistake must exceed.
MISTAKE = 100 * TOLERANCE


@pytest.fixture(scope="module")
def theirs() -> Callable[[Drawing], np.ndarray]:
    """What diffusers draws, each picture once."""
    parts = builtin.build("tiny")
    pipeline = diffusers_pipeline(parts)
    return cache(lambda drawing: drawing.theirs(pipeline, parts.scheduler))


@pytest.fixture(scope="module")
def pipes(fp32) -> Iterator[dict[Backend, Pipeline]]:
    made = {backend: Pipeline.from_pretrained(fp32, backend) for backend in BACKENDS}
    yield made
    for pipe in made.values():
        pipe.close()


@pytest.mark.parametrize("name", QUICK)
def test_pictures_are_diffusers(pipes, theirs, name):
    drawing = Drawing(name, FEW)
    assert distance([drawing.ours(pipes["onnxruntime"])], [theirs(drawing)]) < TOLERANCE
    assert distance([drawing.ours(pipes["onnxruntime"], SEED + 1)], [theirs(drawing)]) > MISTAKE


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("drawing", [Drawing(*one) for one in EVERY], ids=str)
def test_longer_pictures_are_diffusers(pipes, theirs, drawing, backend):
    assert distance([drawing.ours(pipes[backend])], [theirs(drawing)]) < TOLERANCE
    assert distance([drawing.ours(pipes[backend], SEED + 1)], [theirs(drawing)]) > MISTAKE


def test_no_sampler_draws_another_ones_picture(pipes, theirs):
    """Negative control: one sampler in place of another would be noticed above.

    The nearest two are ddim_a and ddpm, which are one but for the last step: 29 times the tolerance.
    """
    mine = {name: Drawing(name, FEW).ours(pipes["onnxruntime"]) for name in QUICK}
    apart = {(a, b): distance([mine[a]], [theirs(Drawing(b, FEW))]) for a, b in product(QUICK, QUICK) if a != b}
    assert min(apart.values()) > 10 * TOLERANCE, min(apart, key=apart.__getitem__)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_noise_on_the_way_counts(pipes, theirs, name):
    """Negative control: the first noise alone makes the pictures of samplers that add none, and of no others."""
    expected = theirs(Drawing(name, FEW))
    mine = Drawing(name, FEW).ours(pipes["onnxruntime"], SEED + 1, randn(SEED, expected.shape))
    far = distance([mine], [expected])
    assert far > MISTAKE if REFERENCES[name].noisy else far < TOLERANCE
