"""Draws the calibration calls with a float bundle: whatever wraps its runner sees real runs of a checkpoint.

The text encoder sees more than the prompts of these calls. What a word makes large, only that word makes large, and
what is beyond a range is cut off: a prompt with one such word was 7 dB worse than the others (bench/LOG.md). So it
reads some prompts full of words from all over the vocabulary, too. They need no UNet, and cost little.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import INPUT_IDS, TEXT_ENCODER, VAE_ENCODER
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

_WORD_PROMPTS = 8  # three times as many: no better (bench/LOG.md)


def draw(bundle: Path, calls: Sequence[DrawOptions], steps: int, around: Callable[[Runner], Runner]) -> Iterator[float]:
    """Make all calls, and encode their pictures: trajectories spread over timesteps, with and without the prompt.

    The text encoder reads words from all over the vocabulary as well.

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
    runner = around(graphs)
    for ids in _words(graphs.bundle):
        runner.run(TEXT_ENCODER, {INPUT_IDS: ids}, batch=1)
    scheduler = _even_sampler(graphs.bundle.manifest.scheduler)
    for done, call in enumerate(calls):
        for event in pipeline.stream(call, num_inference_steps=steps, seed=0, scheduler=scheduler, output_type="np"):
            if isinstance(event, Result):
                for picture in np.asarray(event.images):
                    sample = np.ascontiguousarray(picture.transpose(2, 0, 1)[np.newaxis] * 2 - 1, np.float32)
                    runner.run(VAE_ENCODER, {"sample": sample}, batch=1)
                yield (done + 1) / len(calls)
            else:
                yield (done + event.call / event.calls) / len(calls)
    graphs.close()


def _words(bundle: Bundle) -> Iterator[NDArray[np.int64]]:
    """Yield prompts, int64 [1, length], of words drawn from the vocabulary; each as often as the others."""
    spec = bundle.manifest.tokenizer
    vocabulary = json.loads((bundle.path / spec.file).read_bytes())["model"]["vocab"]
    words = sorted(set(vocabulary.values()) - {spec.bos_id, spec.eos_id, spec.pad_id})
    rng = np.random.default_rng(0)
    for _ in range(_WORD_PROMPTS if words else 0):
        yield np.array([[spec.bos_id, *rng.choice(words, spec.length - 2), spec.eos_id]], np.int64)


def _even_sampler(config: Mapping[str, Any]) -> str:
    """Return the name of the sampler that draws."""
    schedule = Schedule.from_config(config)
    try:
        settings = schedule.settings(RECORDS["ddim"])
        make_sampler("ddim", schedule, 1)
    except UnsupportedScheduleError:
        return FALLBACK
    return FALLBACK if settings.clip_sample or settings.thresholding else "ddim"
