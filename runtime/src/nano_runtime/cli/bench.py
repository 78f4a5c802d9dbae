"""``nano-bench``: how fast bundles are here, per engine and stage, and how fast they could be."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend, Quality
from nano_runtime.cli import digest, make_parser, run_command
from nano_runtime.errors import BackendMissingError, OptionError
from nano_runtime.system.files import check_folder, write_whole
from nano_runtime.system.machine import Machine, describe_machine, usable_cores

if TYPE_CHECKING:
    from nano_runtime.benchmark import Case, Measured, Settings
    from nano_runtime.engines.base import Precision

__all__ = ["main"]

_EXAMPLES = """\
  nano-bench nano-int8                                  every engine the bundle serves
  nano-bench nano-int8 --profile                        and where the time inside its graphs goes
  nano-bench nano-int8 -n 1,4 --threads 1,2             a sweep: every combination
  nano-bench nano-fp32 nano-int8 --backend openvino:f32 --backend openvino:bf16
  nano-bench nano-int8 --runs 20 --json result.json     all samples, in milliseconds
"""


class _Options(argparse.Namespace):
    """The command line, typed."""

    bundles: list[Path]
    expect_digests: list[str] | None
    backends: list[str] | None
    precision: Precision
    prompt: str
    steps: int | None
    scheduler: str | None
    guidance: float | None
    counts: list[int]
    threads: list[int] | None
    qualities: list[Quality] | None
    runs: int
    starts: int
    profile: bool
    json: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), _bench, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nano-bench",
        "Time bundles on this machine, and say what it could do at best. Every case (bundle, engine, threads, pictures "
        "per call) gets a process of its own and stays loaded; they draw in turns, so that a machine slowing down "
        "slows all alike.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("bundles", nargs="+", type=Path, metavar="DIR", help="folders that nano-export wrote")
    add("--expect-digest", dest="expect_digests", action="append", type=digest, metavar="SHA256",
        help="refuse bundles that have another digest; once for each DIR, in their order")  # fmt: skip
    add("--backend", dest="backends", action="append", metavar="NAME",
        help="onnxruntime, openvino, or with a precision: openvino:bf16; repeatable (default: all served)")  # fmt: skip
    add("--precision", choices=("f32", "bf16"), default="f32",
        help="of layers that are not INT8, where --backend names none (default: %(default)s)")  # fmt: skip
    add("--prompt", default="a red fox", metavar="TEXT", help="what to draw (default: %(default)s)")
    add("--steps", type=int, metavar="N", help="denoising steps (default: each bundle's own)")
    add("--scheduler", metavar="NAME", help="see nano-generate (default: each bundle's own)")
    add("--guidance", type=float, metavar="X", help="up to 1 turns guidance off (default: the bundle's, often 7.5)")
    add("-n", "--count", dest="counts", type=_numbers, default=[1], metavar="N,...",
        help="pictures per call, one or several numbers (default: 1)")  # fmt: skip
    add("--threads", type=_numbers, metavar="N,...",
        help="processor threads, one or several numbers (default: one per physical core)")  # fmt: skip
    add("--quality", dest="qualities", action="append", choices=get_args(Quality),
        help="what to leave out, see nano-generate; repeatable (default: exact)")  # fmt: skip
    add("--runs", type=int, default=5, metavar="N", help="calls after the first (default: %(default)s)")
    add("--starts", type=int, default=2, metavar="N",
        help="fresh nano-generate processes, timed from start to picture, and one more that repeats the last one's "
        "prompt (default: %(default)s)")  # fmt: skip
    add("--profile", action="store_true", help="show what the operators inside the graphs take")
    add("--json", type=Path, metavar="FILE", help="write all samples to this file")
    return parser


def _numbers(text: str) -> list[int]:
    """Read ``1,2,4``."""
    return [int(number) for number in text.split(",")]


def _bench(options: _Options) -> int:
    """Measure, then print the tables; the samples go to the file."""
    from tqdm import tqdm

    from nano_runtime.benchmark import Measured, Settings, measure
    from nano_runtime.cli.bench_report import print_report
    from nano_runtime.drawing.arguments import positive

    if options.json is not None:
        check_folder(options.json.parent)  # minutes before the file is written
    cases = _cases(options)
    settings = Settings(
        prompt=options.prompt,
        steps=options.steps,
        scheduler=options.scheduler,
        guidance_scale=options.guidance,
        runs=positive("runs", options.runs),
        starts=options.starts if options.starts == 0 else positive("starts", options.starts),
        profile=options.profile,
    )
    results: list[Measured] = []
    with tqdm(leave=False, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        for event in measure(cases, settings):
            if isinstance(event, Measured):
                results.append(event)
            else:
                bar.total = event.total
                bar.set_postfix_str(event.what)
                bar.update()

    machine = describe_machine()
    if options.json is not None:
        document = json.dumps(_document(machine, settings, results), indent=1, default=str).encode()
        write_whole(options.json, lambda file: file.write(document + b"\n"))
    print_report(machine, settings, results)
    return 0


def _cases(options: _Options) -> list[Case]:
    """Return all combinations; engines are those named, or all that a bundle serves and that are installed."""
    from nano_runtime.benchmark import Case
    from nano_runtime.drawing.arguments import positive
    from nano_runtime.engines import BACKENDS, installed
    from nano_runtime.engines.base import PRECISIONS

    engines: dict[str, tuple[Backend, Precision]] = {}
    for backend in BACKENDS:
        engines[backend] = (backend, options.precision)
        engines |= {f"{backend}:{precision}": (backend, precision) for precision in PRECISIONS}
    threads = [usable_cores()] if options.threads is None else [positive("threads", n) for n in options.threads]
    counts = [positive("count", n) for n in options.counts]
    qualities: list[Quality] = ["exact"] if options.qualities is None else options.qualities
    cases = []
    digests = [None] * len(options.bundles) if options.expect_digests is None else options.expect_digests
    if len(digests) != len(options.bundles):
        raise OptionError("expect_digest", f"{len(digests)} digests", [f"{len(options.bundles)}, one for each DIR"])
    for path, expected in zip(options.bundles, digests, strict=True):
        served = Bundle.open(path, expected).manifest.backends
        usable = [name for name in served if installed(name)]
        if not usable:
            raise BackendMissingError(served[0])
        wishes = usable if options.backends is None else options.backends
        for wish, n, count, quality in product(wishes, threads, counts, qualities):
            if wish not in engines:
                raise OptionError("backend", wish, engines)
            cases.append(Case(path, *engines[wish], threads=n, pictures=count, quality=quality))
    return list(dict.fromkeys(cases))


def _document(machine: Machine, settings: Settings, results: Sequence[Measured]) -> dict[str, Any]:
    """Return everything measured, with units in the keys."""
    return {
        "format": "nano-bench 1",
        "machine": asdict(machine),
        "settings": asdict(settings),
        "results": [asdict(result) for result in results],
    }


if __name__ == "__main__":
    sys.exit(main())
