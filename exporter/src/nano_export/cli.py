"""The command ``nano-export``: reads options, exports, and prints a short report."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from nano_export.bundle.facts import OPENVINO_TOKENIZER
from nano_export.options import Options, Precision, PredictionType, SingleFileOptions, parse_embedding, parse_lora
from nano_export.progress import Progress
from nano_runtime.bundle.goals import cost_of
from nano_runtime.bundle.manifest import Backend, Change, Quantizer
from nano_runtime.bundle.wiring import GraphForm
from nano_runtime.cli import Parser, make_parser, megabytes, number, run_command
from nano_runtime.cli.interruptions import native_code_ends
from nano_runtime.errors import ConflictError
from nano_runtime.errors.escaping import escaped

if TYPE_CHECKING:
    from nano_export.exporting import Exported

__all__ = ["main"]

_Result = TypeVar("_Result")

_EXAMPLES = """\
  nano-export --int8 -o nano-int8                     Stable Diffusion Nano 2.1 from the Hub, for both engines
  nano-export ./my-finetune --int8 --min-psnr 42 --strict -o mine     refuse INT8 that is farther from fp32
  nano-export ./my-finetune --int8 -o mine            a diffusers folder: Nano, SD 1.x or 2.x, or a fine-tune of one
  nano-export ./dreamshaper.safetensors --int8 -o dream   one file from Civitai or A1111: SD 1.x or 2.x
  nano-export ./my-finetune --int8 --quantizer nncf --backend openvino -o mine    quantized by Intel's NNCF
  nano-export synthetic --int8 -o full --backend openvino    the full-size network with random weights, to measure
  nano-export ./sd-2-1 --size 512 --lora style.safetensors:0.8 -o style    with a style merged into it
  nano-export ./sd-1-5 --embedding easynegative.safetensors -o careful     prompts may say easynegative
  nano-export demo --int8 -o demo                     a small trained model that draws emoji, no download
  nano-export --adopt ./sd-onnx -o mine               a folder of ONNX or OpenVINO graphs, as optimum exports them
