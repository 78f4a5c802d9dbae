"""What to draw: the command line, and where it is silent the picture that ``--from`` names."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nano_runtime.cli.quality_options import guidance_interval
from nano_runtime.errors import NoOriginalError, NoPromptError, OtherBundleError, PromptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from PIL.Image import Image

    from nano_runtime.bundle.folder import Bundle
    from nano_runtime.bundle.manifest import Quality
    from nano_runtime.pictures.png import Parameters
    from nano_runtime.pipeline import Pipeline, Progress, Result
    from nano_runtime.sampling.shortcuts import Shortcuts

__all__ = ["Settings", "check_origin", "settings_of"]


@dataclass(frozen=True, eq=False)
class Settings:
    """Arguments of a call; names and meanings are those of ``Pipeline.__call__``, or of the command line."""

    prompt: str
    negative_prompt: str | None
    steps: int | None
    guidance: float | None
    seed: int | None
    count: int
    scheduler: str | None
    image: Image | None
    mask: Image | None
    strength: float | None
    variation_seed: int | None
    variation_strength: float | None
    weights: bool
    long_prompt: bool
    quality: Quality | None
    cache_interval: int | None
    guidance_interval: tuple[float, float] | None

    def stream(self, pipe: Pipeline) -> Iterator[Progress | Result]:
        """Draw."""
        return pipe.stream(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            seed=self.seed,
            num_images_per_prompt=self.count,
            scheduler=self.scheduler,
            image=self.image,
            mask_image=self.mask,
            strength=self.strength,
            variation_seed=self.variation_seed,
            variation_strength=self.variation_strength,
            prompt_weighting=self.weights,
            long_prompts=self.long_prompt,
            quality=self.quality,
            cache_interval=self.cache_interval,
            guidance_interval=self.guidance_interval,
        )

    def calls(self, pipe: Pipeline) -> int:
        """Return how often the UNet is going to run."""
        from nano_runtime.pictures.source import strength_of

        share = 1.0 if self.image is None else strength_of(self.strength, masked=self.mask is not None)
        return pipe.unet_calls(self.steps, self.scheduler, self.count, share)

    def shortcuts(self, pipe: Pipeline) -> Shortcuts:
        """Return what is left out of the exact computation."""
        from nano_runtime.sampling.shortcuts import resolve

        return resolve(pipe.bundle, self.quality, self.cache_interval, self.guidance_interval)


def settings_of(options: Any, origin: Parameters | None) -> Settings:  # noqa: ANN401 - the namespace of the command
    """Complete the command line's options, from a picture's own where there is one.

    Raises:
        NoPromptError: neither has a prompt.
        ImageError: the picture to start from, or its mask, cannot be read.
        PromptError: standard input is not text.
    """
    from nano_runtime.pictures.source import open_picture

    def said(option: Any, of_origin: Callable[[Parameters], Any], otherwise: Any = None) -> Any:  # noqa: ANN401
        return option if option is not None else otherwise if origin is None else of_origin(origin)

    prompt = said(_read_stdin() if options.prompt == "-" else options.prompt, lambda of: of.prompt)
    if prompt is None:
        raise NoPromptError
    interval, preset = guidance_interval(options), options.quality is not None
    return Settings(
        prompt=prompt,
        negative_prompt=said(options.negative_prompt, lambda of: of.negative_prompt),
        steps=said(options.steps, lambda of: of.steps),
        guidance=said(options.guidance, lambda of: of.guidance_scale),
        seed=said(options.seed, lambda of: of.seed),
        count=options.count,
        scheduler=said(options.scheduler, lambda of: of.scheduler),
        image=None if options.image is None else open_picture(options.image),
        mask=None if options.mask is None else open_picture(options.mask),
        strength=said(options.strength, lambda of: of.strength),
        variation_seed=said(options.variation_seed, lambda of: of.variation_seed),
        variation_strength=said(options.variation_strength, lambda of: of.variation_strength),
        weights=options.weights or (origin is not None and origin.prompt_weighting),
        long_prompt=options.long_prompt or (origin is not None and origin.long_prompts),
        quality=options.quality,
        # A preset beside --from takes the place of what the picture was drawn with.
        cache_interval=options.cache_interval if preset else said(options.cache_interval, lambda of: of.cache_interval),
        guidance_interval=interval if preset else said(interval, lambda of: of.guidance_interval),
    )


def check_origin(path: Path, origin: Parameters, settings: Settings, bundle: Bundle, *, chosen: bool) -> None:
    """See whether a picture can be repeated, and say on stderr why it will not be the same.

    Args:
        path: of the picture.
        origin: how it was drawn.
        settings: how it is drawn now.
        bundle: what draws it now.
        chosen: whether that bundle was named, rather than taken for want of a name.

    Raises:
        OtherBundleError: another bundle drew it, and this one was not named.
        NoOriginalError: it was drawn from a picture, and none was given.
    """
    from nano_runtime.pictures.source import edit_of

    if origin.bundle_digest != bundle.digest:
        error = OtherBundleError(path, origin.bundle, origin.bundle_digest, bundle.path)
        if not chosen:
            raise error
        _warn(f"{error.what}; the picture will be another")
    if origin.interrupted_after is not None:
        _warn(f"{path} was interrupted after {origin.interrupted_after} UNet calls; it is drawn to the end now")
    if origin.edited is not None:
        if settings.image is None:
            raise NoOriginalError(path)
        shapes = bundle.manifest.image_size, bundle.manifest.latent_shape
        edit = edit_of(settings.image, settings.mask, settings.strength, *shapes)
        if edit is not None and edit.digest != origin.edited:
            _warn(f"{path} was drawn from another picture or mask; the picture will be another")


def _read_stdin() -> str:
    """Return all of standard input as the prompt."""
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise PromptError("standard input is not text in the terminal's encoding") from error


def _warn(line: str) -> None:
    print(f"nano-generate: warning: {line}", file=sys.stderr)
