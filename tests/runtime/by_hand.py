"""The formulas of ``fakes`` drawn by hand: guidance, DDIM and step caching once more, in float64, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.runtime.fakes import FORMULAS, LENGTH, WORDS

from nano_runtime.arrays import F32

__all__ = ["SHARES", "Kept", "Seen", "conditions", "draw_by_hand", "pixels_by_hand", "timesteps_by_hand"]

Array = NDArray[np.float64]
Inputs = dict[str, NDArray[Any]]

SHARES: Array = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
"""The share of the picture's variance that is left at each timestep (diffusers: ``alphas_cumprod``)."""
_GRAPHS = FORMULAS["hoisted"]


@dataclass(frozen=True, eq=False)
class Kept:
    """What inpainting puts back after every call: clean latents, their noise, and the mask, 1 where to draw anew."""

    clean: Array
    noise: Array
    mask: Array


@dataclass(frozen=True, eq=False)
class Seen:
    """What the UNet sees behind the latents, [1, K, 4, 4], and the scale of guidance by it, None for no such."""

    behind: Array
    scale: float | None = None


def conditions(*chunks: Sequence[str], scale: float = 1.0) -> Inputs:
    """Return the UNet's inputs for the words of each chunk; ``scale`` multiplies the hidden states, BOS and all."""
    keys, values = [], []
    for words in chunks:
        ids = [1, *(WORDS[word] for word in words), 2]
        ids += [0] * (LENGTH - len(ids))
        hidden = _GRAPHS["text_encoder"](np.array([ids]))["last_hidden_state"]
        projected = _GRAPHS["unet_prompt"](hidden * scale)
        keys.append(projected["key_0"])
        values.append(projected["value_0"])
    return {"key_0": np.concatenate(keys, axis=2), "value_0": np.concatenate(values, axis=1)}


def timesteps_by_hand(steps: int) -> list[int]:
    """Return DDIM's timesteps: whole strides up from 0, from noisy to clean, all shifted by 1."""
    return [index * (1000 // steps) + 1 for index in reversed(range(steps))]


def draw_by_hand(
    start: Array | F32,
    positive: Inputs,
    negative: Inputs,
    *,
    scale: float,
    steps: int,
    letters: str,
    kept: Kept | None = None,
    seen: Seen | None = None,
) -> Array:
    """Return the final latents of one picture.

    Args:
        start: [1, 4, 4, 4] before the first call.
        positive: of the prompt.
        negative: of the negative prompt.
        scale: of guidance.
        steps: of the schedule.
        letters: of each call: w for the whole UNet and s for the shallow one, in capitals with guidance. The calls are
            the last ones of the schedule.
        kept: put back after each call; None for nothing.
        seen: behind the latents; None for nothing.
    """
    latents: Array = start.astype(np.float64)
    timesteps = timesteps_by_hand(steps)[-len(letters) :]
    features: list[tuple[int, list[Array]]] = []  # of the whole calls: the timestep, and the feature of each row

    for index, (letter, timestep) in enumerate(zip(letters, timesteps, strict=True)):
        rows = [(negative, 1.0), (positive, 1.0)] if letter.isupper() else [(positive, 1.0)]
        if letter.isupper() and seen is not None and seen.scale is not None:
            rows = [(negative, 0.0), *rows]
        time = _GRAPHS["unet_time"](np.array([float(timestep)]))
        inputs = [{"sample": _beside(latents, seen, share), **row, **time} for row, share in rows]
        if letter in "wW":
            outputs = [_GRAPHS["unet"](**row) for row in inputs]
            features.append((timestep, [row["deep_feature"] for row in outputs]))
        else:
            deep = _line(features[-2:], timestep, len(rows))
            outputs = [_GRAPHS["unet_shallow"](**row, deep_feature=one) for row, one in zip(inputs, deep, strict=True)]
        blind, away, noise = outputs[0]["out_sample"], outputs[-2:][0]["out_sample"], outputs[-1]["out_sample"]
        if seen is not None and seen.scale is not None and letter.isupper():
            noise = blind + scale * (noise - away) + seen.scale * (away - blind)
        elif letter.isupper():
            noise = away + scale * (noise - away)
        share, target = SHARES[timestep], SHARES[max(timestep - 1000 // steps, 0)]
        picture = (latents - (1 - share) ** 0.5 * noise) / share**0.5
        latents = target**0.5 * picture + (1 - target) ** 0.5 * noise
        if kept is not None:
            following = SHARES[timesteps[index + 1]] if index + 1 < len(timesteps) else 1.0
            noised = following**0.5 * kept.clean + (1 - following) ** 0.5 * kept.noise
            latents = kept.mask * latents + (1 - kept.mask) * noised
    return latents


def _beside(latents: Array, seen: Seen | None, share: float) -> Array:
    """Return the UNet's sample: the latents, and a share of what it sees behind them."""
    return latents if seen is None else np.concatenate([latents, share * seen.behind], axis=1)


def _line(known: list[tuple[int, list[Array]]], timestep: int, rows: int) -> list[Array]:
    """Return the features of the last rows on the line through the last two whole calls, if both had so many rows."""
    now, latest = known[-1]
    before, earlier = known[0]
    if now == before or len(earlier) < rows:
        return latest[-rows:]
    share = (timestep - now) / (now - before)
    return [last + share * (last - old) for last, old in zip(latest[-rows:], earlier[-rows:], strict=True)]


def pixels_by_hand(latents: Array) -> Array:
    """Return the picture of final latents, [n, 32, 32, 3] in [0, 1]; 0.25 is the bundle's scaling factor."""
    decoded = _GRAPHS["vae_decoder"](latents.astype(np.float64) / 0.25)["sample"]
    return np.clip((decoded + 1) / 2, 0, 1).transpose(0, 2, 3, 1)
