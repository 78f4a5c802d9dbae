"""Draws the rows as two charts over the cost: prompts drawn as asked, and how near to the finished picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from bench.samplers.report import Row
from bench.samplers.sweep import CONTROLS, STEPS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from nano_runtime.manifest import Default
from nano_runtime.samplers import NOISY

__all__ = ["draw_chart"]

mpl.use("Agg")  # no window

_COLORS = {
    "dpmpp_2m_karras": "#d9480f",
    "pndm": "#1f2328",
    "unipc_karras": "#e8a13a",
    "dpmpp_2m_exponential": "#b65fcf",
    "dpmpp_2m": "#1c7ed6",
    "dpmpp_3m": "#74b8f0",
    "unipc": "#0b3d91",
    "ddim": "#2b8a3e",
    "euler": "#8fce6a",
    "heun": "#e64980",
    "lms": "#868e96",
    "dpmpp_2m_beta": "#c0b283",
    "euler_a": "#12b886",
    "ddpm": "#5c940d",
    "ddim_a": "#a9e34b",
    "dpmpp_2m_sde": "#4dabf7",
    "lcm": "#ffa8a8",
    "tcd": "#c2255c",
}
_DASHES = {"exact": "-", "balanced": "--", "fast": ":"}


def draw_chart(table: Sequence[Row], default: Default | None, call_macs: int, path: Path) -> None:
    """Write a PNG.

    Args:
        table: all rows.
        default: is marked.
        call_macs: multiply-accumulates of one whole UNet call, the unit below.
        path: of the file.
    """
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in table:
        if row.cell not in CONTROLS:
            lines.setdefault((row.cell.scheduler, row.cell.quality), []).append(row)
    figure, panels = plt.subplots(1, 2, figsize=(15, 7), layout="constrained")
    for (name, quality), rows in lines.items():
        style = {"color": _COLORS.get(name, "#868e96"), "linestyle": _DASHES[quality], "marker": "o", "markersize": 3}
        style["linewidth"] = 2.4 if name in {"pndm", "dpmpp_2m_karras"} else 1.1
        label = name if quality == "exact" else f"{name}, {quality}"
        cost = [row.macs / call_macs for row in rows]
        panels[0].plot(cost, [100 * row.both for row in rows], **style, label=label)
        if name not in NOISY:
            panels[1].plot(cost, [row.image_psnr_db for row in rows], **style, label=label)
        for row in rows:
            if default is not None and row.cell == type(row.cell)(default.scheduler, default.steps):
                for panel, value in ((panels[0], 100 * row.both), (panels[1], row.image_psnr_db)):
                    panel.plot([row.macs / call_macs], [value], marker="*", markersize=18, color=style["color"])
    pictures = max(row.pictures for row in table)
    _finish(panels[0], f"Of {pictures} prompts, drawn as asked: concept and colour, %")
    _finish(panels[1], "PSNR to the picture of 200 steps, dB; samplers without noise")
    panels[0].set_ylim(bottom=max(40, panels[0].get_ylim()[0]))
    panels[1].set_ylim(bottom=max(15, panels[1].get_ylim()[0]))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _finish(panel: Axes, title: str) -> None:
    panel.set_title(title, loc="left", fontsize=12)
    panel.set_xlabel("work of the UNet, in whole guided calls; the star is the bundle's default")
    panel.set_xscale("log")
    ticks = [2, 3, *STEPS, 100]
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_major_formatter(FixedFormatter([str(tick) for tick in ticks]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
