"""What is decided about a call before anything runs, and how each picture tells of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from nano_runtime import __version__
from nano_runtime.arrays import F32
from nano_runtime.drawing.request import Request
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.networks.tokenizer import Reading
from nano_runtime.pictures.png import Parameters
from nano_runtime.sampling.samplers import first_call, make_sampler
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.shortcuts import Call, Shortcuts, plan

__all__ = ["Decided"]


@dataclass(frozen=True)
class Decided:
    """How a call is drawn.

    Attributes:
        steps: of the sampler.
        scheduler: name of the sampler.
        timesteps: float32, of each UNet call of the whole schedule.
        first_call: index of the first one that is made.
        calls: how each is made.
        reading: of the prompts.
        shortcuts: that the calls take.
    """

    steps: int
    scheduler: str
    timesteps: F32
    first_call: int
    calls: tuple[Call, ...]
    reading: Reading
    shortcuts: Shortcuts

    @classmethod
    def of(  # noqa: PLR0917 (what decides)
        cls, request: Request, schedule: Schedule, steps: int, scheduler: str, reading: Reading, shortcuts: Shortcuts
    ) -> Decided:
        """Plan every UNet call of a request.

        Raises:
            UnknownSchedulerError: there is no such sampler.
            StepsError: so many steps do not fit into the schedule.
            StrengthError: the request's strength leaves none of them.
        """
        timesteps = make_sampler(scheduler, schedule, steps).timesteps
        first = 0 if request.edit is None else first_call(scheduler, steps, request.edit.strength)
        planned = plan(len(timesteps) - first, shortcuts, guided=request.guidance_scale > 1)
        return cls(steps, scheduler, timesteps, first, (*planned[:1] * first, *planned), reading, shortcuts)

    @property
    def guided(self) -> bool:
        """Whether any call needs the negative prompt."""
        return any(call.guided for call in self.calls)

    def parameters(self, request: Request, index: int, stages: LoadedGraphs, stopped: int | None) -> Parameters:
        """Describe how one picture of a request was drawn; ``stopped`` after so many calls, if it was."""
        edit, variation, bundle = request.edit, request.variation, stages.bundle
        height, width = bundle.manifest.image_size
        return Parameters(
            prompt=request.prompts[index],
            negative_prompt=request.negative_prompt,
            seed=request.seeds[index],
            steps=self.steps,
            scheduler=self.scheduler,
            guidance_scale=request.guidance_scale,
            height=height,
            width=width,
            bundle=bundle.manifest.name,
            bundle_digest=bundle.digest,
            backend=stages.backend,
            precision=stages.options.precision,
            version=__version__,
            edited=None if edit is None else edit.digest,
            strength=None if edit is None else edit.strength,
            masked=edit is not None and edit.mask is not None,
            variation_seed=None if variation is None else variation.seeds[index],
            variation_strength=None if variation is None else variation.strength,
            interrupted_after=stopped,
            prompt_weighting=self.reading.weighted,
            long_prompts=self.reading.long,
            cache_interval=self.shortcuts.cache_interval,
            guidance_interval=self.shortcuts.guidance_interval,
        )