"""

_LISTED = 10  # layers in the report
_OF_ADOPTIONS = {"adopt", "output", "size", "force", "json"}  # names of the options that go with --adopt


class _Arguments(argparse.Namespace):
    """The command line, typed."""

    model: str
    adopt: Path | None
    output: Path
    precision: Precision
    quantizer: Quantizer
    min_psnr: float | None
    strict: bool
    backend: list[Backend] | None
    graph: GraphForm
    compact: bool
    size: int | None
    vae: Path | None
    preview_vae: Path | None
    lora: list[str]
    embedding: list[str]
    tokenizer: Path | None
    config: Path | None
    prediction_type: PredictionType | None
    revision: str | None
    variant: str | None
    force: bool
    json: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(_parser(), _Arguments(), _export, argv, "nano_export")


def _parser() -> Parser:
    parser = make_parser(
        "nano-export", "Turn a Stable Diffusion checkpoint into a bundle that runs on a CPU.", _EXAMPLES
    )
    add = parser.add_argument
    add(
        "model",
        nargs="?",
        default=Options.model,
        metavar="MODEL",
        help="a Hub id, a diffusers folder, a .safetensors file, or a built-in model: demo, tiny, synthetic "
        "(default: %(default)s)",
    )
    add(
        "--adopt",
        type=Path,
        metavar="FOLDER",
        help="make a bundle of graphs that optimum, optimum-intel or diffusers exported, as they are, without torch",
    )
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="new folder for the bundle")
    add(
        "--precision",
        choices=get_args(Precision),
        default=Options.precision,
        help="arithmetic of weights and activations (default: %(default)s)",
    )
    add("--int8", dest="precision", action="store_const", const="int8", help="short for --precision int8")
    add(
        "--quantizer",
        choices=get_args(Quantizer),
        default=Options.quantizer,
        help="what makes the graphs INT8: nano, or Intel's nncf, for OpenVINO alone (default: %(default)s)",
    )
    add(
        "--min-psnr",
        type=number,
        metavar="DB",
        help="goal of each INT8 network: its distance from fp32 on equal inputs (default: 36 to 44 dB, by network)",
    )
    add("--strict", action="store_true", help="refuse INT8 that falls short of its goal; otherwise it is a warning")
    add(
        "--backend",
        action="append",
        choices=get_args(Backend),
        help="engine that can run it; repeatable (default: both)",
    )
    add(
        "--graph",
        choices=get_args(GraphForm),
        default=Options.graph,
        help="hoisted is faster, standard has diffusers' inputs (default: %(default)s)",
    )
    add("--compact", action="store_true", help="one set of files for both engines; OpenVINO loads it more slowly")
    add(
        "--size",
        type=number,
        metavar="PX",
        help="width and height of the pictures (default: the checkpoint's own; Nano's is 128)",
    )
    add(
        "--vae",
        type=Path,
        metavar="FOLDER",
        help="another autoencoder, such as TAESD, instead of the checkpoint's (AutoencoderKL or AutoencoderTiny)",
    )
    add(
        "--preview-vae",
        type=Path,
        metavar="FOLDER",
        help="a small autoencoder, such as TAESD, that shows pictures while they are drawn (nano-generate --preview)",
    )
    add(
        "--lora",
        action="append",
        default=[],
        metavar="LORA[:SCALE]",
        help="merge a LoRA into the weights: a .safetensors file, a folder as diffusers or PEFT write it, or a Hub id; "
        "repeatable (default scale: 1)",
    )
    add(
        "--embedding",
        action="append",
        default=[],
        metavar="FILE[=WORD]",
        help="add a textual inversion (.safetensors); repeatable (default word: the one in the file, or its name)",
    )
    add(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="vocab.json and merges.txt for a single file (default: beside it, the Hub cache, open_clip_torch)",
    )
    add("--config", type=Path, metavar="FOLDER", help="diffusers' configs for a single file (default: by its tensors)")
    add(
        "--prediction-type",
        choices=get_args(PredictionType),
        help="what the network of a single file predicts (default: as the file, or a yaml beside it, says)",
    )
    add("--revision", metavar="REV", help="branch, tag or commit of a Hub model")
    add(
        "--variant",
        metavar="NAME",
        help="of the weights' files, such as fp16 or non_ema (default: the plain files, or what there is instead)",
    )
    add("--force", action="store_true", help="replace an existing bundle; a folder with other files in it stays")
    add("--json", action="store_true", help="print one JSON document instead of the report")
    return parser


def _export(arguments: _Arguments) -> int:
    """Check the target, which imports nothing heavy; then export behind a progress bar."""
    from nano_export.bundle.publish import check_target, discard_unfinished

    check_target(arguments.output, force=arguments.force)
    with native_code_ends("nano-export", discard_unfinished):
        if arguments.adopt is not None:
            return _adopt(arguments, arguments.adopt)
        return _from_checkpoint(arguments)


def _from_checkpoint(arguments: _Arguments) -> int:
    """Export a checkpoint, and print what came of it."""
    chosen = Options.backends if arguments.backend is None else tuple(dict.fromkeys(arguments.backend))
    exported = _run(
        Options(
            model=arguments.model,
            output=arguments.output,
            precision=arguments.precision,
            quantizer=arguments.quantizer,
            min_psnr=arguments.min_psnr,
            strict=arguments.strict,
            backends=chosen,
            graph=arguments.graph,
            compact=arguments.compact,
            size=arguments.size,
            vae=arguments.vae,
            preview_vae=arguments.preview_vae,
            loras=tuple(map(parse_lora, arguments.lora)),
            embeddings=tuple(map(parse_embedding, arguments.embedding)),
            revision=arguments.revision,
            variant=arguments.variant,
            single_file=SingleFileOptions(
                tokenizer=arguments.tokenizer,
                config=arguments.config,
                prediction_type=arguments.prediction_type,
            ),
            force=arguments.force,
        )
    )
    print(json.dumps(_document(exported), indent=1) if arguments.json else _report(exported))
    return 0


def _adopt(arguments: _Arguments, folder: Path) -> int:
    """Adopt a folder; the library of its graphs is imported, torch is not."""
    usual = vars(_parser().parse_args(["--output", "."]))
    for name, value in vars(arguments).items():
        if name not in _OF_ADOPTIONS and value != usual[name]:
            raise ConflictError("--adopt", "MODEL" if name == "model" else f"--{name.replace('_', '-')}")
    from nano_export.adoption.adopting import Adopted, adopt

    size = None if arguments.size == usual["size"] else arguments.size
    adopted = _finished(adopt(folder, arguments.output, size=size, force=arguments.force), Adopted)
    if arguments.json:
        print(
            json.dumps({"path": str(adopted.path), "size_bytes": adopted.size_bytes, "notes": adopted.notes}, indent=1)
        )
    else:
        print(f"{adopted.path}  {megabytes(adopted.size_bytes)} MB, for {adopted.backend}")
        for note in adopted.notes:
            print(escaped(note))
    return 0


def _run(options: Options) -> Exported:
    """Export a checkpoint."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # importing it prints notes on its optional parts
    from nano_export.exporting import Exported, export

    gc.freeze()  # or each collection of an export looks through all that was imported, a third of a second
    try:
        return _finished(export(options), Exported)
    finally:
        gc.unfreeze()


