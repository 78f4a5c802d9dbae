"""``nano-generate``: a prompt in, PNG files out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

from nano_runtime.bundle import DEMO
from nano_runtime.cli import make_parser, run_command
from nano_runtime.cli.cache import CacheOptions, add_cache_options, cache_folder
from nano_runtime.cli.output import Output
from nano_runtime.cli.shortcuts import ShortcutOptions, add_shortcut_options, guidance_interval
from nano_runtime.errors import PromptError
from nano_runtime.machine import peak_rss_bytes
from nano_runtime.manifest import Backend

if TYPE_CHECKING:
    from nano_runtime.backends.base import Precision
    from nano_runtime.pipeline import Pipeline, Result

__all__ = ["main"]

_EXAMPLES = """\
  nano-generate "an otter on a teal background"            the built-in demo model, into nano-SEED.png
  nano-generate "a red fox" --bundle nano-int8 -o fox.png --seed 7
  nano-generate "a red fox" --bundle nano-int8 -n 4 --steps 30 --negative-prompt "blurry"
  nano-generate "a red fox" --bundle nano-int8 --quality fast              in less than half the time
  echo "a red fox" | nano-generate - --json
"""
_SCHEDULERS = """\
pndm, ddim, ddim_a, ddpm, euler, euler_a, heun, lms, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde, unipc, lcm or tcd; after euler,
heun, lms, dpmpp_... and unipc also _karras, _exponential or _beta, as in dpmpp_2m_karras (default: the bundle's own)
"""


class _Options(CacheOptions, ShortcutOptions):
    """The command line, typed."""

    prompt: str
    bundle: Path | None
    backend: Backend | None
    negative_prompt: str | None
    output: Path | None
    seed: int | None
    steps: int
    guidance: float | None
    count: int
    scheduler: str | None
    threads: int | None
    precision: Precision | None
    metadata: bool
    force: bool
    json: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), _generate, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("nano-generate", "Draw pictures of a prompt, offline, on the processor.", _EXAMPLES)
    add = parser.add_argument
    add("prompt", metavar="PROMPT", help="what to draw; - reads it from standard input")
    add("--bundle", type=Path, metavar="DIR", help="a folder that nano-export wrote (default: the built-in demo model)")
    add("--backend", choices=get_args(Backend), help="the engine (default: onnxruntime if installed)")
    add("--negative-prompt", metavar="TEXT", help="what to move away from")
    add("-o", "--output", type=Path, metavar="FILE", help="a .png file or an existing folder (default: nano-SEED.png)")
    add("--seed", type=int, metavar="N", help="of the first picture, the next ones count up (default: random)")
    add("--steps", type=int, default=20, metavar="N", help="denoising steps (default: %(default)s)")
    add("--guidance", type=float, metavar="X", help="up to 1 turns guidance off (default: the bundle's, often 7.5)")
    add("-n", "--count", type=int, default=1, metavar="N", help="pictures to draw (default: %(default)s)")
    add("--scheduler", metavar="NAME", help=_SCHEDULERS)
    add_shortcut_options(parser)
    add("--threads", type=int, metavar="N", help="processor threads (default: one per physical core)")
    add("--precision", choices=("f32", "bf16"), help="of layers that are not INT8; bf16 needs openvino (default: f32)")
    add_cache_options(parser)
    add("--no-metadata", dest="metadata", action="store_false", help="keep prompt and settings out of the files")
    add("--force", action="store_true", help="replace files that exist")
    add("--json", action="store_true", help="print one JSON document instead of the paths")
    return parser


def _generate(options: _Options) -> int:
    """Draw, save, and report: paths on stdout, talk on stderr."""
    prompt = _read_stdin() if options.prompt == "-" else options.prompt
    bundle = DEMO if options.bundle is None else options.bundle
    output = Output.plan(options.output, options.count, force=options.force)

    from nano_runtime.image import save_png
    from nano_runtime.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(
        bundle,
        options.backend,
        options.threads,
        options.precision,
        keep_loaded=False,
        cache=cache_folder(options),
    )
    _say(_plan(pipe, options))
    result = _draw(pipe, prompt, options)
    paths = []
    for index, (image, parameters) in enumerate(zip(result.images, result.parameters, strict=True)):
        path = output.path(index, parameters.seed)
        save_png(image, path, parameters if options.metadata else None)
        paths.append(path)
        if not options.json:
            print(path, flush=True)  # one by one: should the next fail, this one is there

    if options.json:
        print(json.dumps(_report(pipe, result, paths), indent=1))
    _say(_summary(result))
    return 0


def _draw(pipe: Pipeline, prompt: str, options: _Options) -> Result:
    """Run the pipeline behind a progress bar, which only a terminal shows."""
    from tqdm import tqdm

    from nano_runtime.pipeline import Result

    events = pipe.stream(
        prompt=prompt,
        negative_prompt=options.negative_prompt,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        seed=options.seed,
        num_images_per_prompt=options.count,
        scheduler=options.scheduler,
        quality=options.quality,
        cache_interval=options.cache_interval,
        guidance_interval=guidance_interval(options),
    )
    with tqdm(unit="call", leave=False, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        for event in events:
            if isinstance(event, Result):
                return event
            bar.total = event.calls
            bar.update()
    raise AssertionError("a stream ends with its result")


def _read_stdin() -> str:
    """Return all of standard input as the prompt."""
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise PromptError("standard input is not text in the terminal's encoding") from error


def _plan(pipe: Pipeline, options: _Options) -> str:
    """Say what is about to run."""
    from nano_runtime.shortcuts import EXACT, resolve

    scheduler = pipe.scheduler_name(options.scheduler)
    calls = pipe.unet_calls(options.steps, scheduler, options.count)
    line = f"{pipe.bundle.manifest.name} on {pipe.backend}: {options.steps} steps of {scheduler} = {calls} UNet calls"
    shortcuts = resolve(pipe.bundle, options.quality, options.cache_interval, guidance_interval(options))
    if shortcuts.cache_interval > 1:
        line += f", one in {shortcuts.cache_interval} of them whole"
    if (interval := shortcuts.guidance_interval) != EXACT.guidance_interval:
        line += f", guided from {interval[0]:.0%} to {interval[1]:.0%}"
    return line


def _summary(result: Result) -> str:
    """Say which seeds were drawn and where the time went."""
    timings = result.timings
    seeds = ", ".join(map(str, result.seeds))
    before = timings.total_ms - sum(map(sum, timings.run_ms.values()))
    call = median(timings.run_ms["unet"])
    return (
        f"seed {seeds}; {timings.total_ms / 1e3:.1f} s, of it {before / 1e3:.1f} s loading; {call:.0f} ms a UNet call"
    )


def _report(pipe: Pipeline, result: Result, paths: list[Path]) -> dict[str, Any]:
    """Return everything about the call, with units in the keys."""
    return {
        "images": [
            {"path": str(path), **asdict(parameters)} for path, parameters in zip(paths, result.parameters, strict=True)
        ],
        "threads": pipe.options.threads,
        "unet_calls": sum(len(ms) for name, ms in result.timings.run_ms.items() if name in ("unet", "unet_shallow")),
        "timings": asdict(result.timings),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _say(line: str) -> None:
    """Talk to the person: on stderr, so that stdout carries only results."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
