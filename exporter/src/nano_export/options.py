"""The options of an export: one record, each option described once, here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from nano_export.errors import GoalRangeError, LoraError, QuantizerError
from nano_runtime.bundle.manifest import Backend, Quantizer
from nano_runtime.bundle.wiring import GraphForm
from nano_runtime.errors import ConflictError, MissingArgumentError, OptionError
from nano_runtime.values import number, one_of, path, switch, text, whole

__all__ = [
    "BUILT_IN",
    "NANO",
    "NOTHING_ASKED",
    "EmbeddingFile",
    "LoraFile",
    "Options",
    "PlanName",
    "Precision",
    "PredictionType",
    "SingleFileOptions",
    "parse_embedding",
    "parse_lora",
]

NANO = "bguisard/stable-diffusion-nano-2-1"
"""Hub id of Stable Diffusion Nano 2.1."""

BUILT_IN = ("demo", "tiny", "synthetic")
"""Names of the models that need no download; see ``source.builtin``."""

Precision: TypeAlias = Literal["fp32", "int8"]
PlanName: TypeAlias = Literal["w8a8"]
PredictionType: TypeAlias = Literal["epsilon", "v_prediction"]

MOST_PSNR = 200.0
"""Decibels beyond which no two computations in float32 agree; a goal is at most this."""

_FILE_AND_SCALE = re.compile(r"(?P<file>.*):(?P<scale>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", re.DOTALL)


_FILE_AND_WORD = re.compile(r"(?P<file>.*?\.(?:safetensors|pt|bin|ckpt|pth))=(?P<word>.+)", re.DOTALL)


@dataclass(frozen=True)
class LoraFile:
    """A LoRA to merge, and a finite factor on all its changes.

    Attributes:
        path: of a safetensors file, or of a folder as diffusers or PEFT write it; or a Hub id, or that and a file in
            it, as a relative path.
        scale: 1 is the LoRA as it was trained.
    """

    path: Path
    scale: float = 1.0


@dataclass(frozen=True)
class EmbeddingFile:
    """A textual inversion to add: a safetensors file, and the word for it; None takes the file's own."""

    path: Path
    word: str | None = None


@dataclass(frozen=True, kw_only=True)
class SingleFileOptions:
    """Facts that a single file in the original layout may lack; for no other model.

    Attributes:
        tokenizer: folder with CLIP's vocabulary; None looks for one, see ``source.single_file.vocabulary``.
        config: folder with diffusers' configs, as ``from_single_file(config=...)`` takes it; None works them out.
        prediction_type: of the network; None takes what the file, or a yaml beside it, says.
    """

    tokenizer: Path | None = None
    config: Path | None = None
    prediction_type: PredictionType | None = None


NOTHING_ASKED = SingleFileOptions()
"""A single file is exported as its tensors, and what lies beside it, say."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of one export; the defaults are those of the command.

    Attributes:
        model: a built-in name, the path of a diffusers folder or of a single file, or a Hub id, tried in this order.
        output: the folder to create.
        precision: of weights and activations.
        plan: of ``quantize.plan``: the layers that become INT8, and how. Unused in fp32.
        quantizer: of the INT8 graphs. ``nncf`` is Intel's, for a bundle that serves OpenVINO alone.
        min_psnr: decibels that each INT8 graph has to reach on equal inputs, which the search for a plan aims at; None
            takes the goals of ``judge.fidelity``.
        strict: whether INT8 that falls short of its goal is refused; otherwise it is written, with a warning.
        backends: engines that the bundle must serve.
        graph: ``hoisted`` is faster; ``standard`` has the inputs of diffusers and optimum.
        compact: one set of files for all engines. OpenVINO then reads the ONNX graphs, and loads them more slowly than
            graphs of its own.
        size: width and height of the pictures, in pixels; None takes the size for which the checkpoint was made.
        vae: folder of an autoencoder that takes the place of the checkpoint's, such as TAESD; None keeps it.
        preview_vae: folder of a small autoencoder, such as TAESD, whose decoder shows pictures while they are drawn;
            None leaves that to a matrix.
        loras: merged into the weights, in this order.
        embeddings: textual inversions, added to the tokenizer and the text encoder.
        revision: branch, tag or commit of a Hub model; None is the default branch.
        variant: of the weights' file names, such as "fp16"; None takes the plain ones, or what there is instead.
        single_file: facts that a single file lacks.
        force: whether an existing bundle is replaced.
    """

    model: str = NANO
    output: Path
    precision: Precision = "fp32"
    plan: PlanName = "w8a8"
    quantizer: Quantizer = "nano"
    min_psnr: float | None = None
    strict: bool = False
    backends: tuple[Backend, ...] = ("onnxruntime", "openvino")
    graph: GraphForm = "hoisted"
    compact: bool = False
    size: int | None = None
    vae: Path | None = None
    preview_vae: Path | None = None
    loras: tuple[LoraFile, ...] = ()
    embeddings: tuple[EmbeddingFile, ...] = ()
    revision: str | None = None
    variant: str | None = None
    single_file: SingleFileOptions = NOTHING_ASKED
    force: bool = False

    def __post_init__(self) -> None:
        """Check the type of every value, and refuse options that contradict each other.

        Raises:
            UsageError: a value is not one of its option's (``OptionError``); what is asked of INT8 graphs is asked of
                others, or cannot be had.
        """
        for option in fields(self):
            value = getattr(self, option.name)
            if value is not None or option.default is not None:
                object.__setattr__(self, option.name, _CHECKS[option.name](option.name, value))
        if self.precision != "int8":
            for flag, given in (
                ("--quantizer", self.quantizer != "nano"),
                ("--min-psnr", self.min_psnr is not None),
                ("--strict", self.strict),
            ):
                if given:
                    raise MissingArgumentError(flag, "--int8")
        if self.min_psnr is not None and not 0 < self.min_psnr <= MOST_PSNR:
            raise GoalRangeError(self.min_psnr, MOST_PSNR)
        if self.quantizer == "nncf" and self.backends != ("openvino",):
            raise QuantizerError("its graphs are quick in OpenVINO only", "Give --backend openvino, and no other.")
        if self.quantizer == "nncf" and self.compact:
            raise ConflictError("--quantizer nncf", "--compact")

    def of_floats(self) -> Options:
        """Return the options of the float bundle that INT8 is made of, which onnxruntime runs."""
        floats: Backend = "onnxruntime"
        return replace(self, precision="fp32", quantizer="nano", min_psnr=None, strict=False, backends=(floats,))


