"""What a pipeline may rely on when it runs a graph again: inputs are read where they are, outputs are the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

import nano_runtime.engines.loaded_graphs
from nano_runtime.bundle.folder import Bundle
from nano_runtime.engines import BACKENDS, EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import OutOfMemoryError

BATCH = 2
FREE = {"batch": BATCH, "tokens": 77}


@pytest.fixture(scope="module", params=BACKENDS)
def stages(request, fp32, compiled) -> Iterator[LoadedGraphs]:
    options = EngineOptions(threads=1, precision="f32", cache=compiled)
    stages = LoadedGraphs(Bundle.open(fp32), request.param, options)
    yield stages
    stages.close()


def inputs(stages: LoadedGraphs, seed: int) -> dict[str, np.ndarray]:
    """Random values for all inputs of the UNet."""
    rng = np.random.default_rng(seed)
    shapes = {
        spec.name: [FREE[size] if isinstance(size, str) else size for size in spec.shape]
        for spec in stages.bundle.component("unet").inputs
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def run(stages: LoadedGraphs, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return stages.run("unet", feeds, batch=BATCH)["out_sample"]


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
    output = stages.run("unet", alone, batch=1)["out_sample"]
    assert output.shape[0] == 1
    assert stages.loaded == {"unet"}
    assert len(stages._loaded) == 1  # noqa: SLF001 - what holds the weights


@pytest.fixture
def opened(monkeypatch) -> list[tuple[str, int]]:
    """Name and batch of every graph that is loaded, in any thread."""
    graphs: list[tuple[str, int]] = []
    open_session = nano_runtime.engines.open_session

    def noted(backend, graph, *, batch, **others):
        session = open_session(backend, graph, batch=batch, **others)
        graphs.append((graph.model.parent.name, batch))
        return session

    monkeypatch.setattr(nano_runtime.engines.loaded_graphs, "open_session", noted)
    return graphs


@pytest.fixture
def fresh(stages) -> Iterator[LoadedGraphs]:
    yield (other := LoadedGraphs(stages.bundle, stages.backend, stages.options))
    other.close()


def test_what_is_loaded_ahead_is_what_runs(stages, fresh, opened):
    feeds = inputs(stages, 1)
    expected = run(stages, feeds)
    opened.clear()
    fresh.load_ahead("unet", batch=BATCH, tokens=FREE["tokens"])
    np.testing.assert_array_equal(run(fresh, feeds), expected)
    fresh.load_ahead("unet", batch=BATCH, tokens=FREE["tokens"])  # it is there
    run(fresh, feeds)
    assert opened == [("unet", BATCH)]


def test_what_was_loaded_ahead_for_another_batch_is_not_used(stages, fresh, opened):
    fresh.load_ahead("unet", batch=BATCH + 1, tokens=FREE["tokens"])
    assert run(fresh, inputs(stages, 1)).shape[0] == BATCH
    assert opened == [("unet", BATCH + 1), ("unet", BATCH)]
    assert not fresh._ahead  # noqa: SLF001 - what would hold the weights


@pytest.mark.parametrize("refused", ["open", "run"])
def test_what_was_loaded_ahead_goes_where_memory_runs_out(stages, fresh, monkeypatch, refused):
    """The decoder is in the way of the UNet, in every thread, until it is let go."""
    feeds = inputs(stages, 1)
    expected = run(stages, feeds)
    fresh.load_ahead("vae_decoder", batch=1)
    kept = type(fresh._ahead["vae_decoder"][1].result())  # noqa: SLF001

    def refuse(original):
        def refusing(*arguments, **options):
            if fresh._ahead.get("vae_decoder"):  # noqa: SLF001
                raise MemoryError
            return original(*arguments, **options)

        return refusing

    if refused == "run":
        monkeypatch.setattr(kept, "run", refuse(kept.run))
    else:
        module = nano_runtime.engines.loaded_graphs
        monkeypatch.setattr(module, "open_session", out_of_memory(refuse(nano_runtime.engines.open_session)))
        fresh.load_ahead("unet", batch=BATCH, tokens=FREE["tokens"])
    np.testing.assert_array_equal(run(fresh, feeds), expected)
    monkeypatch.setattr(kept, "run", raising)
    with pytest.raises(OutOfMemoryError):  # control: nothing is there that could go
        run(fresh, feeds)


def out_of_memory(action):
    """As ``open_session`` tells of it."""

    def telling(*arguments, **options):
        try:
            return action(*arguments, **options)
        except MemoryError as error:
            raise OutOfMemoryError("loading a graph") from error

    return telling


def raising(*_arguments):
    raise MemoryError
