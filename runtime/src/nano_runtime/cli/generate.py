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

from nano_runtime.bundle.folder import DEMO
from nano_runtime.bundle.manifest import Backend
from nano_runtime.cli import digest, make_parser, run_command
from nano_runtime.cli.cache_options import CacheOptions, add_cache_options, cache_folder
from nano_runtime.cli.grid import Axis, cells, check_axes, parse_axis
from nano_runtime.cli.live_preview import Preview
from nano_runtime.cli.output import Output
from nano_runtime.cli.prompt_options import PromptOptions, add_prompt_options, print_tokens
from nano_runtime.cli.quality_options import ShortcutOptions, add_shortcut_options
from nano_runtime.cli.settings import Settings, check_origin, settings_of
from nano_runtime.errors.escaping import escaped
from nano_runtime.system.machine import peak_rss_bytes

if TYPE_CHECKING:
    from nano_runtime.engines.base import Precision
    from nano_runtime.pipeline import Pipeline, Result

__all__ = ["main"]

_EXAMPLES = """\
  nano-generate "an otter on a teal background"            the built-in demo model, into nano-SEED.png
  nano-generate "a red fox" --bundle nano-int8 -o fox.png --seed 7
  nano-generate "a red fox" --bundle nano-int8 -n 4 --steps 30 --negative-prompt "blurry"
  nano-generate "a red fox" --bundle nano-int8 --image fox.jpg --strength 0.6
  nano-generate "an otter" --grid steps=4,8,16 --grid guidance=1,3,7.5 -o sheet.png
  nano-generate --from nano-7.png -n 4 --variation-strength 0.2       siblings of a picture
  nano-generate "a (red:1.3) fox, [snow]" --weights --bundle nano-int8
  nano-generate "a red fox" --bundle nano-int8 --quality fast              in less than half the time
  echo "a red fox" | nano-generate - --json
"""
_SCHEDULERS = """\
pndm, ddim, ddim_a, ddpm, euler, euler_a, heun, lms, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde, unipc, lcm or tcd; after euler,
heun, lms, dpmpp_... and unipc also _karras, _exponential or _beta, as in dpmpp_2m_karras (default: the bundle's)
"""


class _Options(CacheOptions, PromptOptions, ShortcutOptions):
    """The command line, typed."""

    prompt: str | None
    origin: Path | None
    bundle: Path | None
    expect_digest: str | None
    backend: Backend | None
    negative_prompt: str | None
    output: Path | None
    seed: int | None
    steps: int | None
    guidance: float | None
    count: int
    scheduler: str | None
    image: Path | None
    mask: Path | None
    strength: float | None
    variation_seed: int | None
    variation_strength: float | None
    grid: list[Axis]
    preview: Path | None
    threads: int | None
    precision: Precision | None
    low_memory: bool
    metadata: bool
    force: bool
    json: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), _generate, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("nano-generate", "Draw pictures of a prompt, offline, on the processor.", _EXAMPLES)
    add = parser.add_argument
    add("prompt", metavar="PROMPT", nargs="?", help="what to draw; - reads it from standard input")
    add("--from", dest="origin", type=Path, metavar="PNG", help="repeat this picture, but for the options given")
    add("--bundle", type=Path, metavar="DIR", help="a folder that nano-export wrote (default: the built-in demo model)")
    add("--expect-digest", type=digest, metavar="SHA256", help="refuse a bundle that has another digest")
    add("--backend", choices=get_args(Backend), help="the engine (default: onnxruntime if installed)")
    add("--negative-prompt", metavar="TEXT", help="what to move away from")
    add_prompt_options(parser)
    add("-o", "--output", type=Path, metavar="FILE", help="a .png file or an existing folder (default: nano-SEED.png)")
    add("--seed", type=int, metavar="N", help="of the first picture, the next ones count up (default: random)")
    add(
        "--steps",
        type=int,
        metavar="N",
        help="denoising steps (default: the bundle's, or 20 of another sampler)",
    )
    add("--guidance", type=float, metavar="X", help="up to 1 turns guidance off (default: the bundle's, often 7.5)")
    add("-n", "--count", type=int, default=1, metavar="N", help="pictures to draw (default: %(default)s)")
    add("--scheduler", metavar="NAME", help=_SCHEDULERS)
    add("--image", type=Path, metavar="FILE", help="PNG, JPEG or WebP to start from; scaled to cover, and cropped")
    add("--mask", type=Path, metavar="FILE", help="as large as the image: white is painted anew, black stays")
    add("--strength", type=float, metavar="X", help="of the change, above 0 and up to 1 (default: 0.8, with a mask 1)")
    add("--variation-seed", type=int, metavar="N", help="towards which to vary; the next ones count up")
    add("--variation-strength", type=float, metavar="X", help="how far, 0 to 1; 0.1 to 0.3 give siblings (default: 0)")
    grid = "draw a sheet of steps, guidance, seed, scheduler, strength or variation-...: across, and given again, down"
    add("--grid", type=parse_axis, action="append", default=[], metavar="OPTION=X,Y,...", help=grid)
    add("--preview", type=Path, metavar="FILE", help="a .png file that shows the pictures while they are drawn")
    add_shortcut_options(parser)
    add("--threads", type=int, metavar="N", help="processor threads (default: one per physical core)")
    add("--precision", choices=("f32", "bf16"), help="of layers that are not INT8; bf16 needs openvino (default: f32)")
    add("--low-memory", action="store_true", help="take less memory: one picture at a time, and one graph")
    add_cache_options(parser)
    add("--no-metadata", dest="metadata", action="store_false", help="leave prompt and settings in no file")
    add("--force", action="store_true", help="replace files that exist")
    add("--json", action="store_true", help="print one JSON document instead of the paths")
    return parser