def _finished(events: Iterator[Progress | _Result], kind: type[_Result]) -> _Result:
    """Return the result that events end with; a terminal shows a bar, anything else a line for each stage."""
    from tqdm import tqdm

    stage = ""
    with tqdm(
        total=1.0,
        bar_format="{percentage:3.0f}% {bar} {elapsed} {desc}",
        file=sys.stderr,
        leave=False,
        disable=not sys.stderr.isatty(),
    ) as bar:
        for event in events:
            if isinstance(event, kind):
                return event
            assert isinstance(event, Progress)  # noqa: S101 - all else that a generator yields
            if bar.disable and event.stage != stage:
                print(f"{event.done:4.0%} {escaped(event.stage)}", file=sys.stderr, flush=True)
            stage = event.stage
            bar.set_description_str(escaped(stage), refresh=False)
            bar.update(event.done - bar.n)
    raise AssertionError("an export ends with its result")


def _report(exported: Exported) -> str:
    """Say where the bundle is, how close it is to the original, what that cost, and what a reader lacks."""
    lines = [f"{exported.path}  {megabytes(exported.size_bytes)} MB"]
    for backend, scores in exported.scores.items():
        lines.append(
            f"{backend}: pictures {scores.image_psnr_db:.1f} dB PSNR, {scores.image_ssim:.3f} SSIM, "
            f"{scores.latent_rmse:.1e} relative latent error against the original in fp32"
        )
        parts = ", ".join(f"{name} {score:.1f} dB" for name, score in sorted(scores.component_psnr_db.items()))
        lines.append(f"{' ' * len(backend)}  parts on equal inputs: {parts}")
    lines.extend(_changes(exported.changes))
    if (exported.path / "model_index.json").exists() and not (exported.path / OPENVINO_TOKENIZER).exists():
        lines.append(f"openvino-genai needs {OPENVINO_TOKENIZER}, which the extra nano-export[genai] writes")
    return "\n".join(lines)


def _changes(changes: Sequence[Change]) -> Iterator[str]:
    """Yield what was done so that INT8 reaches its goal, and the cost; nothing if nothing was."""
    if changes:
        yield f"layers in another scheme than the plan's: {len(changes)}; {cost_of(changes)}"
    for change in changes[:_LISTED]:
        yield f"  {change.component} {change.layer}: {change.scheme}, {change.share:.1%}, {change.reason}"
    if len(changes) > _LISTED:
        yield f"  and {len(changes) - _LISTED} more, which nano-bundle info lists"


def _document(exported: Exported) -> dict[str, Any]:
    """Return the same as data."""
    from dataclasses import asdict

    from msgspec import to_builtins

    return {
        "path": str(exported.path),
        "size_bytes": exported.size_bytes,
        "fidelity": {backend: asdict(scores) for backend, scores in exported.scores.items()},
        "changes": [to_builtins(change) for change in exported.changes],
    }


if __name__ == "__main__":
    sys.exit(main())
