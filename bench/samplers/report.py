"""Turns verdicts on pictures into rows, a Markdown table and a JSON file, from which a default can be chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from bench.samplers.sweep import CELLS, CONTROLS, FEW, REFERENCE, Cell, Judged

from nano_export.choose.presets import work_share
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.samplers import NOISY, SAMPLERS

__all__ = ["Row", "markdown", "rows", "write_report"]

_HEAD = """\
# Samplers: quality against cost

{few} prompts of the demo ({many} of them with more than {most} steps), each drawn from the same seed in every way, with
the guidance of the card. The picture of many steps is {reference.steps} steps of `{reference.scheduler}`. Samplers that
add noise ({noisy}) draw another picture of the prompt: for them only
the first two tables say how good it is. Made by `python -m bench.samplers`; samplers.json has all figures."""


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


_MEASURES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("Pictures with the concept and the colour asked for, %", lambda row: f"{row.both:.0%}".removesuffix("%")),
    ("Correlation with the template: how clean the drawing is", lambda row: f"{row.correlation:.3f}"),
    ("PSNR to the picture of many steps, dB", lambda row: f"{row.image_psnr_db:.1f}"),
    ("SSIM to the same", lambda row: f"{row.image_ssim:.3f}"),
    ("Latents to the same, dB", lambda row: f"{row.latent_psnr_db:.1f}"),
    ("UNet: calls, and 10^9 multiply-accumulates", lambda row: f"{row.calls}, {row.macs / 1e9:.1f}"),
)


def markdown(table: Sequence[Row]) -> str:
    """Return a table of each sampler, one line for each number of steps, and the controls."""
    groups: dict[tuple[str, str], list[Row]] = {}
    controls = [row for row in table if row.cell in CONTROLS]
    for row in table:
        if row.cell not in CONTROLS:
            groups.setdefault((row.cell.scheduler, row.cell.quality), []).append(row)
    steps = sorted({row.cell.steps for found in groups.values() for row in found})
    pictures = {row.cell.steps > FEW: row.pictures for found in groups.values() for row in found}
    columns = f"| | {' | '.join(map(str, steps))} |\n{'|---' * (len(steps) + 1)}|"
    parts = []
    for title, of in _MEASURES:
        lines = [f"### {title}", "", columns]
        for (scheduler, quality), found in groups.items():
            cells = {row.cell.steps: of(row) for row in found}
            name = scheduler if quality == "exact" else f"{scheduler}, {quality}"
            lines.append(f"| `{name}` | {' | '.join(cells.get(count, '') for count in steps)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(
        [
            _HEAD.format(
                few=pictures[False], many=pictures.get(True, 0), most=FEW, reference=REFERENCE, noisy=_named(NOISY)
            ),
            *parts,
            _agreement(controls),
        ]
    )


def _named(names: Container[str]) -> str:
    """Return samplers in the order of the table, as code."""
    return ", ".join(f"`{name}`" for name in SAMPLERS if name in names)


def _agreement(controls: Sequence[Row]) -> str:
    """Return the distance of other samplers with many steps from the reference."""
    lines = [f"| `{row.cell.scheduler}` | {row.cell.steps} | {row.image_psnr_db:.1f} |" for row in controls]
    title = (
        f"### Many steps of others, {max((row.pictures for row in controls), default=0)} pictures: dB to the reference"
    )
    return "\n".join([title, "", "| | steps | PSNR |\n|---|---|---|", *lines])


def write_report(pipe: Pipeline, judged: Sequence[Judged], folder: Path) -> None:
    """Write samplers.md, samplers.json and samplers.png."""
    from bench.samplers.chart import draw_chart  # noqa: PLC0415 - a library that only charts need

    table = rows(pipe, judged)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samplers.md").write_text(markdown(table) + "\n", encoding="utf-8")
    document = {
        "bundle": pipe.bundle.manifest.name,
        "bundle_digest": pipe.bundle.digest,
        "backend": pipe.backend,
        "guidance_scale": pipe.bundle.manifest.guidance_scale,
        "reference": asdict(REFERENCE),
        "rows": [asdict(row) for row in table],
    }
    (folder / "samplers.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    call_macs = round(next(row.macs / row.calls for row in table if row.cell.quality == "exact"))
    draw_chart(table, pipe.bundle.manifest.default, call_macs, folder / "samplers.png")
