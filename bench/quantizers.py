"""Compares two ways to an INT8 UNet for OpenVINO: the bundle's own QDQ graph, and NNCF's post-training quantization.

    python bench/quantizers.py FP32_BUNDLE INT8_BUNDLE

Both are judged on a trajectory of the fp32 bundle that neither was calibrated on: PSNR against its UNet, and
milliseconds per call at batch 2, taken in turns. Needs nncf; the full-size network takes 15 GB.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # nncf and openvino would report their use

import nncf
import numpy as np
import openvino

from nano_export.judge.metrics import psnr_db
from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.engines import Batch, EngineOptions
from nano_runtime.engines.base import Runner
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.machine import usable_cores

CALIBRATION_PROMPTS = ["a red fox in fresh snow", "a bowl of ramen, seen from above"]
JUDGE_PROMPT = "A watercolor painting of an otter"
STEPS = 8
RUNS = 12


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


def compiled(model: openvino.Model) -> openvino.InferRequest:
    """Compile for latency with all physical cores, in f32 where a layer is not quantized."""
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(usable_cores()),
    }
    return openvino.Core().compile_model(model, "CPU", options).create_infer_request()


def unet_of(bundle: Path) -> openvino.Model:
    """Read a bundle's UNet with the batch fixed to 2."""
    model = openvino.Core().read_model(bundle / "unet" / "openvino_model.xml")
    model.reshape(
        {port: [2 if size.is_dynamic else size.get_length() for size in port.partial_shape] for port in model.inputs}
    )
    return model


def main() -> None:
    """Quantize, judge, time, print a table."""
    float_bundle, int8_bundle = map(Path, sys.argv[1:])
    calls: list[tuple[dict[str, F32], F32]] = []
    graphs = LoadedGraphs(Bundle.open(float_bundle), "openvino", EngineOptions(usable_cores(), "f32"))
    pipeline = Pipeline(graphs, keep_loaded=False, around=lambda runner: Recorder(runner, calls))
    for prompt in (*CALIBRATION_PROMPTS, JUDGE_PROMPT):
        pipeline(prompt, seed=1, num_inference_steps=STEPS, scheduler="ddim", output_type="latent")
    feeds, judged = [feed for feed, _ in calls[:-STEPS]], calls[-STEPS:]

    quantized = nncf.quantize(unet_of(float_bundle), nncf.Dataset(feeds), subset_size=len(feeds))
    requests = {
        "nncf": compiled(quantized),
        "qdq": compiled(unet_of(int8_bundle)),
        "fp32": compiled(unet_of(float_bundle)),
    }
    samples: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(RUNS):
        for name, request in requests.items():
            start = perf_counter()
            request.infer(feeds[0], share_inputs=True)
            samples[name].append((perf_counter() - start) * 1e3)
    print("| graph | ms a call, median | PSNR dB, mean |\n|---|---|---|")
    for name, request in requests.items():
        scores = []
        for feed, expected in judged:
            request.infer(feed)
            actual = request.get_output_tensor(0).data
            scores.append(psnr_db(actual, expected, float(np.ptp(expected))))
        print(f"| {name} | {median(samples[name][2:]):.0f} | {np.mean(scores):.1f} |")


if __name__ == "__main__":
    main()
