"""Puts verdicts on pictures together: a row for each way to draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from bench.samplers.sweep import CELLS, CONTROLS, FEW, Cell, Judged

from nano_export.choose.presets import work_share
from nano_runtime.pipeline import Pipeline

__all__ = ["Row", "rows"]


@dataclass(frozen=True)
class Row:
    """One way to draw. Shares are in 0..1; distances from the reference are means over the pictures.

    Attributes:
        cell: the way.
        pictures: number of pictures that were judged.
        calls: UNet calls for a picture.
        macs: multiply-accumulates of these calls.
        concept: share of pictures with the concept asked for.
        color: share on the colour asked for.
        both: share with both.
        correlation: with the best template, -1..1.
        image_psnr_db: see ``Judged``, as the next two.
        image_ssim: structural similarity.
        latent_psnr_db: of the final latents.
    """

    cell: Cell
    pictures: int
    calls: int
    macs: int
    concept: float
    color: float
    both: float
    correlation: float
    image_psnr_db: float
    image_ssim: float
    latent_psnr_db: float


def rows(pipe: Pipeline, judged: Iterable[Judged]) -> list[Row]:
    """Put the pictures of each cell together, of the seeds that all cells have: a sweep can be ended early."""
    by_cell: dict[Cell, dict[int, Judged]] = {}
    for one in judged:
        by_cell.setdefault(one.cell, {})[one.seed] = one
    common = {
        many: set.intersection(*(set(by_cell.get(cell, ())) for cell in CELLS if many or cell.steps <= FEW))
        for many in (False, True)
    }
    seeds = {cell: sorted(common[cell.steps > FEW]) for cell in CELLS}
    seeds |= {cell: sorted(by_cell.get(cell, ())) for cell in CONTROLS}
    return [_row(pipe, cell, [by_cell[cell][seed] for seed in chosen]) for cell, chosen in seeds.items() if chosen]


def _row(pipe: Pipeline, cell: Cell, judged: Sequence[Judged]) -> Row:
    manifest = pipe.bundle.manifest
    plan = pipe.plan("", num_inference_steps=cell.steps, scheduler=cell.scheduler, quality=cell.quality)
    calls = plan.unet_calls
    whole = sum(work.macs for work in manifest.components["unet"].work) * (2 if manifest.guidance_scale > 1 else 1)
    share = work_share(manifest, calls, plan.shortcuts)
    return Row(
        cell=cell,
        pictures=len(judged),
        calls=calls,
        macs=round(whole * calls * share),
        concept=mean(one.concept for one in judged),
        color=mean(one.color for one in judged),
        both=mean(one.concept and one.color for one in judged),
        correlation=mean(one.correlation for one in judged),
        image_psnr_db=mean(one.image_psnr_db for one in judged),
        image_ssim=mean(one.image_ssim for one in judged),
        latent_psnr_db=mean(one.latent_psnr_db for one in judged),
    )
