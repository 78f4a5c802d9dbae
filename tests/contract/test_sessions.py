"""What a pipeline may rely on when it runs a graph again: inputs are read where they are, outputs are the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from nano_runtime.backends import BACKENDS, EngineOptions
from nano_runtime.bundle import Bundle
from nano_runtime.stages import Stages
from nano_runtime.timing import Stopwatch

BATCH = 2
FREE = {"batch": BATCH, "tokens": 77}


@pytest.fixture(scope="module", params=BACKENDS)
def stages(request, fp32) -> Iterator[Stages]:
    stages = Stages(Bundle.open(fp32), request.param, EngineOptions(threads=1, precision="f32"))
    yield stages
    stages.close()


def inputs(stages: Stages, seed: int) -> dict[str, np.ndarray]:
    """Random values for all inputs of the UNet."""
    rng = np.random.default_rng(seed)
    shapes = {
        spec.name: [FREE[size] if isinstance(size, str) else size for size in spec.shape]
        for spec in stages.bundle.component("unet").inputs
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def run(stages: Stages, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return stages.run("unet", feeds, Stopwatch(), batch=BATCH)["out_sample"]


def test_every_input_is_read_at_every_run(stages):
    """Written into or replaced: the result is that of the values at the time of the call."""
    feeds, others = inputs(stages, 1), inputs(stages, 2)
    expected = run(stages, {name: array.copy() for name, array in others.items()})
    outputs = [run(stages, feeds)]
    for turn, name in enumerate(others):
        if turn % 2:
            feeds[name] = others[name]
        else:
            feeds[name][:] = others[name]
        outputs.append(run(stages, feeds))
    np.testing.assert_array_equal(outputs[-1], expected)
    changed = [not np.array_equal(one, other) for one, other in pairwise(outputs)]
    assert sum(changed) > 0.9 * len(others)  # a bias of the first layer's channels is normalized away


def test_outputs_are_new_arrays(stages):
    first = run(stages, inputs(stages, 1))
    kept = first.copy()
    second = run(stages, inputs(stages, 2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)


def test_arrays_need_not_be_contiguous(stages):
    feeds, others = inputs(stages, 1), inputs(stages, 2)
    expected = [run(stages, feeds), run(stages, others)]
    backwards = {name: np.ascontiguousarray(np.moveaxis(array, 0, -1)) for name, array in feeds.items()}
    views = {name: np.moveaxis(array, -1, 0) for name, array in backwards.items()}
    assert not any(view.flags.c_contiguous for view in views.values() if view.shape[0] > 1)
    np.testing.assert_array_equal(run(stages, views), expected[0])
    for name, array in backwards.items():
        array[:] = np.moveaxis(others[name], 0, -1)
    np.testing.assert_array_equal(run(stages, views), expected[1])


def test_the_prompt_may_be_of_any_length(stages):
    """Attention does not know the order of what it attends to, and what is there twice counts as once."""
    feeds = inputs(stages, 1)
    expected = run(stages, feeds)
    axes = {
        spec.name: spec.shape.index("tokens")
        for spec in stages.bundle.component("unet").inputs
        if "tokens" in spec.shape
    }
    assert len(axes) == 2 * 10  # keys and values

    def longer(name: str, other: np.ndarray) -> np.ndarray:
        return np.concatenate([other, feeds[name]], axes[name]) if name in axes else feeds[name]

    twice = run(stages, {name: longer(name, feeds[name]) for name in feeds})
    assert np.abs(twice - expected).max() < 1e-5 * np.abs(expected).max()  # sums in another order
    others = inputs(stages, 2)
    more = run(stages, {name: longer(name, others[name]) for name in feeds})
    assert np.abs(more - expected).max() > 1e-3 * np.abs(expected).max()
    assert len(stages._loaded) == 1  # noqa: SLF001 - what holds the weights


def test_another_batch_replaces_the_graph(stages):
    """The weights are in memory once, whatever was drawn before."""
    assert stages.loaded == {"unet"}
    alone = {name: array[:1] for name, array in inputs(stages, 1).items()}
    output = stages.run("unet", alone, Stopwatch(), batch=1)["out_sample"]
    assert output.shape[0] == 1
    assert stages.loaded == {"unet"}
    assert len(stages._loaded) == 1  # noqa: SLF001 - what holds the weights
