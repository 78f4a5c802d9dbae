"""What a picture costs: its time over UNet calls, over pictures per call and over size, with the fixed part told apart.

    python -m bench.cost build/synthetic-int8
    python -m bench.cost build/synthetic-int8 --size build/size64 --size build/size256

Each engine draws with a loaded pipeline, so that what is fitted is a picture's own cost: ``time = fixed + calls *
each``. The points of a curve are drawn in turns and their medians taken, as a machine's speed drifts. Results are a
table, a chart and all samples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from tqdm import tqdm

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import BACKENDS
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.machine import describe_machine

mpl.use("Agg")  # no window

RESULTS = Path(__file__).parent / "results"
PROMPT, SCHEDULER, GUIDANCE = "a red fox", "ddim", 7.5  # ddim makes as many UNet calls as steps
STEPS = (5, 10, 20, 40)
PICTURES = (1, 2, 4)
STEPS_OF_OTHERS = 10
"""For the curves over pictures and size."""


@dataclass(frozen=True)
class Point:
    """One setting and what it took.

    Attributes:
        backend: the engine.
        curve: what is varied: ``steps``, ``pictures`` or ``size``.
        value: of what is varied.
        ms: of each call after the first, milliseconds of wall clock from prompt to pixels.
        unet_ms: median of a UNet call.
        pictures: that the call drew.
    """

    backend: Backend
    curve: str
    value: int
    ms: list[float]
    unet_ms: float
    pictures: int

    @property
    def picture_ms(self) -> float:
        """Milliseconds for each picture, the median."""
        return median(self.ms) / self.pictures


@dataclass(frozen=True)
class Fit:
    """``milliseconds = fixed + value * each``, by least squares, and the share of the variance that explains."""

    backend: Backend
    curve: str
    fixed_ms: float
    each_ms: float
    r_squared: float


def measure(bundle: Path, sizes: Sequence[Path], backend: Backend, runs: int) -> Iterator[Point]:
    """Draw all points of one engine."""
    pipe = Pipeline.from_pretrained(bundle, backend)
    yield from _curve(pipe, "steps", [(steps, steps, 1) for steps in STEPS], runs)
    for pictures in PICTURES:  # another batch loads the UNet anew, so these cannot take turns
        yield from _curve(pipe, "pictures", [(pictures, STEPS_OF_OTHERS, pictures)], runs)
    pipe.close()
    for other in sorted([bundle, *sizes], key=lambda folder: Bundle.open(folder).manifest.image_size):
        sized = Pipeline.from_pretrained(other, backend)
        yield from _curve(sized, "size", [(sized.bundle.manifest.image_size[0], STEPS_OF_OTHERS, 1)], runs)
        sized.close()


def _curve(pipe: Pipeline, name: str, points: Sequence[tuple[int, int, int]], runs: int) -> Iterator[Point]:
    """Draw points (value, steps, pictures) in turns."""
    samples: dict[int, list[float]] = {value: [] for value, _, _ in points}
    calls: dict[int, list[float]] = {value: [] for value, _, _ in points}
    for run in range(runs + 1):
        for value, steps, pictures in points if run % 2 == 0 else reversed(points):
            result = pipe(
                f"{PROMPT}, {run}",
                num_inference_steps=steps,
                scheduler=SCHEDULER,
                guidance_scale=GUIDANCE,
                seed=run,
                num_images_per_prompt=pictures,
            )
            if run > 0:
                samples[value].append(result.timings.total_ms)
                calls[value] += result.timings.run_ms["unet"]
    for value, _, pictures in points:
        yield Point(pipe.backend, name, value, samples[value], median(calls[value]), pictures)


def fit(points: Sequence[Point]) -> Fit:
    """Fit the points of one curve of one engine: milliseconds of a call over steps or pictures."""
    x = np.array([point.value for point in points], float)
    y = np.array([median(point.ms) for point in points])
    each, fixed = np.polyfit(x, y, 1)
    residual = float(((y - fixed - each * x) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    return Fit(points[0].backend, points[0].curve, float(fixed), float(each), 1 - residual)


def table(points: Sequence[Point], fits: Sequence[Fit]) -> str:
    """Return two Markdown tables: the points, and what was fitted to them."""
    lines = ["| engine | varied | value | picture s | pictures/min | UNet call ms |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {point.backend} | {point.curve} | {point.value} | {point.picture_ms / 1e3:.2f} "
        f"| {60e3 / point.picture_ms:.1f} | {point.unet_ms:.0f} |"
        for point in points
    ]
    lines += ["", "| engine | over | fixed ms | each ms | R² |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.backend} | {one.curve} | {one.fixed_ms:.0f} | {one.each_ms:.0f} | {one.r_squared:.4f} |"
        for one in fits
    ]
    return "\n".join(lines) + "\n"


def draw_chart(points: Sequence[Point], fits: Sequence[Fit], path: Path) -> None:
    """Write a PNG with one panel per curve."""
    names = {"steps": "UNet calls", "pictures": "pictures per call", "size": "pixels, width and height"}
    figure, panels = plt.subplots(1, len(names), figsize=(13, 4), layout="constrained")
    colors = dict(zip(BACKENDS, ("#1c7ed6", "#d9480f"), strict=True))
    for panel, (curve, title) in zip(panels, names.items(), strict=True):
        for backend in dict.fromkeys(point.backend for point in points):
            own = [point for point in points if (point.curve, point.backend) == (curve, backend)]
            x, y = [point.value for point in own], [point.picture_ms / 1e3 for point in own]
            line = next((one for one in fits if (one.curve, one.backend) == (curve, backend)), None)
            label: str = backend
            if line is not None:
                label += f": {line.fixed_ms / 1e3:.2f} s + {line.each_ms / 1e3:.3f} s each"
            panel.plot(x, y, "o-", color=colors[backend], label=label)
        panel.set(xlabel=title, ylabel="seconds a picture", ylim=(0, None), xlim=(0, None))
        panel.legend()
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bundle", type=Path, help="the full-size bundle")
    add("--size", type=Path, action="append", default=[], metavar="DIR", help="of other picture sizes; repeatable")
    add("--backend", choices=BACKENDS, action="append", help="repeatable (default: all that the bundle serves)")
    add("--runs", type=int, default=3, metavar="N", help="calls of each point after the first (default: %(default)s)")
    add("--output", type=Path, default=RESULTS, metavar="DIR", help="for cost.md, cost.json and cost.png")
    options = parser.parse_args()
    backends = options.backend or Bundle.open(options.bundle).manifest.backends
    total = len(backends) * (len(STEPS) + len(PICTURES) + 1 + len(options.size))
    points = list(
        tqdm(
            (point for one in backends for point in measure(options.bundle, options.size, one, options.runs)),
            total=total,
            unit="point",
        )
    )
    fits = [
        fit([point for point in points if (point.curve, point.backend) == (curve, backend)])
        for backend in backends
        for curve in ("steps", "pictures")
    ]
    text = table(points, fits)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "cost.md").write_text(text, encoding="utf-8")
    document = {
        "machine": asdict(describe_machine()),
        "conditions": {"scheduler": SCHEDULER, "guidance_scale": GUIDANCE, "steps_of_others": STEPS_OF_OTHERS},
        "points": [asdict(point) for point in points],
        "fits": [asdict(one) for one in fits],
    }
    (options.output / "cost.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw_chart(points, fits, options.output / "cost.png")
    print(text, end="")


if __name__ == "__main__":
    main()
