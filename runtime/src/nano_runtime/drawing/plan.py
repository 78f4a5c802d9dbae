"""From options to a plan: every argument checked, nothing unset, every UNet call of the drawing listed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Quality
from nano_runtime.bundle.wiring import UNET_SHALLOW
from nano_runtime.drawing.arguments import (
    check_size,
    image_guidance,
    negatives_from,
    repeated,
    seeds_from,
    unit_noise,
    variation_of,
)
from nano_runtime.drawing.defaults import Defaults
from nano_runtime.errors import ConflictError, MissingArgumentError, NoShortcutError
from nano_runtime.networks.guidance import embedding_width
from nano_runtime.networks.tokenizer import Reading
from nano_runtime.networks.unet_calls import EXACT, Call, Shortcuts, plan_calls, rows_by_graph
from nano_runtime.options import DrawOptions, OutputType
from nano_runtime.pictures.source import Edit, edit_of
from nano_runtime.sampling.samplers import first_call, make_sampler
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.variation import Variation
from nano_runtime.values import checked_guidance, checked_interval

__all__ = ["Plan", "plan_of", "shortcuts_of"]


@dataclass(frozen=True, eq=False)
class Plan:
    """A drawing before anything runs; nothing in it is unset.

    Attributes:
        bundle: digest of the bundle that it is for.
        options: of the call, as they were given.
        image_size: of the pictures, (height, width) in pixels.
        prompts: the text of each picture.
        negative_prompts: the text that each picture moves away from; empty for none.
        guidance_scale: classifier-free guidance, at least 0; up to 1 means none.
        image_guidance_scale: nearness to the picture that the UNet sees, at least 0; below 1 there is no guidance at
            all. None for UNets that are not guided by a picture.
        seeds: the seed of each picture.
        latents: float32 [pictures, *latent_shape], unit variance, instead of the seeds' noise; None for that.
        variation: noise mixed into the seeds'; None for none.
        edit: the picture to start from, or that the UNet sees, and its mask; None starts from noise.
        output_type: form of the result.
        reading: the way in which the prompts are read.
        shortcuts: the work that the calls leave out.
        steps: of the sampler.
        scheduler: name of the sampler.
        timesteps: float32, of each UNet call of the whole schedule.
        first_call: index of the first call that is made: later than 0 with a picture to start from.
        calls: the UNet calls of each picture, as many as timesteps.
        at_once: most pictures that share a UNet call.
        chunks: text encoder's lengths that the prompts of each picture fill; pictures share calls with their like.
    """

    bundle: str
    options: DrawOptions
    image_size: tuple[int, int]
    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    guidance_scale: float
    image_guidance_scale: float | None
    seeds: tuple[int, ...]
    latents: F32 | None
    variation: Variation | None
    edit: Edit | None
    output_type: OutputType
    reading: Reading
    shortcuts: Shortcuts
    steps: int
    scheduler: str
    timesteps: F32
    first_call: int
    calls: tuple[Call, ...]
    at_once: int
    chunks: tuple[int, ...]

    @property
    def guided(self) -> bool:
        """Whether any call needs the negative prompt."""
        return any(call.guided for call in self.calls)

    def texts_of(self, pictures: Iterable[int]) -> list[str]:
        """Return the texts that the UNet has to know for some pictures, negative prompts first, each once."""
        chosen = tuple(pictures)
        negatives = [self.negative_prompts[i] for i in chosen] if self.guided else []
        return list(dict.fromkeys([*negatives, *(self.prompts[i] for i in chosen)]))

    def named(self, text: str) -> str:
        """Return what a text is, for errors and warnings: a prompt, or only a negative one."""
        return "prompt" if text in self.prompts else "negative prompt"

    @property
    def groups(self) -> list[list[int]]:
        """Indices of the pictures that share UNet calls, group by group, if memory suffices."""
        return self.grouped(range(len(self.seeds)), self.at_once)

    def alike(self, pictures: Iterable[int]) -> dict[int, list[int]]:
        """Return pictures by the chunks of their prompts: alone, too, each has no more."""
        found: dict[int, list[int]] = {}
        for picture in pictures:
            found.setdefault(self.chunks[picture], []).append(picture)
        return found

    def grouped(self, pictures: Iterable[int], most: int) -> list[list[int]]:
        """Sort pictures into groups that are drawn together: at most ``most``, of equal size, or nearly."""
        return [
            group.tolist()
            for like in self.alike(pictures).values()
            for group in np.array_split(np.asarray(like), math.ceil(len(like) / most))
        ]

    @property
    def unet_calls(self) -> int:
        """Number of UNet calls of the whole drawing."""
        return len(self.groups) * (len(self.timesteps) - self.first_call)

    @property
    def unet_rows(self) -> dict[str, int | tuple[int, int]]:
        """The UNet graphs that the first group runs, each with its rows; see ``rows_by_graph``."""
        return rows_by_graph(self.calls, len(self.groups[0]))

    def only(self, pictures: Sequence[int]) -> Plan:
        """Return the plan of some of the pictures, which are the same pictures then."""
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in pictures),
            negative_prompts=tuple(self.negative_prompts[i] for i in pictures),
            chunks=tuple(self.chunks[i] for i in pictures),
            seeds=tuple(self.seeds[i] for i in pictures),
            latents=None if self.latents is None else self.latents[list(pictures)],
            variation=None if self.variation is None else self.variation.only(pictures),
        )

    def options_of(self, picture: int) -> DrawOptions:
        """Return the complete options of one picture: drawn with them, alone, it is the same picture."""
        return replace(
            self.options,
            prompt=self.prompts[picture],
            negative_prompt=self.negative_prompts[picture],
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            image_guidance_scale=self.image_guidance_scale,
            seed=self.seeds[picture],
            num_images_per_prompt=1,
            scheduler=self.scheduler,
            height=self.image_size[0],
            width=self.image_size[1],
            strength=None if self.edit is None else self.edit.strength,
            variation_seed=None if self.variation is None else self.variation.seeds[picture],
            variation_strength=None if self.variation is None else self.variation.strength,
            quality=None,  # the intervals say what it meant
            cache_interval=self.shortcuts.cache_interval,
            guidance_interval=self.shortcuts.guidance_interval,
        )


def plan_of(options: DrawOptions, bundle: Bundle, schedule: Schedule, defaults: Defaults, *, at_once: int) -> Plan:
    """Check the options of a call and plan it.

    Args:
        options: of the call.
        bundle: that draws.
        schedule: of the bundle.
        defaults: of the bundle.
        at_once: most pictures that share a UNet call.

    Raises:
        UsageError: an option is out of range, or the bundle cannot draw it; the leaf says which.
    """
    manifest = bundle.manifest
    check_size((options.height, options.width), manifest.image_size)
    prompts = repeated(options.prompt, options.num_images_per_prompt)
    variation = variation_of(options.variation_seed, options.variation_strength, len(prompts))
    seeds = seeds_from(options.seed, len(prompts), counting=variation is None)
    shapes = manifest.image_size, manifest.latent_shape
    if options.mask_blur and not options.keep_unmasked:
        raise MissingArgumentError("mask_blur", "keep_unmasked")
    edit = edit_of(
        options.image,
        options.mask_image,
        options.strength,
        *shapes,
        keep_unmasked=options.mask_blur if options.keep_unmasked else None,
        task=manifest.task,
    )
    starting = edit is not None and edit.is_start
    for name, given in (("image", starting), ("variation_strength", variation is not None)):
        if options.latents is not None and given:
            raise ConflictError("latents", name)
    each = options.num_images_per_prompt
    negatives = negatives_from(options.negative_prompt, len(prompts) // each, each)
    asked = options.guidance_scale
    scale = manifest.guidance_scale if asked is None else checked_guidance(asked)
    nearness = image_guidance(options.image_guidance_scale, manifest.task)
    noise_shape = (len(prompts), *manifest.latent_shape)
    latents = None if options.latents is None else unit_noise(options.latents, noise_shape)
    steps, scheduler = defaults.settle(options.num_inference_steps, options.scheduler)
    shortcuts = shortcuts_of(options, bundle)
    timesteps = make_sampler(scheduler, schedule, steps).timesteps
    first = 0 if edit is None or edit.strength is None else first_call(scheduler, steps, edit.strength)
    guided = scale > 1 and (nearness is None or nearness >= 1) and embedding_width(manifest) is None
    made = plan_calls(len(timesteps) - first, shortcuts, guided=guided, ways=2 if nearness is None else 3)
    return Plan(
        bundle=bundle.digest,
        options=options,
        image_size=manifest.image_size,
        prompts=prompts,
        negative_prompts=negatives,
        guidance_scale=scale,
        image_guidance_scale=nearness,
        seeds=seeds,
        latents=latents,
        variation=variation,
        edit=edit,
        output_type=options.output_type,
        reading=Reading(weighted=options.prompt_weighting, long=options.long_prompts),
        shortcuts=shortcuts,
        steps=steps,
        scheduler=scheduler,
        timesteps=timesteps,
        first_call=first,
        calls=(*made[:1] * first, *made),  # those before the first only keep the indices equal
        at_once=at_once,
        chunks=(1,) * len(prompts),
    )


def shortcuts_of(options: DrawOptions, bundle: Bundle) -> Shortcuts:
    """Return the work that a preset of a bundle leaves out; intervals of the call replace the preset's.

    Raises:
        IntervalError: ``guidance_interval`` is not two shares in ascending order.
        NoShortcutError: the bundle lacks the preset or the shallow graph.
    """
    preset: Quality = "exact" if options.quality is None else options.quality
    known = bundle.manifest.presets
    if preset != "exact" and preset not in known:
        raise NoShortcutError(bundle.path, f"preset {preset!r}")
    meant = EXACT if preset == "exact" else Shortcuts(known[preset].cache_interval, known[preset].guidance_interval)
    every, between = options.cache_interval, options.guidance_interval
    chosen = Shortcuts(
        meant.cache_interval if every is None else every,
        meant.guidance_interval if between is None else checked_interval(between),
    )
    if chosen.cache_interval > 1 and UNET_SHALLOW not in bundle.manifest.components:
        raise NoShortcutError(bundle.path, "shallow UNet, which step caching needs")
    return chosen
