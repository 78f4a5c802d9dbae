"""From a prompt to pictures: the parts of this package, put together.

prompt ──tokenizer──text_encoder──unet_prompt──┐
steps ───sampler────────────────unet_time──────┤
seed ────noise──────────────────────────────denoise(unet)──vae_decoder──picture
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.bundle.manifest import Backend, Quality
from nano_runtime.drawing.defaults import Defaults
from nano_runtime.drawing.events import Progress, Result
from nano_runtime.drawing.groups import Drawing, grouped
from nano_runtime.drawing.plan import Decided
from nano_runtime.drawing.request import OutputType, Request, one_of, positive
from nano_runtime.engines import LOADS_AHEAD, Batch, EngineOptions, choose
from nano_runtime.engines.base import PRECISIONS, Precision
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.networks.autoencoder import decode, encode
from nano_runtime.networks.conditioning import Conditioner
from nano_runtime.networks.predictor import graphs_of
from nano_runtime.networks.tokenizer import Reading, TokenIds
from nano_runtime.pictures.png import to_pil, to_uint8
from nano_runtime.sampling.samplers import first_call, make_sampler
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.shortcuts import resolve
from nano_runtime.system.disk_cache import DiskCache
from nano_runtime.system.machine import usable_cores
from nano_runtime.system.timing import Stopwatch

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Callback", "Pipeline", "Progress", "Result"]

Callback = Callable[["Pipeline", int, float, dict[str, Any]], Mapping[str, Any] | None]

_MOST_AT_ONCE = 4  # pictures per UNet call: memory grows with each, speed hardly any more
# What every picture needs, the largest first. Graphs that prompts and timesteps go through are checked when those are
# new; the shallow UNet shares its weights with the UNet.
_CHECKED_AHEAD = ("unet", "vae_encoder", "vae_decoder")


class Pipeline:
    """Draws from one bundle with one engine; for one thread at a time.

    Args:
        stages: the graphs of an open bundle on one engine.
        keep_loaded: True keeps every graph for the next call; False frees each as soon as its part of the work is done,
            so that text encoder, UNet and decoder never occupy memory together.
        low_memory: True also draws pictures one by one, and keeps nothing of the prompts beside the UNet.
        keep_prompts: True leaves what the UNet is told of prompts and timesteps in the cache folder, if there is one:
            the next process draws the same prompts without a text encoder.
    """

    def __init__(
        self, stages: LoadedGraphs, *, keep_loaded: bool, low_memory: bool = False, keep_prompts: bool = True
    ) -> None:
        self.bundle = stages.bundle
        self.backend = stages.backend
        self.options = stages.options
        self.keep_loaded = keep_loaded and not low_memory
        self.low_memory = low_memory
        self._at_once = 1 if low_memory else _MOST_AT_ONCE
        self._schedule = Schedule.from_config(self.bundle.manifest.scheduler)
        self._defaults = Defaults.of(self.bundle, self._schedule)
        self._interrupt = False
        self._stages = stages
        cache = self.options.cache if keep_prompts else None
        self._conditioner = Conditioner(stages, None if cache is None else DiskCache(cache / "conditioning"))

    @classmethod
    def from_pretrained(
        cls,
        bundle: str | Path = DEMO,
        backend: Backend | None = None,
        threads: int | None = None,
        precision: Precision | None = None,
        *,
        keep_loaded: bool = True,
        low_memory: bool = False,
        keep_prompts: bool = True,
        cache: str | Path | None = None,
        expect_digest: str | None = None,
    ) -> Pipeline:
        """Open a bundle; its graphs are checked and loaded when a call needs them.

        Args:
            bundle: folder that ``nano-export`` wrote; left out, the small demo model that comes with this package.
            backend: the engine; None takes the leaner one of those installed and served.
            threads: None means one per physical core.
            precision: arithmetic of the layers that are not quantized; None means ``"f32"``. ``"bf16"`` is quicker
                with openvino on processors that have it, and rounds.
            keep_loaded: see the class.
            low_memory: see the class.
            keep_prompts: see the class.
            cache: folder where OpenVINO's compiled graphs and what the UNet is told are kept for the next process,
                which then begins sooner; None keeps nothing.
            expect_digest: see ``Bundle.open``.

        Raises:
            BundleError: the folder is not a bundle, or was tampered with.
            UsageError: the bundle does not serve the engine, or an argument is out of range.
            BackendMissingError: the engine is not installed.
        """
        opened = Bundle.open(bundle, expect_digest)
        options = EngineOptions(
            threads=usable_cores() if threads is None else positive("threads", threads),
            precision="f32" if precision is None else one_of("precision", precision, PRECISIONS),
            cache=None if cache is None else Path(cache),
        )
        return cls(
            LoadedGraphs(opened, choose(opened, backend), options),
            keep_loaded=keep_loaded,
            low_memory=low_memory,
            keep_prompts=keep_prompts,
        )

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        num_images_per_prompt: int = 1,
        scheduler: str | None = None,
        latents: F32 | None = None,
        output_type: OutputType = "pil",
        height: int | None = None,
        width: int | None = None,
        prompt_weighting: bool = False,
        long_prompts: bool = False,
        callback_on_step_end: Callback | None = None,
        image: Image | None = None,
        mask_image: Image | None = None,
        strength: float | None = None,
        variation_seed: int | None = None,
        variation_strength: float | None = None,
        quality: Quality | None = None,
        cache_interval: int | None = None,
        guidance_interval: Sequence[float] | None = None,
    ) -> Result:
        """Draw pictures of a prompt; names and meanings are those of diffusers' ``StableDiffusionPipeline``.

        Args:
            prompt: what to draw, or a list of such; beyond the text encoder's length it is cut, with a warning in the
                log, unless ``long_prompts`` is set.
            negative_prompt: what to move away from; None means the empty text.
            num_inference_steps: 1 to the length of the training schedule. PNDM makes one UNet call more, Heun one less
                than twice as many. None takes the bundle's default, or 20 if another sampler is asked for.
            guidance_scale: at least 0; up to 1 turns guidance off, and each UNet call does half the work. None takes
                the bundle's own, 7.5 for most.
            seed: 0 to 2**64 - 1; picture i is drawn from seed + i. None takes a random one. The noise is that of
                ``torch.Generator("cpu").manual_seed(seed)``, so diffusers draws the same picture.
            num_images_per_prompt: at least 1; up to 4 share a UNet call.
            scheduler: a name that ``sampling.samplers.make_sampler`` knows; None takes the bundle's default, chosen
                by measuring its pictures (``nano-bundle info``). ``pipe.own_scheduler`` is the one that the checkpoint
                was published with, and diffusers draws with.
            latents: float32 [pictures, *latent_shape], unit-variance noise to start from instead of the
                seeds'.
            output_type: see ``Result.images``.
            height: None or the bundle's; another size needs another bundle.
            width: as height.
            prompt_weighting: True reads both prompts with A1111's syntax, ``(word:1.3)``, ``[word]``, ``BREAK``; see
                ``weighting``. False takes them as they stand, brackets included: diffusers does, and the same call is
                to draw the same picture.
            long_prompts: True lets prompts go on in further chunks of the text encoder's length, each encoded by
                itself, up to 16; every UNet call then takes a little longer. Needs a bundle of format 2.
            callback_on_step_end: called after every UNet call with (pipe, step_index, timestep, {"latents": ...}); may
                return {"latents": replacement}, and may set ``pipe.interrupt = True``: what is drawn by then is
                decoded.
            image: a Pillow image to start from (``edit.open_picture`` reads one from a file), scaled to cover the
                bundle's size and cropped around its centre.
            mask_image: a Pillow image of the same size: white is painted anew, black stays.
            strength: share of the steps that is run on the image, in (0, 1]. None means diffusers' 0.8, with a mask 1.
            variation_seed: 0 to 2**64 - 1; picture i turns from the noise of ``seed`` towards that of
                variation_seed + i. None takes a random one, if there is a strength.
            variation_strength: how far, 0 to 1; None and 0 do not vary, 0.1 to 0.3 give siblings of the seed's picture.
            quality: ``"exact"`` (None means that), ``"balanced"`` or ``"fast"``: what the last two leave out was chosen
                and measured for this bundle when it was exported, and stands in its manifest.
            cache_interval: in place of the preset's; see ``shortcuts.Shortcuts``, also for the next.
            guidance_interval: in place of the preset's.

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
            latents=latents,
            output_type=output_type,
            height=height,
            width=width,
            image=image,
            mask_image=mask_image,
            strength=strength,
            variation_seed=variation_seed,
            variation_strength=variation_strength,
            prompt_weighting=prompt_weighting,
            long_prompts=long_prompts,
            quality=quality,
            cache_interval=cache_interval,
            guidance_interval=guidance_interval,
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
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        num_images_per_prompt: int = 1,
        scheduler: str | None = None,
        latents: F32 | None = None,
        output_type: OutputType = "pil",
        height: int | None = None,
        width: int | None = None,
        image: Image | None = None,
        mask_image: Image | None = None,
        strength: float | None = None,
        variation_seed: int | None = None,
        variation_strength: float | None = None,
        prompt_weighting: bool = False,
        long_prompts: bool = False,
        quality: Quality | None = None,
        cache_interval: int | None = None,
        guidance_interval: Sequence[float] | None = None,
    ) -> Iterator[Progress | Result]:
        """Do what a call does, one UNet call at a time: the caller owns progress bars, previews and cancelling.

        Work begins with the first ``next``; closing the iterator ends it. Where memory does not suffice for so many
        pictures at once, their group begins again as two: ``Progress`` then goes back and counts more calls.

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
            image=image,
            mask_image=mask_image,
            strength=strength,
            variation_seed=variation_seed,
            variation_strength=variation_strength,
        )
        self._interrupt = False
        decided = Decided.of(
            request,
            self._schedule,
            *self.settle(num_inference_steps, scheduler),
            Reading(weighted=prompt_weighting, long=long_prompts),
            resolve(self.bundle, quality, cache_interval, guidance_interval),
        )
        try:
            self._prepare(editing=request.edit is not None, pillow=request.output_type == "pil")
            texts = [*((request.negative_prompt,) if decided.guided else ()), *request.prompts]
            read = self._conditioner.read(dict.fromkeys(texts), decided.reading)
            unets = graphs_of(decided.calls, len(grouped(range(len(request.seeds)), self._at_once)[0]))
            self._load_ahead(unets, read.tokens)
            encoded = self._conditioner.encode(read, watch)
            self._release("text_encoder")
            known = self._conditioner.project(encoded, watch)
            times = self._conditioner.timesteps(decided.timesteps, watch)
            edit = request.edit
            picture = None if edit is None else encode(self._stages, edit, decided.first_call, watch)
            self._release("unet_prompt", "vae_encoder")
            if request.output_type != "latent":
                self._load_ahead({"vae_decoder": 1})
            if self.low_memory:
                self._conditioner.forget()
            drawing = Drawing(
                self._stages, self._schedule, request, decided, known, times, picture, watch, self._at_once
            )
            latents, stopped = yield from drawing.run(lambda: self._interrupt)
            self._release("unet", "unet_shallow")
            images: list[Image] | F32 = latents
            if request.output_type != "latent":
                unit = decode(self._stages, latents, request.seeds, watch)
                images = unit if request.output_type == "np" else [to_pil(pixels) for pixels in to_uint8(unit)]
            drawn = range(len(latents))
            parameters = tuple(decided.parameters(request, i, self._stages, stopped) for i in drawn)
            yield Result(images, request.seeds[: len(latents)], parameters, watch.timings())
        finally:
            self._release()  # whatever is left, also when the caller stops early

    def unet_calls(
        self,
        num_inference_steps: int | None,
        scheduler: str | None,
        num_images_per_prompt: int,
        strength: float = 1.0,
    ) -> int:
        """Return how often a call with these arguments, of which ``strength`` is 1 without an image, runs the UNet.

        Raises:
            StrengthError: it leaves no step.
            UnknownSchedulerError: there is no such name.
            StepsError: the number of steps is outside the schedule.
            OptionError: the number of pictures is not positive.
        """
        groups = grouped(range(positive("num_images_per_prompt", num_images_per_prompt)), self._at_once)
        steps, name = self.settle(num_inference_steps, scheduler)
        calls = len(make_sampler(name, self._schedule, steps).timesteps)
        return len(groups) * (calls - first_call(name, steps, strength))

    @property
    def interrupt(self) -> bool:
        """Whether the call that is running, or ran last, was told to draw no further; set it from its callback.

        diffusers' own pipelines want ``pipe._interrupt = True``, which works here too.
        """
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value

    def tokenize(self, prompt: str, *, prompt_weighting: bool = False, long_prompts: bool = False) -> TokenIds:
        """Return what a call makes of a prompt: how many tokens it has, and which of its words do not fit.

        Raises:
            PromptError: it cannot be used.
            TamperedFileError: the tokenizer is not the one the manifest describes.
        """
        return self._conditioner.tokens(prompt, Reading(weighted=prompt_weighting, long=long_prompts))

    def settle(self, num_inference_steps: int | None, scheduler: str | None) -> tuple[int, str]:
        """Return the steps and the name of the sampler that a call with these arguments draws with."""
        return self._defaults.settle(num_inference_steps, scheduler)

    @property
    def own_scheduler(self) -> str:
        """Name of the sampler that the checkpoint was published with; "pndm" where that one is not implemented."""
        return self._defaults.own

    def close(self) -> None:
        """Free all loaded graphs; a later call loads them again."""
        self._stages.close()

    def _prepare(self, *, editing: bool, pillow: bool) -> None:
        """Begin to check the graphs that are certain to run, and import meanwhile what will be needed."""
        present = self.bundle.manifest.components
        self._stages.prepare(name for name in _CHECKED_AHEAD if name in present and (editing or name != "vae_encoder"))
        if pillow:
            import PIL.Image  # noqa: F401, PLC0415 - when the pictures are drawn there may be no memory left for it

    def _load_ahead(self, batches: Mapping[str, Batch], tokens: int = 1) -> None:
        """Begin to load graphs beside those that come before them, unless memory matters more than time."""
        if self.backend in LOADS_AHEAD and not self.low_memory:
            for component, batch in batches.items():
                self._stages.load_ahead(component, batch=batch, tokens=tokens)

    def _release(self, *components: str) -> None:
        """Free graphs whose part of the work is done, all if none is named, unless they are to be kept."""
        if not self.keep_loaded:
            self._stages.close(*components)
