"""Compares what `nano-export` says it needs with what it takes: peak memory and time, each export in its own process.

    python -m bench.export_needs
    python -m bench.export_needs --only middle-int8 --only middle-fp16
    python -m bench.export_needs --only sd15-512-int8
    python -m bench.export_needs --model FOLDER_OR_NAME --precision int8 --size 512

Prints a table. The checkpoints are seeded random networks of Stable Diffusion's form, from 20 to some 400 MB in fp32,
stored in fp32 or fp16. Peak memory is the child's ru_maxrss: all resident pages, files that are mapped included.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from nano_export.options import Options, Precision
from nano_export.source import builtin
from nano_export.source.needs import check_resources
from nano_export.source.place import find_model
from nano_runtime.bundle.manifest import Backend

BOTH: tuple[Backend, ...] = ("onnxruntime", "openvino")
ONE: tuple[Backend, ...] = ("onnxruntime",)
# Prints the peak so far at the end of every stage: which one sets it.
_CHILD = """
import os, resource, sys, time
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from pathlib import Path
from nano_export import Options, Progress, export
model, output, precision, size, backends = sys.argv[1:]
backends = tuple(backends.split(","))
asked = Options(model=model, output=Path(output), precision=precision, size=int(size), backends=backends)
stage, start = "", time.monotonic()
for event in export(asked):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    text = event.stage if isinstance(event, Progress) else "done"
    if text.split()[0] != stage:
        stage = text.split()[0]
        print(f"    {time.monotonic() - start:6.1f} s {peak:5.2f} GB before {stage}", file=sys.stderr, flush=True)
"""


@dataclass(frozen=True)
class Case:
    """One export.

    Attributes:
        name: of the row.
        model: to give to ``nano-export``; None for seeded random networks of the sizes below.
        channels: of the UNet's levels.
        text: vocabulary and width of the text encoder.
        layers: of the text encoder.
        vae: channels of the VAE's levels.
        half: whether fp16 is stored.
        precision: of the bundle.
        size: of the pictures, in pixels.
        backends: engines that the bundle serves.
    """

    name: str
    model: str | None = None
    channels: tuple[int, ...] = (32, 64)
    text: tuple[int, int] = (1024, 64)
    layers: int = 6
    vae: tuple[int, ...] = (32, 64, 128, 128)
    half: bool = False
    precision: Precision = "fp32"
    size: int = 64
    backends: tuple[Backend, ...] = ONE


_MIDDLE = Case("middle", channels=(96, 192, 384), text=(8192, 256))
_LARGE = Case("large", channels=(128, 256, 512), text=(49408, 512), size=128)
CASES = (
    Case("tiny", model="tiny", size=128, backends=BOTH),
    Case("demo-int8", model="demo", precision="int8", size=128, backends=BOTH),
    Case("small"),
    Case("small-256", size=256),
    _MIDDLE,
    replace(_MIDDLE, name="middle-fp16", half=True),
    replace(_MIDDLE, name="middle-int8", precision="int8"),
    replace(_MIDDLE, name="middle-256-int8", precision="int8", size=256),
    replace(_LARGE, name="large-fp16", half=True, backends=BOTH),
    replace(_LARGE, name="large-int8", precision="int8", backends=BOTH),
)

_SD15 = Case(
    "sd15-512",
    channels=(320, 640, 1280, 1280),
    text=(49408, 768),
    layers=12,
    vae=(128, 256, 512, 512),
    half=True,
    size=512,
)
FULL_SIZE = (_SD15, replace(_SD15, name="sd15-512-int8", precision="int8", backends=BOTH))
"""Stable Diffusion 1.5's architecture at 512 pixels: run only if named, an hour or more and up to 16 GB each."""


@dataclass(frozen=True)
class Row:
    """What one export was said to need, and what it took."""

    case: Case
    weights_gb: float
    said_gb: float
    said_s: float | None
    peak_gb: float
    took_s: float

    def __str__(self) -> str:
        """The row of the table."""
        return (
            f"| {self.case.name} | {self.weights_gb:.2f} | {self.said_gb:.2f} | {self.peak_gb:.2f} | "
            f"{self.said_gb / self.peak_gb:.2f} | {self.said_s or 0:.0f} | {self.took_s:.0f} |"
        )


HEAD = "| export | weights, GB | said, GB | peak, GB | said / peak | said, s | took, s |\n|---|---|---|---|---|---|---|"


def write_checkpoint(case: Case, folder: Path) -> None:
    """Write seeded random networks of a case's sizes as a diffusers folder."""
    torch.manual_seed(0)
    vocabulary, width = case.text
    levels = len(case.channels)
    down = ("CrossAttnDownBlock2D",) * (levels - 1)
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=case.layers,
        num_attention_heads=width // 64 or 1, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=0,
    )  # fmt: skip
    parts = builtin.Parts(
        tokenizer=builtin.build("tiny").tokenizer,
        text_encoder=CLIPTextModel(config),
        unet=UNet2DConditionModel(
            sample_size=case.size // 8,
            block_out_channels=case.channels,
            layers_per_block=2,
            cross_attention_dim=width,
            attention_head_dim=8,
            down_block_types=(*down, "DownBlock2D"),
            up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * (levels - 1)),
        ),
        vae=AutoencoderKL(
            block_out_channels=case.vae,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            scaling_factor=0.18215,
        ),
        scheduler=dict(builtin.SCHEDULER),
    )
    if case.half:
        for part in (parts.text_encoder, parts.unet, parts.vae):
            part.half()
    builtin.write_checkpoint(parts, folder)


def measure(case: Case, work: Path) -> Row:
    """Export a case in a process of its own."""
    model = case.model
    if model is None:
        model = str(work / "model")
        write_checkpoint(case, work / "model")
    output = work / "bundle"
    options = Options(model=model, output=output, precision=case.precision, size=case.size, backends=case.backends)
    needs = check_resources(find_model(model, None, None), options)
    start = time.monotonic()
    arguments = [model, str(output), case.precision, str(case.size), ",".join(case.backends)]
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", _CHILD, *arguments], os.environ)
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        raise SystemExit(f"the export of {case.name} failed")
    return Row(
        case,
        needs.weight_bytes / 1e9,
        needs.memory_bytes / 1e9,
        needs.seconds,
        usage.ru_maxrss * 1024 / 1e9,
        time.monotonic() - start,
    )


def rows(cases: Sequence[Case]) -> Iterator[Row]:
    """Measure one after the other."""
    for case in cases:
        with TemporaryDirectory(prefix="export-needs-") as work:
            yield measure(case, Path(work))


def main() -> None:
    """Print a row for each export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", choices=[case.name for case in (*CASES, *FULL_SIZE)], help="repeatable"
    )
    parser.add_argument("--model", help="one export of a model of your own, by onnxruntime and openvino")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32", help="of that model")
    parser.add_argument("--size", type=int, default=128, help="of that model's pictures")
    options = parser.parse_args()
    cases = list(CASES)
    if options.only is not None:
        cases = [case for case in (*CASES, *FULL_SIZE) if case.name in options.only]
    if options.model is not None:
        name = Path(options.model).name
        cases = [Case(name, model=options.model, precision=options.precision, size=options.size, backends=BOTH)]
    print(HEAD)
    for row in rows(cases):
        print(row, flush=True)


if __name__ == "__main__":
    main()