def _model(name: str, value: Any) -> str:  # noqa: ANN401 - it is checked here
    """Return the name of a model, which may be a path."""
    return text(name, str(value) if isinstance(value, Path) else value)


def _all_of(kind: type[Any] | tuple[str, ...], wanted: str, name: str, value: Any) -> tuple[Any, ...]:  # noqa: ANN401 - it is checked here
    """Return a sequence of records of one kind, or of choices, as a tuple."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise OptionError(name, value, wanted)
    if isinstance(kind, tuple):
        return tuple(one_of(name, one, kind) for one in value)
    if not all(isinstance(one, kind) for one in value):
        raise OptionError(name, value, wanted)
    return tuple(value)


def _single_file(name: str, value: Any) -> SingleFileOptions:  # noqa: ANN401 - it is checked here
    """Return facts about a single file."""
    if not isinstance(value, SingleFileOptions):
        raise OptionError(name, value, "a SingleFileOptions")
    return value


_CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "model": _model,
    "output": path,
    "precision": partial(one_of, known=get_args(Precision)),
    "plan": partial(one_of, known=get_args(PlanName)),
    "quantizer": partial(one_of, known=get_args(Quantizer)),
    "min_psnr": number,
    "strict": switch,
    "backends": partial(_all_of, get_args(Backend), "a sequence of engines"),
    "graph": partial(one_of, known=get_args(GraphForm)),
    "compact": switch,
    "size": whole,
    "vae": path,
    "preview_vae": path,
    "loras": partial(_all_of, LoraFile, "a sequence of LoraFile, as parse_lora makes them"),
    "embeddings": partial(_all_of, EmbeddingFile, "a sequence of EmbeddingFile, as parse_embedding makes them"),
    "revision": text,
    "variant": text,
    "single_file": _single_file,
    "force": switch,
}
"""For each option: takes its name and a value, and returns the value in the option's type, or raises ``UsageError``."""


def parse_lora(text: str) -> LoraFile:
    """Read ``FILE[:SCALE]``; only a number after the last colon is a scale, so paths may contain colons.

    Raises:
        LoraError: the scale is not finite.
    """
    match = _FILE_AND_SCALE.fullmatch(text)
    if match is None:
        return LoraFile(Path(text).expanduser())
    if not math.isfinite(scale := float(match["scale"])):
        raise LoraError(match["file"], f"the scale {match['scale']} is too large")
    return LoraFile(Path(match["file"]).expanduser(), scale)


def parse_embedding(text: str) -> EmbeddingFile:
    """Read ``FILE[=WORD]``; only a ``=`` behind the file's suffix begins a word, so paths and words may have others."""
    match = _FILE_AND_WORD.fullmatch(text)
    if match is None:
        return EmbeddingFile(Path(text).expanduser())
    return EmbeddingFile(Path(match["file"]).expanduser(), match["word"])
