"""Percentiles are numpy's, and a stopwatch keeps what it timed."""

from __future__ import annotations

import numpy as np
import pytest

from nano_runtime.system.timing import Stopwatch, percentile


@pytest.mark.parametrize("count", [1, 2, 3, 10, 21])
@pytest.mark.parametrize("percent", [0, 10, 50, 90, 99, 100])
def test_percentiles_are_numpys(count, percent):
    samples = np.random.default_rng(count).random(count).tolist()
    assert percentile(samples, percent) == pytest.approx(np.percentile(samples, percent), rel=1e-12)


def test_samples_keep_kind_name_and_order():
    watch = Stopwatch()
    for kind, name in (("load", "unet"), ("run", "unet"), ("run", "unet")):
        with watch.time(kind, name):
            pass
    timings = watch.timings()
    assert {name: len(samples) for name, samples in timings.run_ms.items()} == {"unet": 2}
    assert timings.load_ms.keys() == {"unet"}
    assert timings.verify_ms == {}
    assert timings.total_ms >= sum(timings.run_ms["unet"]) + sum(timings.load_ms["unet"]) > 0


def test_what_failed_is_no_sample():
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch.time("run", "unet"):
        _ = 1 / 0
    assert watch.timings().run_ms == {}
