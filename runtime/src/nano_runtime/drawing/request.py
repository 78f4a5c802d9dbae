"""One drawing request, complete and in range: where optional arguments end."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.manifest import Manifest
from nano_runtime.errors import (
    ConflictError,
    GuidanceError,
    LatentsError,
    MissingArgumentError,
    OptionError,
    PromptError,
    SeedError,
    SizeError,
    VariationError,
)
from nano_runtime.pictures.source import Edit, edit_of
from nano_runtime.sampling.variation import Variation

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["OutputType", "Request", "one_of", "positive", "random_seed"]

OutputType = Literal["pil", "np", "latent"]

Choice = TypeVar("Choice", bound=str)

_SEEDS = 1 << 64
_RANDOM_SEED_BYTES = 4


@dataclass(frozen=True)
class Request:
    """What one call draws.

    Attributes:
        prompts: what to draw, one for each picture.
        negative_prompt: what to move away from; empty for none.
        guidance_scale: classifier-free guidance, at least 0; up to 1 means none.
        seeds: one for each picture.
        latents: float32 [len(seeds), *latent_shape], unit variance, instead of the seeds' noise; None for that.
        variation: whose noise is mixed in; None for nobody's.
        edit: the picture to start from; None starts from noise.
        output_type: form of the result.
    """

    prompts: tuple[str, ...]
    negative_prompt: str
    guidance_scale: float
    seeds: tuple[int, ...]
    latents: F32 | None
    variation: Variation | None
    edit: Edit | None
    output_type: OutputType

    @classmethod
    def checked(
        cls,
        manifest: Manifest,
        *,
        prompt: str | Sequence[str],
        negative_prompt: str | None,
        guidance_scale: float,
        seed: int | None,
        count: int,
        latents: F32 | None,
        output_type: OutputType,
        size: tuple[int | None, int | None],
        image: Image | None,
        mask_image: Image | None,
        strength: float | None,
        variation_seed: int | None,
        variation_strength: float | None,
    ) -> Request:
        """Check the arguments of a call, described there, and fill in what was left out.

        Raises:
            UsageError: an argument is out of range; the leaf says which.
        """
        _check_size(size, manifest.image_size)
        prompts = _repeated(prompt, positive("num_images_per_prompt", count))
        variation = _variation(variation_seed, variation_strength, len(prompts))
        seeds = _seeds(seed, len(prompts), counting=variation is None)
        for name, value in (("image", image), ("variation_strength", variation)):
            if latents is not None and value is not None:
                raise ConflictError("latents", name)
        shape = (len(prompts), *manifest.latent_shape)
        return cls(
            prompts=prompts,
            negative_prompt="" if negative_prompt is None else _text(negative_prompt),
            guidance_scale=_guidance(guidance_scale),
            seeds=seeds,
            latents=None if latents is None else _latents(latents, shape),
            variation=variation,
            edit=edit_of(image, mask_image, strength, manifest.image_size, manifest.latent_shape),
            output_type=one_of("output_type", output_type, get_args(OutputType)),
        )


def positive(argument: str, value: int) -> int:
    """Return a whole number of at least 1, or raise ``OptionError``."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise OptionError(argument, value, ["any whole number from 1"])
    return int(value)


def one_of(argument: str, value: Choice, known: Iterable[Choice]) -> Choice:
    """Return a value that is one of the choices, or raise ``OptionError``."""
    if value not in known:
        raise OptionError(argument, value, known)
    return value


def random_seed() -> int:
    """Return a seed that nobody chose, short enough to be typed again."""
    return int.from_bytes(os.urandom(_RANDOM_SEED_BYTES), "little")


def _text(prompt: str) -> str:
    if not isinstance(prompt, str):
        raise PromptError(f"it is a {type(prompt).__name__}, and one text is expected")
    return prompt


def _repeated(prompt: str | Sequence[str], count: int) -> tuple[str, ...]:
    """Return the prompt of each picture: every text ``count`` times in a row, as in diffusers."""
    texts = (prompt,) if isinstance(prompt, str) or not isinstance(prompt, Sequence) else tuple(prompt)
    if not texts:
        raise PromptError("the list of prompts is empty")
    return tuple(text for text in map(_text, texts) for _ in range(count))


def _guidance(scale: float) -> float:
    if not math.isfinite(scale) or scale < 0:
        raise GuidanceError(scale)
    return float(scale)


def _seeds(seed: int | None, count: int, *, counting: bool) -> tuple[int, ...]:
    """Return a seed for each picture, consecutive if ``counting``, else all the same; None starts at a random one."""
    first = random_seed() if seed is None else int(seed)
    if not 0 <= first <= _SEEDS - (count if counting else 1):
        raise SeedError(first)
    return tuple(range(first, first + count)) if counting else (first,) * count


def _variation(seed: int | None, strength: float | None, count: int) -> Variation | None:
    """Return the variation of each picture, with seeds that count up; strength 0 is none."""
    if strength is None:
        if seed is not None:
            raise MissingArgumentError("variation_seed", "variation_strength")
        return None
    if not (math.isfinite(strength) and 0 <= strength <= 1):
        raise VariationError(strength)
    if strength == 0:
        return None
    return Variation(_seeds(seed, count, counting=True), float(strength))


def _latents(latents: F32, shape: tuple[int, ...]) -> F32:
    """Return a copy of the caller's noise."""
    if not isinstance(latents, np.ndarray):
        raise LatentsError(f"a {type(latents).__name__}", shape)
    if latents.shape != shape or latents.dtype != np.float32:
        raise LatentsError(f"{latents.dtype} {list(latents.shape)}", shape)
    if not np.isfinite(latents).all():
        raise LatentsError("not finite", shape)
    return latents.copy()


def _check_size(asked: tuple[int | None, int | None], built: tuple[int, int]) -> None:
    size = tuple(own if wish is None else wish for wish, own in zip(asked, built, strict=True))
    if size != built:
        raise SizeError(size, built)
