"""Draws three charts over the cost: pictures drawn as asked, cleanness, and distance from the finished picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from bench.samplers.rows import Row
from bench.samplers.sweep import CONTROLS, STEPS, Cell
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from nano_runtime.bundle.manifest import Default
from nano_runtime.sampling.samplers import NOISY

__all__ = ["draw_chart"]

mpl.use("Agg")  # no window

_COLORS = {
    "unipc_karras": "#d9480f",
    "pndm": "#1f2328",
    "dpmpp_2m_karras": "#e8a13a",
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
_WIDE = {"unipc_karras", "pndm"}
_DASHES = {"exact": "-", "balanced": "--", "fast": ":"}


def draw_chart(table: Sequence[Row], default: Default | None, call_macs: int, path: Path) -> None:
    """Write a PNG.

    Args:
        table: all rows.
        default: the bundle's default, marked with a star.
        call_macs: multiply-accumulates of one whole UNet call, the unit of the cost axis.
        path: file to write.
    """
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in table:
        if row.cell not in CONTROLS:
            lines.setdefault((row.cell.scheduler, row.cell.quality), []).append(row)
    figure, panels = plt.subplots(1, 3, figsize=(20, 7.5), layout="constrained")
    for (name, quality), rows in lines.items():
        style = {"color": _COLORS.get(name, "#868e96"), "linestyle": _DASHES[quality], "marker": "o", "markersize": 3}
        style["linewidth"] = 2.6 if name in _WIDE else 1.1
        style["zorder"] = 3 if name in _WIDE else 2
        cost = [row.macs / call_macs for row in rows]
        label = name if quality == "exact" else f"{name}, {quality}"
        for panel, of in zip(panels, _MEASURES, strict=True):
            if of is _nearness and name in NOISY:
                continue
            panel.plot(cost, [of(row) for row in rows], **style, label=label)
            for row in rows:
                if default is not None and row.cell == Cell(default.scheduler, default.steps):
                    star = {"marker": "*", "markersize": 20, "color": style["color"], "markeredgecolor": "white"}
                    panel.plot([row.macs / call_macs], [of(row)], **star, zorder=4)
    pictures = max(row.pictures for row in table)
    _finish(panels[0], f"{pictures} prompts: concept and colour as asked, %", least=50)
    _finish(panels[1], "correlation with the template: clean drawing", least=0.75)
    _finish(panels[2], "PSNR to the picture of 200 steps, dB (without noise)", least=15)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=8, frameon=False, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _accuracy(row: Row) -> float:
    return 100 * row.both


def _cleanness(row: Row) -> float:
    return row.correlation


def _nearness(row: Row) -> float:
    return row.image_psnr_db


_MEASURES = (_accuracy, _cleanness, _nearness)


def _finish(panel: Axes, title: str, least: float) -> None:
    panel.set_title(title, loc="left", fontsize=13)
    panel.set_ylim(bottom=max(least, panel.get_ylim()[0]))
    panel.set_xlabel("work of the UNet, in whole guided calls; the star is the bundle's default")
    panel.set_xscale("log")
    ticks = [2, 3, *STEPS, 100]
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_major_formatter(FixedFormatter([str(tick) for tick in ticks]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
