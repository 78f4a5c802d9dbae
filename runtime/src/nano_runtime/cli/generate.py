"""``nano-generate``: a prompt in, PNG files out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

from nano_runtime.bundle.folder import DEMO
from nano_runtime.bundle.manifest import Backend
from nano_runtime.cli import Parser, digest, make_parser, number, run_command
from nano_runtime.cli.cache_options import CacheOptions, add_cache_options, cache_folder
from nano_runtime.cli.desk import Desk, NearDesk
from nano_runtime.cli.far_end import done_in_child
from nano_runtime.cli.grid import GRID_OPTIONS, Axis, check_axes, parse_axis
from nano_runtime.cli.listed import Listed, read_list, unused_columns
from nano_runtime.cli.live_preview import Preview
from nano_runtime.cli.origin import check_origin, read_origin, without_strangers
from nano_runtime.cli.output import Output
from nano_runtime.cli.picture_flags import add_picture_flags, defaults_from, options_from
from nano_runtime.cli.saving import Place
from nano_runtime.cli.token_count import print_tokens
from nano_runtime.cli.work import Work
from nano_runtime.errors import ConflictError, NanoError
from nano_runtime.errors.escaping import escaped
from nano_runtime.pictures.decoding import check_readable
from nano_runtime.system.confinement import Confinement, memory_for_child
from nano_runtime.system.forked import can_fork
from nano_runtime.system.machine import peak_rss_bytes
from nano_runtime.system.timing import Timings
from nano_runtime.values import positive

if TYPE_CHECKING:
    from nano_runtime.drawing.events import Progress
    from nano_runtime.drawing.plan import Plan
    from nano_runtime.engines.base import Precision
    from nano_runtime.pipeline import Pipeline, Result

__all__ = ["main"]

_EXAMPLES = """\
  nano-generate "an otter on a teal background"            the built-in demo model, into nano-SEED.png
  nano-generate "a red fox" --bundle nano-int8 -o fox.png --seed 7
  nano-generate "a red fox" --bundle nano-int8 -n 4 --steps 30 --negative-prompt "blurry"
  nano-generate "a red fox" --bundle nano-int8 --image fox.jpg --strength 0.6
  nano-generate "a red fox" --bundle inpainting-int8 --image photo.jpg --mask mask.png
  nano-generate "make it winter" --bundle pix2pix-int8 --image photo.jpg --image-guidance 1.2
  nano-generate "an otter on a teal background" --grid steps=8,12,16 --grid guidance=1,2,4 -o sheet.png
  nano-generate --from nano-7.png -n 4 --variation-strength 0.2       siblings of a picture
  nano-generate --prompts list.csv --bundle nano-int8 -o pictures      a row for each prompt; pictures is a folder
  nano-generate "a (red:1.3) fox, [snow]" --weights --bundle nano-int8
  nano-generate "a red fox" --bundle nano-int8 --quality fast              in less than half the time
  echo "an owl on a purple background" | nano-generate - --json
  nano-generate --examples                                 what the demo knows
"""


class _Options(CacheOptions):
    """The command line, typed, but for the picture options that it has."""

    prompt: str | None
    prompts: Path | None
    examples: bool
    origin: Path | None
    bundle: Path | None
    expect_digest: str | None
    backend: Backend | None
    count_tokens: bool
    output: Path | None
    grid: list[Axis]
    preview: Path | None
    threads: int | None
    precision: Precision | None
    low_memory: bool
    metadata: bool
    force: bool
    json: bool

    @property
    def count(self) -> int:
        """Number of pictures."""
        from nano_runtime.options import MOST_PICTURES

        return positive("num_images_per_prompt", getattr(self, "num_images_per_prompt", 1), MOST_PICTURES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        argv: arguments without the program's name. None takes those of the process, which then is the command: a child
            draws, and can be ended at any moment. With arguments, the caller's process draws.
    """
    parser = _parser()
    return run_command(parser, _Options(), partial(_generate, None if argv is not None else parser), argv)


