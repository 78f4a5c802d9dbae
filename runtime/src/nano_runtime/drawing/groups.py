"""Draws the pictures of a call in groups that share UNet calls: smaller groups where memory runs out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import PREVIEW_DECODER
from nano_runtime.drawing.events import Progress
from nano_runtime.drawing.plan import Plan, grouped
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
        texts: the UNet's inputs for each text; emptied when the last picture begins, if pictures are drawn one by one.
        times: the UNet's inputs for each timestep.
        encoded: the pictures to start from, or that the UNet sees; None for neither.
        free_unet: frees the UNet's graphs, where memory ran out.
        stop: tells when to draw no further.
    """

    runner: Runner
    bundle: Bundle
    schedule: Schedule
    plan: Plan
    texts: dict[str, UNetInputs]
    times: UNetInputs
    encoded: EncodedEdit | None
    free_unet: Callable[[], None]
    stop: Stop

    def run(self) -> Generator[Progress, None, tuple[F32, int | None]]:
        """Draw, until all is done or the caller stops it after a UNet call.

        Returns:
            Final latents, and the number of UNet calls after which the caller interrupted; None if it did not.
        """
        plan = self.plan
        preview = self.bundle.manifest.preview
        height, width = self.bundle.manifest.image_size
        weights = None if preview is None else np.array(preview, np.float32)
        previews = PREVIEW_DECODER in self.bundle.manifest.components
        decoder = partial(decode_preview, self.runner, self.bundle) if previews else None
        groups = plan.groups
        first = plan.first_call
        per_group = calls = len(plan.timesteps) - first
        drawn: list[F32] = []
        done = 0
        while groups and not self.stop.asked:
            group = groups[0]
            noise = noise_source([plan.seeds[i] for i in group], self.bundle.manifest.latent_shape)
            sampler = make_sampler(plan.scheduler, self.schedule, plan.steps, noise)
            start = start_of(plan, group, sampler, noise, self.encoded)
            calls = (len(drawn) + len(groups)) * per_group
            predictor = self._predictor(group, start.behind)
            if plan.at_once == len(groups) == 1:
                self.texts.clear()  # the predictor has a copy, and no smaller group will ask again
            try:
                for step in denoise(predictor, sampler, start.latents, start.first_call):
                    done = len(drawn) * per_group + step.index - first + 1
                    if start.unmasked is not None:
                        start.unmasked.put_back(sampler, step.index, step.latents)
                    self.stop.is_here()
                    yield Progress(
                        call=done,
                        calls=calls,
                        step_index=step.index - first,
                        timestep=step.timestep,
                        latents=step.latents,
                        predicted=predicted_latents(step, self.schedule),
                        image_size=(height, width),
                        preview_weights=weights,
                        decode=decoder,
                    )
                    if self.stop.asked:
                        break
            except MemoryError:
                if len(group) == 1:
                    raise
                _log.warning("memory ran out with %d pictures at once; fewer at once take longer", len(group))
                self.free_unet()
                groups = grouped([i for waiting in groups for i in waiting], math.ceil(len(group) / 2))
                continue
            drawn.append(step.latents)
            groups = groups[1:]
        return np.concatenate(drawn), done if done < calls else None

    def _predictor(self, group: Sequence[int], behind: F32 | None) -> Predictor:
        """Bind the UNet to the prompts of the pictures with these indices, and to the channels behind their latents."""
        plan = self.plan
        negatives = len(group) * (plan.calls[-1].ways - 1) if plan.guided else 0
        conditions = Conditions(
            negative=[self.texts[plan.negative_prompt]] * negatives if negatives else [],
            positive=[self.texts[plan.prompts[i]] for i in group],
            times=self.times,
            timesteps=plan.timesteps,
            behind=behind,
        )
        scales = plan.guidance_scale, plan.image_guidance_scale
        return Predictor(self.runner, self.bundle, conditions, guidance_scales=scales, calls=plan.calls)
