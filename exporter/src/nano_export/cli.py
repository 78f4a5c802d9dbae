"""The command ``nano-export``: options in, a bundle and a short report out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from nano_runtime.bundle.manifest import Backend
from nano_runtime.cli import make_parser, megabytes, run_command
from nano_runtime.errors.escaping import escaped

if TYPE_CHECKING:
    from nano_export.export import Exported, Options

__all__ = ["main"]

_NANO = "bguisard/stable-diffusion-nano-2-1"
_EXAMPLES = """\
  nano-export --int8 -o nano-int8                     Stable Diffusion Nano 2.1 from the Hub, for both engines
  nano-export ./my-finetune --int8 -o mine            a diffusers folder: Nano, SD 1.x or 2.x, and their fine-tunes
  nano-export synthetic --int8 -o full --backend openvino    the real architecture with random weights, to measure
  nano-export ./sd-2-1 --size 512 --lora style.safetensors:0.8 -o style    with a style merged into it
  nano-export demo --int8 -o demo                     a small trained model that draws emoji, no download
"""


class _Options(argparse.Namespace):
    """The command line, typed."""

    model: str
    output: Path
    precision: Literal["fp32", "int8"]
    backend: list[Backend] | None
    graph: Literal["hoisted", "standard"]
    compact: bool
    size: int
    lora: list[str]
    revision: str | None
    force: bool
    json: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Options(), _export, argv)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nano-export", "Turn a Stable Diffusion checkpoint into a bundle that runs on a CPU.", _EXAMPLES
    )
    add = parser.add_argument
    add(
        "model",
        nargs="?",
        default=_NANO,
        metavar="MODEL",
        help="a Hub id, a diffusers folder, or a built-in model: demo, tiny, synthetic (default: %(default)s)",
    )
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="the bundle to create")
    add("--precision", choices=("fp32", "int8"), default="fp32", help="of weights and activations (default: fp32)")
    add("--int8", dest="precision", action="store_const", const="int8", help="the same as --precision int8")
    add("--backend", action="append", choices=get_args(Backend), help="an engine to serve; repeatable (default: both)")
    add(
        "--graph",
        choices=("hoisted", "standard"),
        default="hoisted",
        help="hoisted is faster, standard has diffusers' inputs (default: hoisted)",
    )
    add("--compact", action="store_true", help="one set of files for both engines; OpenVINO loads it more slowly")
    add("--size", type=int, default=128, metavar="PX", help="width and height of the pictures (default: %(default)s)")
    add(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="merge a LoRA (.safetensors) into the weights; repeatable (scale: 1)",
    )
    add("--revision", metavar="REV", help="branch, tag or commit of a Hub model")
    add("--force", action="store_true", help="replace a bundle that exists")
    add("--json", action="store_true", help="print one JSON document instead of the report")
    return parser


def _export(options: _Options) -> int:
    """Check what costs nothing to check, then export behind a progress bar."""
    from nano_export.bundle.publish import check_target

    check_target(options.output, force=options.force)

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it talks about its own optional parts when imported
    from nano_export.export import Options
    from nano_export.source.lora_file import parse_lora

    backends = tuple(dict.fromkeys(options.backend)) if options.backend is not None else get_args(Backend)
    exported = _run(
        Options(
            model=options.model,
            output=options.output,
            precision=options.precision,
            backends=backends,
            graph=options.graph,
            compact=options.compact,
            size=options.size,
            loras=tuple(map(parse_lora, options.lora)),
            revision=options.revision,
            force=options.force,
        )
    )
    print(json.dumps(_document(exported), indent=1) if options.json else _report(exported))
    return 0


def _run(options: Options) -> Exported:
    """Export; a terminal sees a bar, anything else a line for each stage."""
    from tqdm import tqdm

    from nano_export.export import Exported, export

    stage = ""
    with tqdm(
        total=1.0,
        bar_format="{percentage:3.0f}% {bar} {elapsed} {desc}",
        file=sys.stderr,
        leave=False,
        disable=not sys.stderr.isatty(),
    ) as bar:
        for event in export(options):
            if isinstance(event, Exported):
                return event
            if bar.disable and event.stage != stage:
                print(f"{event.done:4.0%} {escaped(event.stage)}", file=sys.stderr, flush=True)
            stage = event.stage
            bar.set_description_str(escaped(stage), refresh=False)
            bar.update(event.done - bar.n)
    raise AssertionError("an export ends with its result")


def _report(exported: Exported) -> str:
    """The path, the size and how close the pictures are to the original's."""
    lines = [f"{exported.path}  {megabytes(exported.size_bytes)} MB"]
    for backend, scores in exported.scores.items():
        lines.append(
            f"{backend}: pictures {scores.image_psnr_db:.1f} dB PSNR, {scores.image_ssim:.3f} SSIM, "
            f"{scores.latent_rmse:.1e} relative latent error against the original in fp32"
        )
        parts = ", ".join(f"{name} {score:.1f} dB" for name, score in sorted(scores.component_psnr_db.items()))
        lines.append(f"{' ' * len(backend)}  parts on equal inputs: {parts}")
    return "\n".join(lines)


def _document(exported: Exported) -> dict[str, Any]:
    """The same as data."""
    from dataclasses import asdict

    return {
        "path": str(exported.path),
        "size_bytes": exported.size_bytes,
        "fidelity": {backend: asdict(scores) for backend, scores in exported.scores.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
