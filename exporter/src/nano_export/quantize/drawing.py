"""Draws the calibration calls with a float bundle: whatever wraps its runner sees real runs of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nano_runtime.bundle.folder import Bundle
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.base import Runner
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.options import DrawOptions
from nano_runtime.pipeline import Pipeline, Result
from nano_runtime.sampling.samplers import FALLBACK, RECORDS, make_sampler
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.system.processors import usable_cores

__all__ = ["draw"]


def draw(bundle: Path, calls: Sequence[DrawOptions], steps: int, around: Callable[[Runner], Runner]) -> Iterator[float]:
    """Make all calls, and encode their pictures: trajectories spread over timesteps, with and without the prompt.

    Args:
        bundle: a float bundle; its onnxruntime graphs run.
        calls: prompts to draw, and pictures that they need; the seeds of each call count up from 0.
        steps: UNet steps of a picture, by DDIM, which spreads them evenly over all timesteps; or by the sampler that
            follows every schedule, if DDIM cannot follow this one, or would clip the picture.
        around: wraps the runner of the graphs.

    Yields:
        The share that is done, from 0 to 1.

    Raises:
        BundleError: a graph computed NaN or infinity.
    """
    graphs = LoadedGraphs(Bundle.open(bundle), "onnxruntime", EngineOptions(threads=usable_cores(), precision="f32"))
    pipeline = Pipeline(graphs, keep_loaded=False, around=around)
    encoder = around(graphs)
    scheduler = _even_sampler(graphs.bundle.manifest.scheduler)
    for done, call in enumerate(calls):
        for event in pipeline.stream(call, num_inference_steps=steps, seed=0, scheduler=scheduler, output_type="np"):
            if isinstance(event, Result):
                for picture in np.asarray(event.images):
                    sample = np.ascontiguousarray(picture.transpose(2, 0, 1)[np.newaxis] * 2 - 1, np.float32)
                    encoder.run("vae_encoder", {"sample": sample}, batch=1)
                yield (done + 1) / len(calls)
            else:
                yield (done + event.call / event.calls) / len(calls)
    graphs.close()


def _even_sampler(config: Mapping[str, Any]) -> str:
    """Return the name of the sampler that draws."""
    schedule = Schedule.from_config(config)
    try:
        settings = schedule.settings(RECORDS["ddim"])
        make_sampler("ddim", schedule, 1)
    except UnsupportedScheduleError:
        return FALLBACK
    return FALLBACK if settings.clip_sample or settings.thresholding else "ddim"
