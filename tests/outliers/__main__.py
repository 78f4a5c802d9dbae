"""Makes checkpoints with outlier channels, and measures INT8 exports of them: ``python -m tests.outliers --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.outliers.writing import DEMO


def main() -> int:
    """Run the command; its exit code is 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    _folded(commands.add_parser("folded", help="scale channels where they are written, and back where they are read"))
    _rotated(commands.add_parser("rotated", help="turn the streams of transformers so that few channels carry most"))
    _shaped(commands.add_parser("shaped", help="outliers of other shapes: heads, signs, constants that nothing sees"))
    _learned(commands.add_parser("learned", help="distil the demo from itself, while channels are pushed up"))
    _measure(commands.add_parser("measure", help="export checkpoints in INT8, and print how far they are from fp32"))
    arguments = parser.parse_args()
    arguments.run(arguments)
    return 0


def _folded(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("output", type=Path, metavar="OUT", help="diffusers folder to write")
    add("--model", type=Path, default=DEMO, help="diffusers folder to start from; the demo by default")
    add("--share", type=float, default=0.02, help="probability of each channel to become an outlier")
    add("--scale", type=float, default=40.0, help="factor of an outlier")
    add("--spread", type=float, default=0.0, help="standard deviation of the logarithm of a factor of all channels")
    add("--shift", type=float, default=0.0, help="constant that is added to outliers, with a random sign")
    add("--seed", type=int, default=0)
    add("--where", nargs="+", choices=("unet", "text_encoder", "vae"), default=["unet", "text_encoder", "vae"])
    parser.set_defaults(run=_fold)


def _fold(arguments: argparse.Namespace) -> None:
    from tests.outliers.folded import Folding, fold  # noqa: PLC0415
    from tests.outliers.writing import write  # noqa: PLC0415

    from nano_export.source.checkpoint import open_checkpoint  # noqa: PLC0415 (imports torch)

    folding = Folding(
        share=arguments.share,
        scale=arguments.scale,
        spread=arguments.spread,
        shift=arguments.shift,
        seed=arguments.seed,
        where=arguments.where,
    )
    folded, change = fold(open_checkpoint(str(arguments.model), None), folding)
    write(folded, arguments.output, arguments.model)
    _say(f"{arguments.output}: the same within {change:.1e} of the range")


def _rotated(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("output", type=Path, metavar="OUT", help="diffusers folder to write")
    add("--model", type=Path, default=DEMO, help="diffusers folder to start from; the demo by default")
    add("--seed", type=int, default=0)
    parser.set_defaults(run=_rotate)


def _rotate(arguments: argparse.Namespace) -> None:
    from tests.outliers.rotated import rotate  # noqa: PLC0415
    from tests.outliers.writing import write  # noqa: PLC0415

    from nano_export.source.checkpoint import open_checkpoint  # noqa: PLC0415

    rotated, change = rotate(open_checkpoint(str(arguments.model), None), arguments.seed)
    write(rotated, arguments.output, arguments.model)
    _say(f"{arguments.output}: the same within {change:.1e} of the range")


def _shaped(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("kind", help="one of the kinds in tests/outliers/shaped.py")
    add("output", type=Path, metavar="OUT", help="diffusers folder to write")
    add("--model", type=Path, default=DEMO, help="diffusers folder to start from; the demo by default")
    add("--seed", type=int, default=0)
    parser.set_defaults(run=_shape)


def _shape(arguments: argparse.Namespace) -> None:
    from tests.outliers.shaped import shape  # noqa: PLC0415
    from tests.outliers.writing import write  # noqa: PLC0415

    from nano_export.source.checkpoint import open_checkpoint  # noqa: PLC0415

    shaped, change = shape(open_checkpoint(str(arguments.model), None), arguments.kind, arguments.seed)
    write(shaped, arguments.output, arguments.model)
    _say(f"{arguments.output}: the same within {change:.1e} of the range")


def _learned(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("output", type=Path, metavar="OUT", help="diffusers folder to write; OUT.states has the training's states")
    add("--ratio", type=float, default=20.0, help="of pushed channels to the median one")
    add("--minutes", type=float, default=8.0, help="of computing time; more than before goes on")
    add("--seed", type=int, default=0)
    add("--push", choices=("inputs", "streams"), default="inputs", help="inputs of layers, or of norms")
    parser.set_defaults(run=_teach)


def _teach(arguments: argparse.Namespace) -> None:
    from tests.outliers.lessons import teach  # noqa: PLC0415

    for line in teach(
        arguments.output,
        ratio=arguments.ratio,
        minutes=arguments.minutes,
        seed=arguments.seed,
        watched=arguments.push,
    ):
        _say(line)


def _measure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoints", type=Path, nargs="*", metavar="CKPT", help="diffusers folders, judged beside the demo")
    add("--backend", nargs="+", choices=("onnxruntime", "openvino"), default=["onnxruntime"])
    parser.set_defaults(run=_table)


def _table(arguments: argparse.Namespace) -> None:
    from tests.outliers.measure import table  # noqa: PLC0415

    for line in table([DEMO, *arguments.checkpoints], tuple(arguments.backend)):
        _say(line)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (this is a program)


if __name__ == "__main__":
    sys.exit(main())
