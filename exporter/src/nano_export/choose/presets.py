"""Chooses the shortcuts of ``balanced`` and ``fast`` by drawing: at a given cost, those nearest to exact pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from nano_export.judge.metrics import psnr_db, ssim
from nano_runtime.arrays import F32
from nano_runtime.bundle.manifest import Default, Manifest, Preset
from nano_runtime.networks.unet_calls import EXACT, Shortcuts, plan_calls
from nano_runtime.options import DrawOptions
from nano_runtime.pipeline import Pipeline

__all__ = ["PresetName", "choose_presets", "work_share"]

PresetName: TypeAlias = Literal["balanced", "fast"]

# Candidates of one preset cost about the same. Of the exact UNet's arithmetic in 20 steps, ``balanced`` spends 46 %, in
# 1 / 1.6 of the time or less, and ``fast`` 28 %, in 1 / 2.3 (bench/LOG.md). They differ in whether guidance is left out
# early or late, and in more whole calls or more guided ones. Drawing shows which suits a checkpoint best.
_CANDIDATES: dict[PresetName, tuple[Shortcuts, ...]] = {
    "balanced": (Shortcuts(2, (0.0, 0.7)), Shortcuts(2, (0.1, 0.8))),
    "fast": (Shortcuts(4, (0.0, 0.7)), Shortcuts(3, (0.0, 0.4))),
}
# With few steps, guidance that begins late costs more than that, since it needs one more whole call.
_MOST_WORK: dict[PresetName, float] = {"balanced": 0.52, "fast": 0.36}


def choose_presets(
    pipeline: Pipeline, default: Default | None, calls: Sequence[DrawOptions]
) -> Iterator[tuple[float, dict[PresetName, Preset]]]:
    """Draw the same pictures exactly and with every candidate.

    Args:
        pipeline: of a finished bundle, with graphs for caching steps.
        default: the sampler and the steps to draw with; None takes the pipeline's.
        calls: prompts to draw, and pictures that they need; the seeds of each call count up from 0.

    Yields:
        The share that is done, from 0 to 1, and the best candidate of each preset so far.
    """
    steps, scheduler = (None, None) if default is None else (default.steps, default.scheduler)
    plan = pipeline.plan(calls[0], num_inference_steps=steps, scheduler=scheduler)
    work = partial(work_share, pipeline.bundle.manifest, len(plan.calls))
    tried = [
        (name, shortcuts)
        for name, candidates in _CANDIDATES.items()
        for shortcuts in [one for one in candidates if work(one) <= _MOST_WORK[name]] or [min(candidates, key=work)]
    ]
    exact = _draw(pipeline, calls, (plan.steps, plan.scheduler), EXACT)
    best: dict[PresetName, Preset] = {}
    for index, (name, shortcuts) in enumerate(tried):
        yield (index + 1) / (len(tried) + 1), best
        pictures = _draw(pipeline, calls, (plan.steps, plan.scheduler), shortcuts)
        preset = Preset(
            cache_interval=shortcuts.cache_interval,
            guidance_interval=shortcuts.guidance_interval,
            work=round(work(shortcuts), 4),
            fidelity=_distance(pictures, exact),
        )
        if name not in best or preset.fidelity["image_psnr_db"] > best[name].fidelity["image_psnr_db"]:
            best = {**best, name: preset}
    yield 1.0, best


def work_share(manifest: Manifest, calls: int, shortcuts: Shortcuts) -> float:
    """Return the multiply-accumulates of a picture's UNet calls, as a share of those without shortcuts.

    Args:
        manifest: of the bundle.
        calls: UNet calls of a picture.
        shortcuts: how many of them are shallow, and which are guided.
    """
    guided, ways = manifest.guidance_scale > 1, 3 if manifest.task == "instruct-pix2pix" else 2
    row = {name: sum(work.macs for work in manifest.components[name].work) for name in ("unet", "unet_shallow")}

    def spent(by: Shortcuts) -> int:
        planned = plan_calls(calls, by, guided=guided, ways=ways)
        return sum(row[call.component] * call.rows(1) for call in planned)

    return spent(shortcuts) / spent(EXACT)


def _draw(pipeline: Pipeline, calls: Sequence[DrawOptions], sampling: tuple[int, str], shortcuts: Shortcuts) -> F32:
    """Return the pictures, float32 [n, height, width, 3] in [0, 1]."""
    drawn = [
        pipeline(
            call,
            num_inference_steps=sampling[0],
            scheduler=sampling[1],
            seed=0,
            cache_interval=shortcuts.cache_interval,
            guidance_interval=shortcuts.guidance_interval,
            output_type="np",
        )
        for call in calls
    ]
    return np.concatenate([np.asarray(result.images, np.float32) for result in drawn])


def _distance(pictures: F32, exact: F32) -> dict[str, float]:
    """Return the mean distances of pictures, rounded for people."""
    pairs = list(zip(pictures, exact, strict=True))
    return {
        "image_psnr_db": round(float(np.mean([psnr_db(a, e, 1.0) for a, e in pairs])), 3),
        "image_ssim": round(float(np.mean([ssim(a, e, 1.0) for a, e in pairs])), 5),
    }
