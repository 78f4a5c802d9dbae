"""One drawing request, complete and in range: where optional arguments end."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from nano_runtime.errors import GuidanceError, LatentsError, OptionError, PromptError, SeedError, SizeError
from nano_runtime.manifest import Manifest
from nano_runtime.noise import randn

__all__ = ["OutputType", "Request", "one_of", "positive"]

OutputType = Literal["pil", "np", "latent"]

Choice = TypeVar("Choice", bound=str)

_SEEDS = 1 << 64
_RANDOM_SEED_BYTES = 4  # short enough to be typed again


@dataclass(frozen=True)
class Request:
    """What one call draws.

    Attributes:
        prompts: what to draw, one for each picture.
        negative_prompt: what to move away from; empty for none.
        guidance_scale: classifier-free guidance, at least 0; up to 1 means none.
        seeds: one for each picture.
        noise: float32 [len(seeds), *latent_shape], unit variance.
        output_type: form of the result.
    """

    prompts: tuple[str, ...]
    negative_prompt: str
    guidance_scale: float
    seeds: tuple[int, ...]
    noise: NDArray[np.float32]
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
        latents: NDArray[np.float32] | None,
        output_type: OutputType,
        size: tuple[int | None, int | None],
    ) -> Request:
        """Check the arguments of a call, described there, and fill in what was left out.

        Raises:
            UsageError: an argument is out of range; the leaf says which.
        """
        _check_size(size, manifest.image_size)
        prompts = _repeated(prompt, positive("num_images_per_prompt", count))
        seeds = _seeds(seed, len(prompts))
        shape = (len(prompts), *manifest.latent_shape)
        return cls(
            prompts=prompts,
            negative_prompt="" if negative_prompt is None else _text(negative_prompt),
            guidance_scale=_guidance(guidance_scale),
            seeds=seeds,
            noise=_noise(seeds, manifest) if latents is None else _latents(latents, shape),
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


def _seeds(seed: int | None, count: int) -> tuple[int, ...]:
    """Return consecutive seeds; None starts at a random one."""
    first = int.from_bytes(os.urandom(_RANDOM_SEED_BYTES), "little") if seed is None else int(seed)
    if not 0 <= first <= _SEEDS - count:
        raise SeedError(first)
    return tuple(range(first, first + count))


def _noise(seeds: tuple[int, ...], manifest: Manifest) -> NDArray[np.float32]:
    """Draw each picture's noise from its own seed, so that a picture does not depend on those drawn with it."""
    return np.concatenate([randn(seed, (1, *manifest.latent_shape)) for seed in seeds])


def _latents(latents: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
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
