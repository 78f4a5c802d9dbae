"""``nano-bench``: how fast bundles are here, per engine and stage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from nano_runtime.bundle import Bundle
from nano_runtime.cli import make_parser, run_command
from nano_runtime.errors import BackendMissingError, OptionError
from nano_runtime.files import write_whole
from nano_runtime.machine import Machine, describe_machine
from nano_runtime.timing import percentile

if TYPE_CHECKING:
    from nano_runtime.backends.base import Precision
    from nano_runtime.benchmark import Case, Measured, Settings
    from nano_runtime.manifest import Backend

__all__ = ["main"]

_EXAMPLES = """\
  nano-bench nano-int8                                       every engine the bundle serves
  nano-bench nano-fp32 nano-int8 --backend openvino:f32 --backend openvino:bf16
  nano-bench nano-int8 --runs 20 --json result.json          all samples, in milliseconds
"""
_WHOLE_MS = 10  # below this, times get two decimals
_COLUMNS = (
    "bundle", "engine", "weights", "image p50 ms", "image p90 ms", "first image ms", "loading ms", "text ms",
    "UNet first ms", "UNet p50 ms", "UNet p90 ms", "VAE ms", "peak RSS MB", "bundle MB",
)  # fmt: skip


class _Options(argparse.Namespace):
    """The command line, typed."""

    bundles: list[Path]
    backends: list[str] | None
    precision: Precision
    prompt: str
    steps: int
    guidance: float
    runs: int
    threads: int | None
    json: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), _bench, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nano-bench",
        "Time bundles on this machine. Every bundle and engine gets a process of its own and stays loaded; they draw "
        "in turns, so that a machine slowing down slows all alike.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("bundles", nargs="+", type=Path, metavar="DIR", help="folders that nano-export wrote")
    add("--backend", dest="backends", action="append", metavar="NAME",
        help="onnxruntime, openvino, or with a precision: openvino:bf16; repeatable (default: all served)")  # fmt: skip
    add("--precision", choices=("f32", "bf16"), default="f32",
        help="of layers that are not INT8, where --backend names none (default: %(default)s)")  # fmt: skip
    add("--prompt", default="a red fox", metavar="TEXT", help="what to draw (default: %(default)s)")
    add("--steps", type=int, default=20, metavar="N", help="denoising steps (default: %(default)s)")
    add("--guidance", type=float, default=7.5, metavar="X", help="up to 1 turns guidance off (default: %(default)s)")
    add("--runs", type=int, default=5, metavar="N", help="images after the first (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="processor threads (default: one per physical core)")
    add("--json", type=Path, metavar="FILE", help="write all samples to this file")
    return parser


def _bench(options: _Options) -> int:
    """Measure, then print the table; the samples go to the file."""
    from tqdm import tqdm

    from nano_runtime.benchmark import Drawn, Settings, measure
    from nano_runtime.request import positive

    cases = _cases(options)
    runs = positive("runs", options.runs)
    settings = Settings(options.prompt, options.steps, options.guidance, runs, options.threads)
    results: list[Measured] = []
    images = len(cases) * (settings.runs + 1)
    with tqdm(total=images, unit="image", leave=False, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        for event in measure(cases, settings):
            if isinstance(event, Drawn):
                bar.set_postfix_str(f"{event.case} {event.total_ms:.0f} ms")
                bar.update()
            else:
                results.append(event)

    machine = describe_machine()
    if options.json is not None:
        document = json.dumps(_document(machine, settings, results), indent=1).encode()
        write_whole(options.json, lambda file: file.write(document + b"\n"))
    _print_table(results)
    _print_conditions(machine, settings, results)
    return 0


def _cases(options: _Options) -> list[Case]:
    """Return every bundle with every engine: those named, or all that it serves and that are installed."""
    from nano_runtime.backends import BACKENDS, installed
    from nano_runtime.backends.base import PRECISIONS
    from nano_runtime.benchmark import Case

    engines: dict[str, tuple[Backend, Precision]] = {}
    for backend in BACKENDS:
        engines[backend] = (backend, options.precision)
        engines |= {f"{backend}:{precision}": (backend, precision) for precision in PRECISIONS}
    cases = []
    for path in options.bundles:
        served = Bundle.open(path).manifest.backends
        usable = [name for name in served if installed(name)]
        if not usable:
            raise BackendMissingError(served[0])
        for wish in usable if options.backends is None else options.backends:
            if wish not in engines:
                raise OptionError("backend", wish, engines)
            cases.append(Case(path, *engines[wish]))
    return cases


def _print_table(results: Sequence[Measured]) -> None:
    """Print one row per case as a Markdown table."""
    rows = [_COLUMNS, *map(_row, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in (_COLUMNS, ["-" * width for width in widths], *rows[1:]):
        print("|", " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), "|")


def _row(result: Measured) -> tuple[str, ...]:
    """Return the cells of one case, in the order of ``_COLUMNS``."""
    peak = result.peak_rss_bytes
    times = (
        percentile(result.image_ms, 50),
        percentile(result.image_ms, 90),
        result.first_image_ms,
        sum(result.load_ms.values()),
        median(result.text_encoder_ms),
        result.unet_first_ms,
        percentile(result.unet_step_ms, 50),
        percentile(result.unet_step_ms, 90),
        median(result.vae_decoder_ms),
    )
    return (
        result.name,
        f"{result.case.backend} {result.case.precision}",
        result.weights,
        *(f"{time:.0f}" if time >= _WHOLE_MS else f"{time:.2f}" for time in times),
        "?" if peak is None else f"{peak / 1e6:.0f}",
        f"{result.bundle_bytes / 1e6:.0f}",
    )


def _print_conditions(machine: Machine, settings: Settings, results: Sequence[Measured]) -> None:
    """Print below the table what the figures depend on."""
    rows = "two rows (guidance)" if settings.guidance_scale > 1 else "one row"
    isa = "instruction sets unknown" if machine.isa is None else " ".join(machine.isa)
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    print()
    print(f"{settings.steps} steps, a UNet call computes {rows}; {settings.runs} images after the first, in turns.")
    print(f"{machine.cpu}, {machine.cores} cores, {results[0].threads} threads, {isa}.")
    print(f"{machine.system}, Python {machine.python}, {versions}.")


def _document(machine: Machine, settings: Settings, results: Sequence[Measured]) -> dict[str, Any]:
    """Return everything measured, with units in the keys."""
    return {
        "format": "nano-bench 1",
        "machine": asdict(machine),
        "settings": asdict(settings),
        "results": [
            {**asdict(result), "case": {**asdict(result.case), "bundle": str(result.case.bundle)}} for result in results
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
