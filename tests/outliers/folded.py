"""Makes outlier channels in a checkpoint that still computes the same: scaled where they are written, and back.

Trained networks have a few channels that are tens of times larger than the others. Here a share of all channels on
linear paths (``paths``, ``streams``) becomes such channels, in weights alone: in exact arithmetic no picture changes.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from tests.outliers.paths import COMPONENTS, Component, LinearPath, direct_paths
from tests.outliers.shifts import shifts
from tests.outliers.streams import stream_paths

from nano_export.judge.original import Reference, draw_references
from nano_export.source.checkpoint import Checkpoint
from nano_runtime.arrays import F32

__all__ = ["TOLERANCE", "Folding", "apply", "change", "copied", "draw", "fold", "paths_of"]

TOLERANCE = 1e-4
"""The largest change of a folded checkpoint's results that counts as rounding, as a share of their range."""

_STEPS = 4
_GUIDANCE = 2.0
_PROMPT = "a lion on a purple background"


@dataclass(frozen=True, kw_only=True)
class Folding:
    """What is scaled.

    Attributes:
        share: of the channels of each path, from 0 to 1; each is chosen with this probability.
        scale: factor of the chosen channels.
        spread: standard deviation of the logarithm of a factor that all channels have; 0 leaves the others alone.
        shift: constant that is added to the chosen channels of a bias, with a random sign; 0 adds none. See ``shifts``.
        seed: of the choice.
        where: networks whose layers are scaled up. The reader may be in another one.
    """

    share: float = 0.02
    scale: float = 40.0
    spread: float = 0.0
    shift: float = 0.0
    seed: int = 0
    where: Collection[Component] = COMPONENTS


def fold(checkpoint: Checkpoint, folding: Folding) -> tuple[Checkpoint, float]:
    """Return a copy of a checkpoint with outlier channels, and the ``change`` of its results, which is rounding.

    Raises:
        AssertionError: its latents, pictures or encoded pictures are not the checkpoint's; see ``change``.
    """
    folded = copied(checkpoint)
    random = torch.Generator().manual_seed(folding.seed)
    for path in paths_of(folded):
        count = int(path.blocks.max()) + 1  # drawn for every path, so that a choice is the same whatever ``where`` says
        chosen = torch.rand(count, generator=random) < folding.share
        spread = torch.exp(folding.spread * torch.randn(count, generator=random))
        if path.component in folding.where:
            apply(path, (torch.where(chosen, folding.scale, 1.0) * spread)[path.blocks])
    for one in shifts(folded.unet, folded.text_encoder, folded.vae):
        signs = torch.rand(len(one.bias), generator=random).sub(0.5).sign()
        chosen = torch.rand(len(one.bias), generator=random) < folding.share
        if folding.shift and one.component in folding.where:
            one.apply(folding.shift * signs * chosen)
    changed = change(checkpoint, folded)
    if not changed < TOLERANCE:
        raise AssertionError(f"the folded checkpoint computes something else: {changed:.1e} of the range")
    return folded, changed


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with networks of its own, to change."""
    return replace(checkpoint, **{component: copy.deepcopy(getattr(checkpoint, component)) for component in COMPONENTS})


def paths_of(checkpoint: Checkpoint) -> Iterator[LinearPath]:
    """Yield all linear paths of a checkpoint's networks."""
    yield from direct_paths(checkpoint.unet, checkpoint.text_encoder, checkpoint.vae)
    yield from stream_paths(checkpoint.unet, checkpoint.vae)


@torch.no_grad()
def apply(path: LinearPath, factors: torch.Tensor) -> None:
    """Multiply what is written, and divide where it is read, in place.

    Args:
        path: of the networks that are changed.
        factors: float32 [channels].
    """
    for part in path.writers:
        part.scale(factors)
    for part in path.readers:
        part.scale(1 / factors)


def change(before: Checkpoint, after: Checkpoint) -> float:
    """Return the largest change of latents, of a decoded picture or of its encoded form, as a share of their range."""
    pairs = zip(draw(before), draw(after), strict=True)
    return max(float(np.abs(new - old).max() / np.ptp(old)) for old, new in pairs)


def draw(checkpoint: Checkpoint) -> list[F32]:
    """Draw one picture with diffusers' pipeline in fp32; return latents, picture before it is clamped, and moments."""
    size = checkpoint.unet.config.sample_size * 2 ** (len(checkpoint.vae.config.block_out_channels) - 1)
    reference: Reference
    (reference,) = draw_references(checkpoint, [_PROMPT], _STEPS, _GUIDANCE, size)
    halves = [probe.output for probe in reference.probes if probe.component in {"vae_decoder", "vae_encoder"}]
    return [reference.latents, *halves]
