"""``nano-bench``: times bundles on this machine, per engine and graph, beside the least time possible."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from nano_runtime.bundle.folder import DEMO
from nano_runtime.bundle.manifest import Quality
from nano_runtime.cli import Parser, digest, make_parser, number, run_command
from nano_runtime.system.files import check_file, write_whole
from nano_runtime.system.machine import describe_machine

if TYPE_CHECKING:
    from nano_runtime.engines.base import Precision

__all__ = ["main"]

_EXAMPLES = """\
  nano-bench                                            the demo
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
    num_inference_steps: int | None
    scheduler: str | None
    guidance_scale: float | None
    num_images_per_prompt: list[int]
    threads: list[int] | None
    qualities: list[Quality] | None
    runs: int
    starts: int
    profile: bool
    json: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), _bench, argv)


def _parser() -> Parser:
    parser = make_parser(
        "nano-bench",
        "Time bundles on this machine, and compare with the least time that it could need. Every case (bundle, engine, "
        "threads, pictures per call) is loaded in a process of its own. The cases draw in turns, so a machine that "
        "slows down slows all of them alike.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("bundles", nargs="*", type=Path, default=[DEMO], metavar="DIR",
        help="folders that nano-export wrote (default: the demo)")  # fmt: skip
    add("--expect-digest", dest="expect_digests", action="append", type=digest, metavar="SHA256",
        help="refuse bundles that have another digest; once for each DIR, in their order")  # fmt: skip
    add("--backend", dest="backends", action="append", metavar="NAME",
        help="onnxruntime, openvino, or with a precision: openvino:bf16; repeatable (default: bundle's)")  # fmt: skip
    add("--precision", choices=("f32", "bf16"), default="f32",
        help="arithmetic of layers that are not INT8, where --backend names none (default: %(default)s)")  # fmt: skip
    add("--prompt", default="an otter on a teal background", metavar="TEXT", help="text to draw (default: %(default)s)")
    add(
        "--steps",
        dest="num_inference_steps",
        type=number,
        metavar="N",
        help="denoising steps (default: each bundle's own)",
    )
    add("--scheduler", metavar="NAME", help="see nano-generate (default: each bundle's own)")
    add(
        "--guidance",
        dest="guidance_scale",
        type=number,
        metavar="X",
        help="up to 1 turns guidance off (default: the bundle's, often 7.5)",
    )
    add("-n", "--count", dest="num_images_per_prompt", type=_numbers, default=[1], metavar="N,...",
        help="pictures per call, one or several numbers (default: 1)")  # fmt: skip
    add("--threads", type=_numbers, metavar="N,...",
        help="processor threads, one or several numbers (default: one per performance core)")  # fmt: skip
    add("--quality", dest="qualities", action="append", choices=get_args(Quality),
        help="work to leave out, see nano-generate; repeatable (default: exact)")  # fmt: skip
    add("--runs", type=number, default=5, metavar="N", help="calls after the first (default: %(default)s)")
    add("--starts", type=number, default=2, metavar="N",
        help="fresh nano-generate processes, timed from start to picture, and one more that repeats the last one's "
        "prompt (default: %(default)s)")  # fmt: skip
    add("--profile", action="store_true", help="show the time of the operators inside the graphs")
    add("--json", type=Path, metavar="FILE", help="write all samples to this file")
    return parser


def _numbers(text: str) -> list[int | float | str]:
    """Read ``1,2,4``."""
    return [number(one) for one in text.split(",")]


def _bench(options: _Options) -> int:
    """Measure, write the samples to the file, and print the tables."""
    from tqdm import tqdm

    from nano_runtime.benchmark import Measured, Settings, as_document, cases_of, measure
    from nano_runtime.cli.bench_report import print_report
    from nano_runtime.options import DrawOptions
    from nano_runtime.values import natural, positive

    if options.json is not None:
        check_file(options.json)  # minutes before the file is written
    cases = cases_of(
        options.bundles,
        options.expect_digests,
        engines=options.backends,
        precision=options.precision,
        threads=options.threads,
        counts=options.num_images_per_prompt,
        qualities=options.qualities,
    )
    drawn = DrawOptions(
        prompt=options.prompt,
        num_inference_steps=options.num_inference_steps,
        scheduler=options.scheduler,
        guidance_scale=options.guidance_scale,
    )
    settings = Settings(
        prompt=options.prompt,
        steps=drawn.num_inference_steps,
        scheduler=drawn.scheduler,
        guidance_scale=drawn.guidance_scale,
        runs=positive("runs", options.runs),
        starts=natural("starts", options.starts),
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
        document = json.dumps(as_document(machine, settings, results), indent=1, default=str).encode()
        write_whole(options.json, lambda file: file.write(document + b"\n"))
    print_report(machine, settings, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
