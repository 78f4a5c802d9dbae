"""``nano-batch``: a file of rows in, a folder of pictures out, which goes on where it was ended."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nano_batch.datasets import FORMS, LAYOUTS
from nano_batch.progress import counted, duration, pace
from nano_runtime.cli import Parser, digest, make_parser, number, run_command
from nano_runtime.cli.cache_options import CacheOptions, add_cache_options, cache_folder
from nano_runtime.cli.interruptions import hangup_ends, native_code_ends
from nano_runtime.cli.picture_flags import FLAGS, add_picture_flags, defaults_from
from nano_runtime.errors.escaping import escaped
from nano_runtime.system.machine import peak_rss_bytes

if TYPE_CHECKING:
    from nano_batch.running import Asked, Engine, Outcome

__all__ = ["main"]

_EXAMPLES = """\
  nano-batch prompts.txt -o out                            a prompt a line, the built-in demo model
  nano-batch rows.csv -o out --bundle nano-int8            columns: prompt, negative_prompt, seed, steps, id, n, ...
  nano-batch rows.jsonl -o out --bundle nano-int8 --steps 30 --name "{id}-{i}"
  nano-batch rows.csv -o out                               the same again: goes on where it was ended
  nano-batch rows.csv -o out --seed 7 --shard 0/8          the first of eight parts, each on a machine of its own
  nano-batch merge part0 part1 -o all                      one folder of several parts
  nano-batch rows.csv -o /shared/out --ray-address auto    on all nodes of a cluster of Ray