def _parser() -> Parser:
    parser = make_parser("nano-generate", "Draw pictures of a prompt, offline, on the processor.", _EXAMPLES)
    picture = parser.add_argument_group("the picture")
    picture.add_argument("prompt", metavar="PROMPT", nargs="?", help="text to draw; - reads it from standard input")
    picture.add_argument(
        "--from",
        dest="origin",
        type=Path,
        metavar="PNG",
        help="repeat this picture, with the other options given; also one of A1111, sd.cpp or InvokeAI",
    )
    picture.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="draw a list: .txt with a prompt a line, or .jsonl, .csv, .tsv or .parquet with a row of options for each "
        "prompt; - for standard input; the options given here are for what rows leave out",
    )
    picture.add_argument("--examples", action="store_true", help="draw nothing; print what the demo knows")
    add_picture_flags(picture.add_argument)
    picture.add_argument(
        "--grid",
        type=parse_axis,
        action="append",
        default=[],
        metavar="OPTION=X,Y,...",
        help=f"draw a sheet that compares values of one option, or of two if given twice: {', '.join(GRID_OPTIONS)}",
    )
    add = parser.add_argument_group("files").add_argument
    add("--bundle", type=Path, metavar="DIR", help="a folder that nano-export wrote (default: the built-in demo model)")
    add("--expect-digest", type=digest, metavar="SHA256", help="refuse a bundle that has another digest")
    add("-o", "--output", type=Path, metavar="FILE",
        help="a .png, .jpg or .webp file, an existing folder, or - for standard output; given again after an "
        "interruption, the command goes on (default: nano-SEED.png)")  # fmt: skip
    add("--preview", type=Path, metavar="FILE", help="a .png file that shows the pictures while they are drawn")
    add(
        "--no-metadata",
        dest="metadata",
        action="store_false",
        help="write prompt and settings to no file, and no prompt to the cache",
    )
    add("--force", action="store_true", help="replace files that exist")
    add("--json", action="store_true", help="print one JSON document instead of the paths")
    add("--count-tokens", action="store_true", help="draw nothing; print the prompt's length, and the words left out")
    add = parser.add_argument_group("the machine").add_argument
    add("--backend", choices=get_args(Backend), help="the engine (default: onnxruntime if installed)")
    add("--threads", type=number, metavar="N", help="processor threads (default: one per performance core)")
    precision = "arithmetic of layers that are not INT8; bf16 needs openvino (default: f32)"
    add("--precision", choices=("f32", "bf16"), help=precision)
    add("--low-memory", action="store_true", help="take less memory: one picture at a time, and one graph")
    add_cache_options(parser)
    return parser


def _generate(parser: Parser | None, options: _Options) -> int:
    """Check what needs no bundle, and have the rest done.

    Args:
        parser: of the process that is the command, where a child may draw; None draws here.
        options: the command line.
    """
    if options.examples:
        from nano_runtime.drawing.demo_prompts import COLOURS, EXAMPLES, THINGS

        print(*EXAMPLES, f"things: {', '.join(THINGS)}", f"backgrounds: {', '.join(COLOURS)}", sep="\n")
        return 0
    check_axes(options.grid, options.count)
    to_stdout = options.output is not None and str(options.output) == "-"
    for name, taken in (("json", to_stdout and options.json), ("preview", options.preview == options.output)):
        if taken and options.output is not None:
            raise ConflictError("output", name)
    listed = None if options.prompts is None else _read_list(options, options.prompts)
    count = options.count if listed is None else listed.count
    output = None if options.count_tokens else Output.plan(options.output, count, force=options.force)
    for picture in _pictures(options):
        check_readable(picture)  # here, where the names beside it can be seen, too
    cache = cache_folder(options)
    desk = NearDesk(output, sheet=bool(options.grid), preview=options.preview)
    work = partial(_work, options, listed, output, cache)
    if parser is None or not can_fork():
        return work(desk)
    bundle = DEMO if options.bundle is None else options.bundle
    return done_in_child(parser, work, desk, _confinement(options, listed, bundle, cache), bundle)


def _read_list(options: _Options, path: Path) -> Listed:
    """Read a list of prompts, or raise ``UsageError``: it cannot be drawn, or another option excludes it."""
    others: dict[str, object] = {
        "prompt": options.prompt,
        "origin": options.origin,
        "grid": options.grid,
        "count_tokens": options.count_tokens,
        "-o -": str(options.output) == "-",
    }
    for name, given in others.items():
        if given:
            raise ConflictError("prompts", name)
    pictures = getattr(options, "image", None), getattr(options, "mask_image", None)
    return read_list(path, defaults_from(options), *pictures)


def _pictures(options: _Options) -> list[Path]:
    """Return the files that the command line names to start from, or to draw again."""
    named = (options.origin, getattr(options, "image", None), getattr(options, "mask_image", None))
    return [path for path in named if path is not None]


def _confinement(options: _Options, listed: Listed | None, bundle: Path, cache: Path | None) -> Confinement:
    """Return what the process that draws may reach: its bundle, the pictures that it starts from, and the cache."""
    return Confinement(
        reads=(bundle, *_pictures(options), *(() if listed is None else listed.pictures)),
        writes=() if cache is None else (cache,),
        memory_bytes=memory_for_child(),
    )


