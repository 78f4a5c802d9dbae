"""Writes the rows of a sweep as a Markdown table and a JSON file, from which a default can be chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.samplers.rows import Row, rows
from bench.samplers.sweep import CONTROLS, FEW, REFERENCE, Judged

from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.samplers import NOISY, SAMPLERS

__all__ = ["markdown", "write_report"]

_HEAD = """\
# Samplers: quality against cost

{few} prompts of the demo ({many} of them with more than {most} steps), each drawn from the same seed in every way, with
the guidance of the card. The picture of many steps is {reference.steps} steps of `{reference.scheduler}`. Samplers that
add noise ({noisy}) draw another picture of the prompt: for them only
the first two tables say how good it is. Made by `python -m bench.samplers`; samplers.json has all figures."""


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
