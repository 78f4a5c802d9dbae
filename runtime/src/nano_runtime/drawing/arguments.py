"""Checks single arguments of a call and fills in those that were left out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nano_runtime.arrays import F32
from nano_runtime.bundle.wiring import Task
from nano_runtime.errors import (
    LatentsError,
    ListLengthError,
    MissingArgumentError,
    OptionError,
    OtherTaskError,
    SizeError,
)
from nano_runtime.errors.wording import named
from nano_runtime.options import MOST_PICTURES
from nano_runtime.sampling.variation import Variation
from nano_runtime.values import checked_nearness, checked_seed, checked_variation

__all__ = [
    "array_from",
    "check_size",
    "image_guidance",
    "negatives_from",
    "random_seed",
    "repeated",
    "replace_latents",
    "seeds_from",
    "unit_noise",
    "variation_of",
]

_IMAGE_GUIDANCE = 1.5  # diffusers' default
_RANDOM_SEED_BYTES = 4


def random_seed() -> int:
    """Return a random seed, short enough to be typed again."""
    return int.from_bytes(os.urandom(_RANDOM_SEED_BYTES), "little")


def repeated(prompt: str | Sequence[str], count: int) -> tuple[str, ...]:
    """Return the prompt of each picture: every text ``count`` times in a row, as in diffusers.

    Raises:
        OptionError: there are more pictures than one call draws.
    """
    texts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    if count * len(texts) > MOST_PICTURES:
        raise OptionError("num_images_per_prompt", count, f"at most {MOST_PICTURES} pictures to a call")
    return tuple(text for text in texts for _ in range(count))


def image_guidance(scale: float | None, task: Task) -> float | None:
    """Return the guidance scale of the picture, for None diffusers' default; None for UNets that see no such picture.

    Raises:
        OtherTaskError: the bundle has no use for one.
        ImageGuidanceError: it is not a number from 0 to 1000.
    """
    if task != "instruct-pix2pix":
        if scale is not None:
            raise OtherTaskError("image_guidance_scale", task)
        return None
    if scale is None:
        return _IMAGE_GUIDANCE
    return checked_nearness(scale)


def negatives_from(negative: str | Sequence[str] | None, prompts: int, count: int) -> tuple[str, ...]:
    """Return the negative prompt of each picture, of ``count`` pictures to a prompt; None means the empty text.

    Raises:
        ListLengthError: there is a list, and not one for each prompt.
    """
    if negative is None or isinstance(negative, str):
        return ("" if negative is None else negative,) * (prompts * count)
    if len(negative) != prompts:
        wanted = "one for each prompt, or one text for all"
        raise ListLengthError("negative_prompt", len(negative), prompts, "prompt", wanted)
    return repeated(negative, count)


def seeds_from(seed: int | Sequence[int] | None, count: int, *, counting: bool) -> tuple[int, ...]:
    """Return a seed for each picture, consecutive if ``counting``, else all the same; None starts at a random one.

    Raises:
        SeedError: one of them does not fit into 64 bits.
        ListLengthError: there is a list, and not one for each picture.
    """
    if isinstance(seed, Sequence):
        if len(seed) != count:
            pictures = f"{named('num_images_per_prompt')} of each prompt, those of the first prompt first"
            wanted = f"one for each picture ({pictures}), or one number to count from"
            raise ListLengthError("seed", len(seed), count, "picture", wanted)
        return tuple(seeds_from(one, 1, counting=True)[0] for one in seed)
    first = checked_seed(random_seed() if seed is None else int(seed), count if counting else 1)
    return tuple(range(first, first + count)) if counting else (first,) * count


def variation_of(seed: int | None, strength: float | None, count: int) -> Variation | None:
    """Return the variation of ``count`` pictures, whose seeds count up; None for no strength and for 0.

    Raises:
        MissingArgumentError: a seed without a strength.
        VariationError: the strength is not in [0, 1].
        SeedError: a seed does not fit into 64 bits.
    """
    if strength is None:
        if seed is not None:
            raise MissingArgumentError("variation_seed", "variation_strength")
        return None
    share = checked_variation(strength)
    return None if share == 0 else Variation(seeds_from(seed, count, counting=True), share)


def unit_noise(latents: F32, shape: tuple[int, ...]) -> F32:
    """Return a copy of the caller's noise.

    Raises:
        LatentsError: it is not float32 of this shape, or not finite.
    """
    found = array_from(latents, shape)
    if found.shape != shape or found.dtype != np.float32:
        raise LatentsError(f"{found.dtype} {list(found.shape)}", shape)
    if not np.isfinite(found).all():
        raise LatentsError("not finite", shape)
    return np.array(found, np.float32, order="C")


def array_from(latents: object, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the array that latents are, or have: numpy's, or torch's tensors.

    Raises:
        LatentsError: they are none, or cannot be read as one; the message names the shape that is wanted.
    """
    if not hasattr(latents, "__array__"):
        raise LatentsError(f"a {type(latents).__name__}", shape)
    try:
        return np.asarray(latents)
    except Exception as error:  # torch has TypeError and RuntimeError: bfloat16, gradients, other devices
        why = str(error).strip().partition("\n")[0]
        raise LatentsError(f"a {type(latents).__name__} that numpy cannot read ({why})", shape) from error


def check_size(asked: tuple[int | None, int | None], built: tuple[int, int]) -> None:
    """Raise ``SizeError`` unless (height, width) are None or those of the bundle."""
    height, width = (own if wish is None else wish for wish, own in zip(asked, built, strict=True))
    if (size := (height, width)) != built:
        raise SizeError(size, built)


def replace_latents(latents: F32, by: Any) -> None:  # noqa: ANN401 - what a caller's function returned
    """Write other numbers into latents, from an array or a tensor of their shape.

    Raises:
        LatentsError: it is none.
    """
    found = array_from(by, latents.shape)
    if found.shape != latents.shape or found.dtype.kind not in "fiu":
        raise LatentsError(f"{found.dtype} {list(found.shape)}", latents.shape)
    if not np.isfinite(found).all():
        raise LatentsError("not finite", latents.shape)
    np.copyto(latents, found, casting="unsafe")