def _generate(options: _Options) -> int:
    """Draw, save, and report: paths on stdout, talk on stderr."""
    check_axes(options.grid, options.count)
    output = None if options.count_tokens else Output.plan(options.output, options.count, force=options.force)

    from nano_runtime.pictures.png import read_parameters, save_png
    from nano_runtime.pipeline import Pipeline

    origin = None if options.origin is None else read_parameters(options.origin)
    settings = settings_of(options, origin)
    pipe = Pipeline.from_pretrained(
        DEMO if options.bundle is None else options.bundle,
        options.backend,
        options.threads,
        options.precision,
        keep_loaded=bool(options.grid),
        low_memory=options.low_memory,
        keep_prompts=options.metadata,
        cache=cache_folder(options),
        expect_digest=options.expect_digest,
    )
    if output is None:
        print_tokens(pipe, settings, as_json=options.json)
        return 0
    if origin is not None and options.origin is not None:
        check_origin(options.origin, origin, settings, pipe.bundle, chosen=options.bundle is not None)
    preview = None if options.preview is None else Preview.plan(options.preview, pipe.bundle, force=options.force)
    drawings = list(cells(settings, options.grid)) if options.grid else [settings]
    _say(_plan(pipe, drawings))
    results = [_draw(pipe, one, preview) for one in drawings]
    pictures = [(image, of) for one in results for image, of in zip(one.images, one.parameters, strict=True)]
    if options.grid:
        from nano_runtime.pictures.sheet import labelled_sheet

        down = options.grid[1].labels if len(options.grid) > 1 else []
        sheet = labelled_sheet([image for image, _ in pictures], options.grid[0].labels, down)
        paths = [output.path(0, results[0].seeds[0])] * len(pictures)
        save_png(sheet, paths[0], None)
    else:
        paths = []
        for index, (image, parameters) in enumerate(pictures):
            paths.append(output.path(index, parameters.seed))
            save_png(image, paths[-1], parameters if options.metadata else None)
            if not options.json:
                print(paths[-1], flush=True)  # one by one: should the next fail, this one is there
    if options.json:
        print(json.dumps(_report(pipe, results, paths), indent=1))
    elif options.grid:
        print(paths[0])
    _say(_summary(results))
    return 0


def _draw(pipe: Pipeline, settings: Settings, preview: Preview | None) -> Result:
    """Run the pipeline behind a progress bar, which only a terminal shows."""
    from tqdm import tqdm

    from nano_runtime.pipeline import Result

    with tqdm(unit="call", leave=False, file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        for event in settings.stream(pipe):
            if isinstance(event, Result):
                return event
            bar.total = event.calls
            bar.update()
            if preview is not None:
                preview.write(event)
    raise AssertionError("a stream ends with its result")


def _plan(pipe: Pipeline, drawings: Sequence[Settings]) -> str:
    """Say what is about to run; finds settings that cannot be drawn before any is."""
    calls = sum(settings.calls(pipe) for settings in drawings)
    first, name = drawings[0], f"{pipe.bundle.manifest.name} on {pipe.backend}"
    if len(drawings) > 1:
        return f"{name}: {len(drawings)} pictures = {calls} UNet calls"
    steps, scheduler = pipe.settle(first.steps, first.scheduler)
    line = f"{name}: {steps} steps of {scheduler} = {calls} UNet calls"
    return line + "".join(f", {part}" for part in first.shortcuts(pipe).described())


def _summary(results: Sequence[Result]) -> str:
    """Say which seeds were drawn and where the time went."""
    seeds = ", ".join(map(str, dict.fromkeys(seed for result in results for seed in result.seeds)))
    total = sum(result.timings.total_ms for result in results)
    before = total - sum(sum(map(sum, result.timings.run_ms.values())) for result in results)
    call = median(sample for result in results for sample in result.timings.run_ms["unet"])
    return f"seed {seeds}; {total / 1e3:.1f} s, of it {before / 1e3:.1f} s loading; {call:.0f} ms a UNet call"


def _report(pipe: Pipeline, results: Sequence[Result], paths: list[Path]) -> dict[str, Any]:
    """Return everything about the call, with units in the keys; a sheet has a list of timings, one for each picture."""
    parameters = [one for result in results for one in result.parameters]
    timings = [asdict(result.timings) for result in results]
    return {
        "images": [{"path": str(path), **asdict(one)} for path, one in zip(paths, parameters, strict=True)],
        "threads": pipe.options.threads,
        "unet_calls": sum(
            len(ms)
            for result in results
            for name, ms in result.timings.run_ms.items()
            if name in ("unet", "unet_shallow")
        ),
        "timings": timings if len(timings) > 1 else timings[0],
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _say(line: str) -> None:
    """Talk to the person: on stderr, so that stdout carries only results. Names in a bundle are somebody else's."""
    print(escaped(line), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
