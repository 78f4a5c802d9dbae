"""Draws the pictures of a call in groups that share UNet calls: smaller groups where memory runs out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import PREVIEW_DECODER
from nano_runtime.drawing.events import Progress
from nano_runtime.drawing.plan import Plan
from nano_runtime.drawing.start import start_of
from nano_runtime.drawing.stops import Stop
from nano_runtime.engines.base import Runner
from nano_runtime.networks.autoencoder import EncodedEdit, decode_preview
from nano_runtime.networks.conditioning import Conditions, UNetInputs
from nano_runtime.networks.predictor import Predictor
from nano_runtime.pictures.preview import predicted_latents
from nano_runtime.sampling.denoise import denoise
from nano_runtime.sampling.noise import noise_source
from nano_runtime.sampling.samplers import make_sampler
from nano_runtime.sampling.schedule import Schedule

__all__ = ["Drawing"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Drawing:
    """The UNet's part of a call.

    Attributes:
        runner: runs the graphs.
        bundle: describes them.
        schedule: of the bundle.
        plan: of the call.
        texts: the UNet's inputs for each text, by the chunks that it fills; emptied when the last picture begins, if
            pictures are drawn one by one.
        times: the UNet's inputs for each timestep.
        encoded: the pictures to start from, or that the UNet sees; None for neither.
        free_unet: frees the UNet's graphs, where memory ran out.
        stop: tells when to draw no further.
    """

    runner: Runner
    bundle: Bundle
    schedule: Schedule
    plan: Plan
    texts: dict[int, dict[str, UNetInputs]]
    times: UNetInputs
    encoded: EncodedEdit | None
    free_unet: Callable[[], None]
    stop: Stop

    def run(self) -> Generator[Progress, None, tuple[F32, tuple[int, ...], dict[int, int]]]:
        """Draw, until all is done or the caller stops it after a UNet call.

        Returns:
            Final latents, the index of each picture, and for those that the caller interrupted, by their index, the
            number of UNet calls after which it did.
        """
        plan, groups = self.plan, self.plan.groups
        per_group = len(plan.timesteps) - plan.first_call
        drawn: dict[int, F32] = {}
        stopped: dict[int, int] = {}
        done = before = 0
        while groups and not self.stop.asked:
            group = groups[0]
            if self.stop.left.issuperset(group):
                groups = groups[1:]
                continue
            calls = before + len(groups) * per_group
            event = None
            try:
                for event in self._group(group, last=len(groups) == 1):
                    done = before + event.step_index + 1
                    self.stop.is_here()
                    yield replace(event, call=done, calls=calls)
                    if self.stop.asked or self.stop.left.issuperset(group):
                        break
            except MemoryError:
                if len(group) == 1:
                    raise
                _log.warning("memory ran out with %d pictures at once; fewer at once take longer", len(group))
                self.free_unet()
                groups = plan.grouped([i for waiting in groups for i in waiting], math.ceil(len(group) / 2))
                continue
            if event is not None:
                drawn |= dict(zip(group, event.latents, strict=True))
                stopped |= dict.fromkeys(group if event.step_index + 1 < per_group else (), event.step_index + 1)
            before, groups = done, groups[1:]
        kept = tuple(sorted(drawn.keys() - self.stop.left))
        shape = (len(kept), *self.bundle.manifest.latent_shape)
        return np.array([drawn[i] for i in kept], np.float32).reshape(shape), kept, stopped

    def _group(self, group: Sequence[int], *, last: bool) -> Iterator[Progress]:
        """Draw pictures that share all UNet calls; yield the progress of these pictures alone."""
        plan, manifest = self.plan, self.bundle.manifest
        weights = None if manifest.preview is None else np.array(manifest.preview, np.float32)
        previews = PREVIEW_DECODER in manifest.components
        noise = noise_source([plan.seeds[i] for i in group], manifest.latent_shape)
        sampler = make_sampler(plan.scheduler, self.schedule, plan.steps, noise)
        start = start_of(plan, group, sampler, noise, self.encoded)
        predictor = self._predictor(group, start.behind)
        if last and plan.at_once == 1:
            self.texts.clear()  # the predictor has a copy, and no smaller group will ask again
        for step in denoise(predictor, sampler, start.latents, start.first_call):
            if start.unmasked is not None:
                start.unmasked.put_back(sampler, step.index, step.latents)
            yield Progress(
                call=0,
                calls=0,
                step_index=step.index - plan.first_call,
                timestep=step.timestep,
                latents=step.latents,
                predicted=predicted_latents(step, self.schedule),
                image_size=plan.image_size,
                preview_weights=weights,
                decode=partial(decode_preview, self.runner, self.bundle) if previews else None,
                pictures=tuple(group),
                of=len(plan.seeds),
                stop=self.stop,
            )

    def _predictor(self, group: Sequence[int], behind: F32 | None) -> Predictor:
        """Bind the UNet to the prompts of the pictures with these indices, and to the channels behind their latents."""
        plan = self.plan
        texts = self.texts[plan.chunks[group[0]]]
        negatives = [texts[plan.negative_prompts[i]] for i in group] if plan.guided else []
        conditions = Conditions(
            negative=negatives * (plan.calls[-1].ways - 1),
            positive=[texts[plan.prompts[i]] for i in group],
            times=self.times,
            timesteps=plan.timesteps,
            behind=behind,
        )
        scales = plan.guidance_scale, plan.image_guidance_scale
        return Predictor(self.runner, self.bundle, conditions, guidance_scales=scales, calls=plan.calls)
