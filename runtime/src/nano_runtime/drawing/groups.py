"""The pictures of a call, denoised in groups that share UNet calls: smaller groups where memory runs out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.drawing.events import Progress
from nano_runtime.drawing.plan import Decided
from nano_runtime.drawing.request import Request
from nano_runtime.drawing.start import Encoded, start_of
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.networks.conditioning import UNetInputs
from nano_runtime.networks.predictor import Predictor
from nano_runtime.pictures.preview import predicted_latents
from nano_runtime.sampling.denoise import denoise
from nano_runtime.sampling.noise import noise_source
from nano_runtime.sampling.samplers import make_sampler
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.system.timing import Stopwatch

__all__ = ["Drawing", "grouped"]


_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Drawing:
    """All that the UNet's part of a call needs.

    Attributes:
        stages: the graphs.
        schedule: of the model.
        request: what is drawn.
        decided: how.
        texts: what the UNet knows of each prompt; emptied when the last picture begins, if they are drawn one by one.
        times: what it knows of each timestep.
        picture: that the request starts from.
        watch: gets the time of each UNet call.
        at_once: pictures that share a UNet call at most.
    """

    stages: LoadedGraphs
    schedule: Schedule
    request: Request
    decided: Decided
    texts: dict[str, UNetInputs]
    times: UNetInputs
    picture: Encoded | None
    watch: Stopwatch
    at_once: int

    def run(self, interrupted: Callable[[], bool]) -> Generator[Progress, None, tuple[F32, int | None]]:
        """Draw, until it is done or ``interrupted`` says so after a UNet call.

        Returns:
            Final latents, and after how many UNet calls the caller interrupted; None if it did not.
        """
        preview = self.stages.bundle.manifest.preview
        weights = None if preview is None else np.array(preview, np.float32)
        groups = grouped(range(len(self.request.seeds)), self.at_once)
        first = self.decided.first_call
        per_group = calls = len(self.decided.timesteps) - first
        drawn: list[F32] = []
        done = 0
        while groups and not interrupted():
            group = groups[0]
            noise = noise_source([self.request.seeds[i] for i in group], self.stages.bundle.manifest.latent_shape)
            sampler = make_sampler(self.decided.scheduler, self.schedule, self.decided.steps, noise)
            start = start_of(self.request, group, sampler, noise, self.picture)
            calls = (len(drawn) + len(groups)) * per_group
            predictor = self._predictor(group)
            if self.at_once == len(groups) == 1:
                self.texts.clear()  # the predictor has a copy, and no smaller group will ask again
            try:
                for step in denoise(predictor, sampler, start.latents, start.first_call):
                    done = len(drawn) * per_group + step.index - first + 1
                    if start.kept is not None:
                        start.kept.put_back(sampler, step.index, step.latents)
                    yield Progress(
                        call=done,
                        calls=calls,
                        step_index=step.index - first,
                        timestep=step.timestep,
                        latents=step.latents,
                        predicted=predicted_latents(step, self.schedule),
                        preview_weights=weights,
                    )
                    if interrupted():
                        break
            except MemoryError:
                if len(group) == 1:
                    raise
                _log.warning("memory ran out with %d pictures at once; fewer at once take longer", len(group))
                self.stages.close("unet", "unet_shallow")
                groups = grouped([i for waiting in groups for i in waiting], math.ceil(len(group) / 2))
                continue
            drawn.append(step.latents)
            groups = groups[1:]
        return np.concatenate(drawn), done if done < calls else None

    def _predictor(self, group: Sequence[int]) -> Predictor:
        """Bind the UNet to the prompts of the pictures with these indices."""
        request, count = self.request, len(group)
        return Predictor(
            self.stages,
            self.watch,
            negative=[self.texts[request.negative_prompt]] * count if self.decided.guided else [],
            positive=[self.texts[request.prompts[i]] for i in group],
            times=self.times,
            timesteps=self.decided.timesteps,
            guidance_scale=request.guidance_scale,
            calls=self.decided.calls,
        )


def grouped(pictures: Sequence[int], most: int) -> list[list[int]]:
    """Sort pictures into groups that are drawn together: at most ``most``, of equal size, or nearly."""
    return [group.tolist() for group in np.array_split(np.asarray(pictures), math.ceil(len(pictures) / most))]
