"""Compares INT8 bundles of one checkpoint on OpenVINO: by our own quantizer, and by NNCF (``nano-export --quantizer``).

    python -m bench.quantizers FP32_BUNDLE INT8_BUNDLE...

Every UNet is judged on a trajectory of the fp32 bundle, of a prompt that calibrated none of them: PSNR against the fp32
bundle's, and milliseconds per call at batch 2, taken in turns.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from nano_export.judge.metrics import psnr_db
from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.engines import Batch, EngineOptions
from nano_runtime.engines.base import Runner
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.processors import usable_cores

JUDGE_PROMPT = "A watercolor painting of an otter"
STEPS = 8
RUNS = 12
WARM_UP = 2


class Recorder:
    """A runner that keeps what goes in and out of the UNet."""

    def __init__(self, runner: Runner, calls: list[tuple[dict[str, F32], F32]]) -> None:
        self._runner = runner
        self._calls = calls

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        """Run, and record the UNet's calls."""
        outputs = self._runner.run(component, feeds, batch=batch)
        if component == "unet":
            self._calls.append(({name: np.array(value) for name, value in feeds.items()}, outputs["out_sample"]))
        return outputs


def opened(bundle: Path) -> LoadedGraphs:
    """Open a bundle on OpenVINO, in f32 where a layer is not quantized."""
    return LoadedGraphs(Bundle.open(bundle), "openvino", EngineOptions(usable_cores(), "f32"))


def main() -> None:
    """Record, judge, time, print a table."""
    bundles = [Path(name) for name in sys.argv[1:]]
    graphs = {bundle: opened(bundle) for bundle in bundles}
    calls: list[tuple[dict[str, F32], F32]] = []
    pipeline = Pipeline(graphs[bundles[0]], keep_loaded=True, around=lambda runner: Recorder(runner, calls))
    pipeline(JUDGE_PROMPT, seed=1, num_inference_steps=STEPS, scheduler="ddim", output_type="latent")

    samples: dict[Path, list[float]] = {bundle: [] for bundle in bundles}
    for _ in range(RUNS):
        for bundle in bundles:
            start = perf_counter()
            graphs[bundle].run("unet", calls[0][0], batch=2)
            samples[bundle].append((perf_counter() - start) * 1e3)
    print("| bundle | quantizer | ms a call, median | PSNR dB, mean | least |\n|---|---|---|---|---|")
    for bundle in bundles:
        scores = [
            psnr_db(graphs[bundle].run("unet", feeds, batch=2)["out_sample"], expected, float(np.ptp(expected)))
            for feeds, expected in calls
        ]
        made = graphs[bundle].bundle.manifest.quantization
        quantizer = "none" if made is None else made.quantizer
        took = f"{median(samples[bundle][WARM_UP:]):.1f}"
        print(f"| {bundle.name} | {quantizer} | {took} | {np.mean(scores):.1f} | {min(scores):.1f} |")


if __name__ == "__main__":
    main()