"""
EXIT_SOME_FAILED: Final = 6
_SHOWN_OTHERWISE: Final = ("seed", "num_images_per_prompt")
_DEFAULTS: Final = {flag.field for flag in FLAGS} - {"image", "mask_image", "seed"}
_PACKAGE: Final = "nano_batch"
_MOST: Final = 999_999


class BatchOptions(CacheOptions):
    """The command line of ``nano-batch ROWS``, typed, but for the picture options that it has."""

    rows: str
    output: Path
    bundle: Path | None
    expect_digest: str | None
    backend: str | None
    threads: int | None
    precision: str | None
    isolate: bool
    engine: str | None
    ray_address: str | None
    ray_cpus: int | None
    ray_patience: int | None
    seed: int | None
    name: str | None
    shard: str | None
    dry_run: bool
    prune: bool
    form: str
    layout: str | None
    json: bool


class MergeOptions(argparse.Namespace):
    """The command line of ``nano-batch merge``, typed."""

    folders: list[Path]
    output: Path | None
    form: str
    layout: str | None
    json: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["merge"]:
        return run_command(_merge_parser(), MergeOptions(), _merge, words[1:], _PACKAGE)
    return run_command(_parser(), BatchOptions(), _batch, words, _PACKAGE)


def _parser() -> Parser:
    parser = make_parser("nano-batch", "Draw the pictures of a file of rows into a folder, and go on there.", _EXAMPLES)
    rows = parser.add_argument_group("rows")
    rows.add_argument("rows", metavar="ROWS", help="a .txt, .jsonl, .csv, .tsv or .parquet file; - reads prompts")
    rows.add_argument("-o", "--output", type=_folder, required=True, metavar="OUT", help="folder of the job")
    rows.add_argument(
        "--seed", type=_seed, metavar="N",
        help="makes the seeds of rows without one (default: random, and kept in OUT/job.json)",
    )  # fmt: skip
    rows.add_argument(
        "--name", metavar="PATTERN", help="names of the pictures, as '{id}-{i}' or '{key}' (default: their keys)"
    )
    rows.add_argument(
        "--shard",
        metavar="I/N",
        help="draw one of N equal parts, from 0 (default: as SLURM or Kubernetes says, or all)",
    )
    rows.add_argument("--dry-run", action="store_true", help="check rows and folder; draw and write nothing")
    rows.add_argument(
        "--prune", action="store_true", help="delete pictures of an earlier run that no row asks for any more"
    )
    _add_forms(rows.add_argument)
    picture = parser.add_argument_group("what rows leave out")
    add_picture_flags(_without(picture.add_argument, _SHOWN_OTHERWISE))
    picture.add_argument(
        "-n", "--count", dest="num_images_per_prompt", type=number, default=argparse.SUPPRESS, metavar="N",
        help="pictures to draw of each row; their seeds count up (default: 1)",
    )  # fmt: skip
    drawing = parser.add_argument_group("drawing")
    drawing.add_argument(
        "--bundle", type=Path, metavar="DIR", help="a folder that nano-export wrote (default: the demo)"
    )
    drawing.add_argument("--expect-digest", type=digest, metavar="SHA256", help="refuse a bundle of another digest")
    drawing.add_argument(
        "--backend", choices=("onnxruntime", "openvino"), help="the engine (default: as nano-generate takes it)"
    )
    drawing.add_argument("--threads", type=number, metavar="N", help="processor threads (default: one per core)")
    drawing.add_argument("--precision", choices=("f32", "bf16"), help="arithmetic of layers that are not quantized")
    drawing.add_argument(
        "--isolate", action="store_true",
        help="run the engine in a process of its own: a row that ends it is a failed row, and ends nothing else; "
        "pictures take a little longer",
    )  # fmt: skip
    _add_ray(parser.add_argument_group("many machines").add_argument)
    add_cache_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of paths")
    return parser


def _merge_parser() -> Parser:
    parser = make_parser(
        "nano-batch merge",
        "Make one folder of the parts of a job, or write the lists of one that several processes filled.",
        "  nano-batch merge out                   after shards that shared a folder\n"
        "  nano-batch merge part0 part1 -o all    after shards with a folder each\n",
    )  # fmt: skip
    parser.add_argument("folders", nargs="+", type=Path, metavar="OUT", help="folders of one job")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder for all (default: the only one given)")
    _add_forms(parser.add_argument)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a path")
    return parser


def _add_forms(add: Callable[..., object]) -> None:
    """Add the flags for other forms of a finished job."""
    add(
        "--format", dest="form", choices=FORMS, default=FORMS[0],
        help="when all is drawn, also write OUT/webdataset/*.tar or OUT/parquet/*.parquet (default: %(default)s only)",
    )  # fmt: skip
    add("--layout", choices=LAYOUTS, help="when all is drawn, also write the folders of a benchmark, OUT/geneval")


def _add_ray(add: Callable[..., object]) -> None:
    """Add the flags for clusters."""
    add(
        "--engine", choices=("local", "ray"),
        help="draw in this process, or on the nodes of a cluster of Ray, which share OUT and the bundle (default: "
        "local, or ray if another option for it is given)",
    )  # fmt: skip
    add(
        "--ray-address",
        metavar="HOST:PORT",
        help="of the cluster; auto is this node's (default: of this machine alone)",
    )
    add("--ray-cpus", type=_positive, metavar="N", help="processors of each process (default: all of its node)")
    add(
        "--ray-patience", type=_positive, metavar="SECONDS",
        help="longest time for four pictures, and longest wait for a node (default: 900)",
    )  # fmt: skip


def _forms(options: BatchOptions | MergeOptions) -> tuple[str, ...]:
    return tuple(one for one in (options.form, options.layout) if one is not None)


def _batch(options: BatchOptions) -> int:
    """Draw what is not there yet: paths on standard output, talk on standard error."""
    from nano_batch.draw import Draw
    from nano_batch.running import Voice, check, run
    from nano_runtime import Bundle

    engine = _engine(options)
    asked = _asked(options)
    draw = Draw(
        Bundle.open().path if options.bundle is None else options.bundle,
        options.output,
        backend=options.backend,
        threads=options.threads,
        precision=options.precision,
        cache=cache_folder(options),
        isolated=options.isolate,
        digest=options.expect_digest,
    )
    if options.dry_run:
        outcome = check(asked, draw, _say)
        _say(f"{counted(outcome.asked)}, {outcome.finished} finished; nothing is wrong with the rows")
    else:
        voice = Voice((lambda _path: None) if options.json else _show, _say)
        with hangup_ends():
            outcome = run(asked, draw, engine, voice)
        _say(_summary(outcome))
    if options.json:
        print(json.dumps(_report(outcome), indent=1))
    return EXIT_SOME_FAILED if outcome.failed or (outcome.missing and not options.dry_run) else 0


def _engine(options: BatchOptions) -> Engine:
    """Return what has pictures drawn."""
    given: dict[str, Any] = {
        "address": options.ray_address,
        "cpus": options.ray_cpus,
        "patience_s": options.ray_patience,
    }
    rules = {name: value for name, value in given.items() if value is not None}
    if options.engine == "local" or not (options.engine or rules):
        from nano_batch.local import draw_here

        return partial(draw_here, guard=partial(native_code_ends, "nano-batch"))
    from nano_batch.on_ray.drawing import OnRay
    from nano_batch.on_ray.extra import require_ray
    from nano_batch.on_ray.rules import Rules

    require_ray()
    return OnRay(Rules(**rules), _say)


def _asked(options: BatchOptions) -> Asked:
    """Return what the command line asks for."""
    from nano_batch.naming import Naming
    from nano_batch.running import Asked
    from nano_batch.shards import Shard
    from nano_batch.wanted import readable
    from nano_runtime import open_picture

    naming, shard = Naming(options.name), Shard(0, 1)
    if options.shard is not None:
        shard = Shard.of(options.shard)
    elif (found := Shard.from_environment(os.environ)) is not None:
        shard, variable = found
        _say(f"shard {shard.index}/{shard.count}, as {variable} says; --shard 0/1 draws all")
    said = {name: value for name, value in vars(options).items() if name in _DEFAULTS}
    defaults = defaults_from(argparse.Namespace(**said))
    pictures = {name: getattr(options, name, None) for name in ("image", "mask_image")}
    for path in filter(None, pictures.values()):  # all rows start from it: what is wrong with it is told once
        open_picture(path)
    given = {name: _as_json(getattr(defaults, name)) for name in said} | {
        name: readable(path) for name, path in pictures.items() if path is not None
    }
    return Asked(
        rows=options.rows,
        folder=options.output,
        defaults=defaults,
        pictures=pictures,
        given=given,
        seed=options.seed,
        naming=naming,
        shard=shard,
        prune=options.prune,
        forms=_forms(options),
    )


def _as_json(value: object) -> object:
    """Return the value of an option as ``job.json`` has it."""
    return list(value) if isinstance(value, tuple) else value


def _merge(options: MergeOptions) -> int:
    """Merge folders, or write the lists of one."""
    from nano_batch.merging import merge

    outcome = merge(options.folders, options.output, _forms(options))
    print(json.dumps(_report(outcome), indent=1) if options.json else outcome.folder / "metadata.jsonl")
    _say(_summary(outcome))
    return EXIT_SOME_FAILED if outcome.failed else 0


def _summary(outcome: Outcome) -> str:
    """Say what became of a job."""
    said = f"{outcome.folder} has {outcome.finished} of {counted(outcome.asked)}"
    if outcome.drawn:
        rate = pace(outcome.drawn / max(outcome.seconds, 1e-9) * 60)
        said += f"; {outcome.drawn} drawn in {duration(outcome.seconds)}, {rate}"
    if outcome.failed:
        said += f"; {outcome.failed} failed: see {outcome.folder / 'errors.jsonl'}; the same command tries them again"
    if outcome.missing:
        said += f"; {outcome.missing} not drawn yet"
    return said


def _report(outcome: Outcome) -> dict[str, Any]:
    """Return everything about a run, with units in the keys."""
    return {
        "folder": str(outcome.folder),
        "metadata": str(outcome.folder / "metadata.jsonl"),
        "shard": None if outcome.shard.whole else f"{outcome.shard.index}/{outcome.shard.count}",
        "datasets": list(map(str, outcome.datasets)),
        "asked": outcome.asked,
        "finished": outcome.finished,
        "drawn": outcome.drawn,
        "failed": outcome.failed,
        "errors": list(outcome.errors),
        "seconds": round(outcome.seconds, 3),
        "drawn_by": outcome.drawn_by,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _without(add: Callable[..., object], fields: Collection[str]) -> Callable[..., object]:
    """Return an ``add_argument`` that leaves out some options."""

    def added(*names: str, **more: Any) -> object:  # noqa: ANN401 - as argparse has it
        return None if more.get("dest") in fields else add(*names, **more)

    return added


def _seed(text: str) -> int | None:
    """Read the seed of a job; -1 asks for a random one, as in A1111."""
    if text == "-1":
        return None
    if not (text.isascii() and text.isdigit() and int(text[:20]) < 1 << 63):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**63 - 1")
    return int(text)


def _folder(text: str) -> Path:
    """Read the name of a folder; an empty one, of a variable that is not set, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


def _positive(text: str) -> int:
    """Read a number of processors or seconds."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= _MOST):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {_MOST}")
    return int(text)


def _show(path: Path) -> None:
    """Print the path of a picture at once."""
    print(path, flush=True)


def _say(line: str) -> None:
    """Talk to the person: on stderr, so that stdout carries only results. Rows and bundles are somebody else's."""
    print(escaped(line), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