def _work(options: _Options, listed: Listed | None, output: Output | None, cache: Path | None, desk: Desk) -> int:
    """Draw, save, and report: paths on stdout, talk on stderr.

    Args:
        options: the command line.
        listed: the rows to draw; None for a prompt.
        output: names of the pictures; None counts tokens.
        cache: the cache folder; None for none.
        desk: shows progress, and has the files.
    """
    from nano_runtime.pipeline import Pipeline

    origin = None if options.origin is None else read_origin(options.origin)
    if origin is not None:
        picture = options_from(options, origin.repeated(), masked=origin.masked)
    elif listed is None:
        picture = options_from(options, None)
    pipe = Pipeline.from_pretrained(
        DEMO if options.bundle is None else options.bundle,
        options.backend,
        options.threads,
        options.precision,
        keep_loaded=bool(options.grid) or listed is not None,
        low_memory=options.low_memory,
        keep_prompts=options.metadata,
        cache=cache,
        expect_digest=options.expect_digest,
    )
    if output is None:
        print_tokens(pipe, picture, as_json=options.json)
        return 0
    if origin is not None and options.origin is not None:
        picture = without_strangers(options.origin, picture, options, pipe.bundle)
        check_origin(options.origin, origin, picture, pipe.bundle, chosen=options.bundle is not None)
    preview = None if options.preview is None else Preview.plan(options.preview, pipe.bundle, force=options.force)
    if listed is not None:
        work = Work.of_list(pipe, listed, output, desk)
        if (said := unused_columns(entry.row for entry in listed.entries)) is not None:
            _say(said)
    elif options.grid:
        work = Work.of_sheet(pipe, picture, output, options.grid, desk)
    else:
        work = Work.of(pipe, picture, output, desk)
    _say(_announced(pipe, work))
    timings = _draw(pipe, work, preview, options)
    work.finish()
    if options.json:
        print(json.dumps(_report(pipe, work, timings), indent=1))
    elif work.sheet is not None:
        print(work.sheet)
    _say(_summary(work, timings))
    return 0


def _draw(pipe: Pipeline, work: Work, preview: Preview | None, options: _Options) -> list[Timings]:
    """Draw and save what is missing, tell the desk of every UNet call, and print the path of each file."""
    quiet = options.json or work.cells is not None
    timings: list[Timings] = []
    _show(work.places, quiet=quiet)

    def told(event: Progress) -> None:
        work.desk.step()
        if preview is not None:
            preview.write(event, work.desk)

    work.desk.begin(work.unet_calls)
    try:
        for finished in work.draw(partial(_drawn, pipe, told), metadata=options.metadata):
            timings.append(finished.timings)
            _show(finished.places, quiet=quiet)
            work.desk.go_on(work.how_to_go_on(metadata=options.metadata))
    except (KeyboardInterrupt, NanoError):
        work.desk.end()
        work.desk.go_on(None)  # which is said here
        if (said := work.how_to_go_on(metadata=options.metadata)) is not None:
            _say(said)
        raise
    work.desk.end()
    return timings


def _drawn(pipe: Pipeline, told: Callable[[Progress], None], plan: Plan, more: bool) -> Result:  # noqa: FBT001 - as Draw
    """Draw one plan, and tell of every UNet call."""
    from nano_runtime.pipeline import Result

    for event in pipe.draw(plan, more=more):
        if isinstance(event, Result):
            return event
        told(event)
    raise AssertionError("a stream ends with its result")


def _show(places: Sequence[Place], *, quiet: bool) -> None:
    """Print the path of each picture that is there, at once: should the next fail, this one is."""
    for place in places if not quiet else ():
        if place.file is not None:
            print(place.file, flush=True)


def _announced(pipe: Pipeline, work: Work) -> str:
    """Return a line about the work to come."""
    plans = work.plans
    first, name = plans[0], f"{pipe.bundle.manifest.name} on {pipe.backend}"
    there = len(work.places) - len(work.missing)
    more = "" if len(work.places) == 1 else f", seed {first.seeds[0]}"
    more += f"; {there} of {len(work.places)} pictures are there already" if there else ""
    if len(plans) > 1:
        return f"{name}: {len(work.places)} pictures = {work.unet_calls} UNet calls{more}"
    line = f"{name}: {first.steps} steps of {first.scheduler} = {work.unet_calls} UNet calls"
    return line + "".join(f", {part}" for part in first.shortcuts.described()) + more


def _summary(work: Work, timings: Sequence[Timings]) -> str:
    """Say which seeds were drawn and where the time went."""
    seeds = ", ".join(map(str, dict.fromkeys(seed for plan in work.plans for seed in plan.seeds)))
    if not timings:
        return f"seed {seeds}; nothing was left to draw"
    joined = Timings.joined(timings)
    before = joined.total_ms - sum(map(sum, joined.run_ms.values()))
    call = median(joined.run_ms["unet"])
    return f"seed {seeds}; {joined.total_ms / 1e3:.1f} s, of it {before / 1e3:.1f} s loading; {call:.0f} ms a UNet call"


def _report(pipe: Pipeline, work: Work, timings: Sequence[Timings]) -> dict[str, Any]:
    """Return everything about the call, with units in the keys; a sheet has a list of timings, one for each picture."""
    joined = Timings.joined(timings)
    each = [asdict(one) for one in timings] if work.cells is not None and len(timings) > 1 else asdict(joined)
    paths = [place.file if work.sheet is None else work.sheet for place in work.places]
    parameters = [place.parameters.as_dict() for place in work.places]
    if work.places[0].row is not None:
        parameters = [{"row": place.row, **of} for place, of in zip(work.places, parameters, strict=True)]
    return {
        "images": [{"path": str(path), **one} for path, one in zip(paths, parameters, strict=True)],
        "threads": pipe.options.threads,
        "unet_calls": sum(len(ms) for name, ms in joined.run_ms.items() if name in ("unet", "unet_shallow")),
        "timings": each,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _say(line: str) -> None:
    """Talk to the person: on stderr, so that stdout carries only results. Names in a bundle are somebody else's."""
    print(escaped(line), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
