"""From a prompt to pictures: the parts of this package, put together.

prompt ──tokenizer──text_encoder──unet_prompt──┐
steps ───sampler────────────────unet_time──────┤
seed ────noise──────────────────────────────denoise(unet)──vae_decoder──picture
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nano_runtime import __version__
from nano_runtime.backends import BACKENDS, EngineOptions, installed
from nano_runtime.backends.base import PRECISIONS, Precision
from nano_runtime.bundle import DEMO, Bundle
from nano_runtime.conditioning import Conditioner
from nano_runtime.denoise import denoise
from nano_runtime.errors import BackendMissingError, UnsupportedScheduleError
from nano_runtime.image import Parameters, to_pil, to_uint8, to_unit_range
from nano_runtime.machine import usable_cores
from nano_runtime.manifest import Backend, Quality
from nano_runtime.noise import NoiseSource, noise_source
from nano_runtime.predict import Predictor
from nano_runtime.request import OutputType, Request, one_of, positive
from nano_runtime.samplers import Sampler, make_sampler, own_sampler
from nano_runtime.schedule import Schedule
from nano_runtime.shortcuts import Shortcuts, plan, resolve
from nano_runtime.stages import Stages
from nano_runtime.timing import Stopwatch, Timings

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Callback", "Pipeline", "Progress", "Result"]

Floats = NDArray[np.float32]
Callback = Callable[["Pipeline", int, float, dict[str, Any]], Mapping[str, Any] | None]

_log = logging.getLogger(__name__)

_PREFERRED: tuple[Backend, ...] = ("onnxruntime", "openvino")  # loads sooner, in half the memory (bench/LOG.md)
_MOST_AT_ONCE = 4  # pictures per UNet call: memory grows with each, speed hardly any more
# The largest comes second: two files are checked at a time, and the text encoder need not wait for it. The shallow UNet
# shares its weights and is checked when it is needed.
_IN_ORDER_OF_CHECKING = ("text_encoder", "unet", "unet_prompt", "unet_time", "vae_decoder")


@dataclass(frozen=True)
class Progress:
    """One UNet call is done.

    Attributes:
        call: its number, from 1.
        calls: how many there will be for all pictures.
        step_index: its index in the schedule, from 0.
        timestep: noise level it ran at, on the training scale.
        latents: float32 [n, *latent_shape] after it, for the n pictures drawn together. The next step starts from this
            array, with whatever was written into it.
    """

    call: int
    calls: int
    step_index: int
    timestep: float
    latents: Floats


@dataclass(frozen=True)
class Result:
    """What a call drew.

    Attributes:
        images: Pillow images; float32 [n, height, width, 3] in [0, 1] for ``output_type="np"``; the final latents,
            float32 [n, *latent_shape], for ``"latent"``.
        seeds: the seed of each picture; it alone draws that picture again (unless the call was given latents).
        parameters: the same and all else for each picture, as ``image.save_png`` stores them.
        timings: where the time went.
    """

    images: list[Image] | Floats
    seeds: tuple[int, ...]
    parameters: tuple[Parameters, ...]
    timings: Timings


class Pipeline:
    """Draws from one bundle with one engine; for one thread at a time.

    Args:
        stages: the graphs of an open bundle on one engine.
        keep_loaded: True keeps every graph for the next call; False frees each as soon as its part of the work is done,
            so that text encoder, UNet and decoder never occupy memory together.
    """

    def __init__(self, stages: Stages, *, keep_loaded: bool) -> None:
        self.bundle = stages.bundle
        self.backend = stages.backend
        self.options = stages.options
        self.keep_loaded = keep_loaded
        self._schedule = Schedule.from_config(self.bundle.manifest.scheduler)
        self._own_scheduler = _own_scheduler(self.bundle)
        self._stages = stages
        self._conditioner = Conditioner(stages)

    @classmethod
    def from_pretrained(
        cls,
        bundle: str | Path = DEMO,
        backend: Backend | None = None,
        threads: int | None = None,
        precision: Precision | None = None,
        *,
        keep_loaded: bool = True,
        cache: str | Path | None = None,
    ) -> Pipeline:
        """Open a bundle; its graphs are checked and loaded when a call needs them.

        Args:
            bundle: folder that ``nano-export`` wrote; left out, the small demo model that comes with this package.
            backend: the engine; None takes the leaner one of those installed and served.
            threads: None means one per physical core.
            precision: arithmetic of the layers that are not quantized; None means ``"f32"``. ``"bf16"`` is quicker
                with openvino on processors that have it, and rounds.
            keep_loaded: see the class.
            cache: folder where OpenVINO's compiled graphs are kept for the next process, which then loads in a fraction
                of the time; None keeps nothing.

        Raises:
            BundleError: the folder is not a bundle, or was tampered with.
            UsageError: the bundle does not serve the engine, or an argument is out of range.
            BackendMissingError: the engine is not installed.
        """
        opened = Bundle.open(bundle)
        options = EngineOptions(
            threads=usable_cores() if threads is None else positive("threads", threads),
            precision="f32" if precision is None else one_of("precision", precision, PRECISIONS),
            cache=None if cache is None else Path(cache),
        )
        return cls(Stages(opened, _choose_backend(opened, backend), options), keep_loaded=keep_loaded)

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        seed: int | None = None,
        num_images_per_prompt: int = 1,
        scheduler: str | None = None,
        quality: Quality | None = None,
        cache_interval: int | None = None,
        guidance_interval: Sequence[float] | None = None,
        latents: Floats | None = None,
        output_type: OutputType = "pil",
        height: int | None = None,
        width: int | None = None,
        callback_on_step_end: Callback | None = None,
    ) -> Result:
        """Draw pictures of a prompt; names and meanings are those of diffusers' ``StableDiffusionPipeline``.

        Args:
            prompt: what to draw, or a list of such; beyond the text encoder's length it is cut, with a warning in the
                log.
            negative_prompt: what to move away from; None means the empty text.
            num_inference_steps: 1 to the length of the training schedule. PNDM makes one UNet call more, Heun one less
                than twice as many.
            guidance_scale: at least 0; up to 1 turns guidance off, and each UNet call does half the work. None takes
                the bundle's own, 7.5 for most.
            seed: 0 to 2**64 - 1; picture i is drawn from seed + i. None takes a random one. The noise is that of
                ``torch.Generator("cpu").manual_seed(seed)``, so diffusers draws the same picture.
            num_images_per_prompt: at least 1; up to 4 share a UNet call.
            scheduler: a name that ``nano_runtime.samplers.make_sampler`` knows; None takes the bundle's own.
            quality: ``"exact"`` (None means that), ``"balanced"`` or ``"fast"``: what the last two leave out was chosen
                and measured for this bundle when it was exported, and stands in its manifest.
            cache_interval: in place of the preset's; see ``shortcuts.Shortcuts``, also for the next.
            guidance_interval: in place of the preset's.
            latents: float32 [pictures, *latent_shape], unit-variance noise to start from instead of the
                seeds'.
            output_type: see ``Result.images``.
            height: None or the bundle's; another size needs another bundle.
            width: as height.
            callback_on_step_end: called after every UNet call with (pipe, step_index, timestep, {"latents": ...}); may
                return {"latents": replacement}.

        Raises:
            UsageError: an argument is out of range.
            BundleError: a file was tampered with, or a graph cannot be run or computes NaN.
            MachineError: not enough memory.
        """
        events = self.stream(
            prompt=prompt,
            negative_prompt=negative_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            seed=seed,
            num_images_per_prompt=num_images_per_prompt,
            scheduler=scheduler,
            quality=quality,
            cache_interval=cache_interval,
            guidance_interval=guidance_interval,
            latents=latents,
            output_type=output_type,
            height=height,
            width=width,
        )
        for event in events:
            if isinstance(event, Result):
                return event
            if callback_on_step_end is not None:
                answer = callback_on_step_end(self, event.step_index, event.timestep, {"latents": event.latents})
                if answer is not None and "latents" in answer:
                    np.copyto(event.latents, answer["latents"])
        raise AssertionError("a stream ends with its result")

    def stream(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        seed: int | None = None,
        num_images_per_prompt: int = 1,
        scheduler: str | None = None,
        quality: Quality | None = None,
        cache_interval: int | None = None,
        guidance_interval: Sequence[float] | None = None,
        latents: Floats | None = None,
        output_type: OutputType = "pil",
        height: int | None = None,
        width: int | None = None,
    ) -> Iterator[Progress | Result]:
        """Do what a call does, one UNet call at a time: the caller owns progress bars, previews and cancelling.

        Work begins with the first ``next``; closing the iterator ends it.

        Yields:
            A ``Progress`` after every UNet call and, last, the ``Result``.
        """
        watch = Stopwatch()
        request = Request.checked(
            self.bundle.manifest,
            prompt=prompt,
            negative_prompt=negative_prompt,
            guidance_scale=self.bundle.manifest.guidance_scale if guidance_scale is None else guidance_scale,
            seed=seed,
            count=num_images_per_prompt,
            latents=latents,
            output_type=output_type,
            size=(height, width),
        )
        shortcuts = resolve(self.bundle, quality, cache_interval, guidance_interval)
        try:
            timesteps = self._sampler(num_inference_steps, scheduler).timesteps
            planned = plan(len(timesteps), shortcuts, guided=request.guidance_scale > 1)
            self._stages.prepare(name for name in _IN_ORDER_OF_CHECKING if name in self.bundle.manifest.components)
            guided = any(call.guided for call in planned)
            texts = [*((request.negative_prompt,) if guided else ()), *request.prompts]
            known = self._conditioner.texts(dict.fromkeys(texts), watch)
            times = self._conditioner.timesteps(timesteps, watch)
            self._release("text_encoder", "unet_prompt")

            groups = np.array_split(np.arange(len(request.seeds)), _groups(len(request.seeds)))
            drawn: list[Floats] = []
            for group in groups:
                noise = noise_source([request.seeds[i] for i in group], self.bundle.manifest.latent_shape)
                if latents is None:
                    noise()  # the first draw is ``request.noise``
                sampler = self._sampler(num_inference_steps, scheduler, noise)
                start = request.noise[group] * np.float32(sampler.init_noise_sigma)
                positive_rows = [known[request.prompts[i]] for i in group]
                negative_rows = [known[request.negative_prompt]] * len(group) if guided else []
                predict = Predictor(
                    self._stages,
                    watch,
                    negative=negative_rows,
                    positive=positive_rows,
                    times=times,
                    timesteps=timesteps,
                    guidance_scale=request.guidance_scale,
                    calls=planned,
                )
                for step in denoise(predict, sampler, start):
                    call = len(drawn) * len(timesteps) + step.index + 1
                    yield Progress(call, len(groups) * len(timesteps), step.index, step.timestep, step.latents)
                drawn.append(step.latents)
            self._release("unet", "unet_shallow")

            images = self._decode(np.concatenate(drawn), request.output_type, watch)
            parameters = tuple(
                self._parameters(request, i, num_inference_steps, scheduler, shortcuts)
                for i in range(len(request.seeds))
            )
            yield Result(images, request.seeds, parameters, watch.timings())
        finally:
            self._release()  # whatever is left, also when the caller stops early

    def unet_calls(self, num_inference_steps: int, scheduler: str | None, num_images_per_prompt: int) -> int:
        """Return how often a call with these arguments runs the UNet.

        Raises:
            UnknownSchedulerError: there is no such name.
            StepsError: the number of steps is outside the schedule.
            OptionError: the number of pictures is not positive.
        """
        groups = _groups(positive("num_images_per_prompt", num_images_per_prompt))
        return groups * len(self._sampler(num_inference_steps, scheduler).timesteps)

    def scheduler_name(self, scheduler: str | None) -> str:
        """Return the given name, or for None the name of the bundle's own sampler."""
        return self._own_scheduler if scheduler is None else scheduler

    def close(self) -> None:
        """Free all loaded graphs; a later call loads them again."""
        self._stages.close()

    def _sampler(self, num_inference_steps: int, scheduler: str | None, noise: NoiseSource | None = None) -> Sampler:
        """Return a fresh sampler: it holds the history of the pictures it draws, and their source of noise."""
        return make_sampler(self.scheduler_name(scheduler), self._schedule, num_inference_steps, noise)

    def _decode(self, latents: Floats, output_type: OutputType, watch: Stopwatch) -> list[Image] | Floats:
        """Decode final latents picture by picture: a batch is no quicker per picture, and takes more memory."""
        if output_type == "latent":
            return latents
        decoder = self.bundle.component("vae_decoder")
        scaled = latents / np.float32(self.bundle.manifest.scaling_factor)
        decoded = [
            self._stages.run("vae_decoder", {decoder.inputs[0].name: one[np.newaxis]}, watch, batch=1) for one in scaled
        ]
        unit = to_unit_range(np.concatenate([outputs[decoder.outputs[0].name] for outputs in decoded]))
        return unit if output_type == "np" else [to_pil(pixels) for pixels in to_uint8(unit)]

    def _parameters(
        self, request: Request, index: int, steps: int, scheduler: str | None, shortcuts: Shortcuts
    ) -> Parameters:
        """Describe how one picture was drawn."""
        height, width = self.bundle.manifest.image_size
        return Parameters(
            prompt=request.prompts[index],
            negative_prompt=request.negative_prompt,
            seed=request.seeds[index],
            steps=steps,
            scheduler=self.scheduler_name(scheduler),
            guidance_scale=request.guidance_scale,
            height=height,
            width=width,
            bundle=self.bundle.manifest.name,
            bundle_digest=self.bundle.digest,
            backend=self.backend,
            precision=self.options.precision,
            version=__version__,
            cache_interval=shortcuts.cache_interval,
            guidance_interval=shortcuts.guidance_interval,
        )

    def _release(self, *components: str) -> None:
        """Free graphs whose part of the work is done, all if none is named, unless they are to be kept."""
        if not self.keep_loaded:
            self._stages.close(*components)


def _groups(pictures: int) -> int:
    """Return how many groups the pictures are drawn in; they are of equal size, or nearly."""
    return math.ceil(pictures / _MOST_AT_ONCE)


def _own_scheduler(bundle: Bundle) -> str:
    """Return the name of the sampler that the checkpoint was published with."""
    try:
        return own_sampler(bundle.manifest.scheduler)
    except UnsupportedScheduleError as error:
        _log.warning("pndm takes the place of the bundle's own scheduler: %s", error.what)
        return "pndm"


def _choose_backend(bundle: Bundle, backend: Backend | None) -> Backend:
    """Return an engine that is served by the bundle and installed: the one asked for, or the leanest."""
    if backend is not None:
        chosen = one_of("backend", backend, BACKENDS)
        bundle.require(chosen)
        if not installed(chosen):
            raise BackendMissingError(chosen)
        return chosen
    served = [name for name in _PREFERRED if name in bundle.manifest.backends]
    usable = [name for name in served if installed(name)]
    if not usable:
        raise BackendMissingError(served[0])
    return usable[0]
