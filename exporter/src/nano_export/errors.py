"""The errors of an export, in the runtime's tree of errors.

UsageError      2
├── AdoptionError
├── CheckpointError · PickleOnlyError · UnsupportedModelError · SchedulerError
├── SingleFileError · PickleFileError · VocabularyNotFoundError
├── UndrawableError · UntraceableError
├── GoalRangeError · QuantizerError
├── NotReplacedError
└── ImageSizeError · LoraError · EmbeddingError · HubFilesError
BundleError     3
├── ParityError
└── GoalError
MachineError    4
└── QuantizerMissingError
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from nano_runtime.errors import BundleError, MachineError, UsageError

__all__ = [
    "AdoptionError",
    "CheckpointError",
    "EmbeddingError",
    "GoalError",
    "GoalRangeError",
    "HubFilesError",
    "ImageSizeError",
    "LoraError",
    "NotReplacedError",
    "ParityError",
    "PickleFileError",
    "PickleOnlyError",
    "QuantizerError",
    "QuantizerMissingError",
    "SchedulerError",
    "SingleFileError",
    "UndrawableError",
    "UnsupportedModelError",
    "UntraceableError",
    "VocabularyNotFoundError",
    "quoted",
]

_QUOTED_LETTERS = 120


def quoted(name: str) -> str:
    """Quote a name from a file for a message, on one line and not too long."""
    return repr(name if len(name) <= _QUOTED_LETTERS else f"{name[:_QUOTED_LETTERS]}…")


class CheckpointError(UsageError):
    """A checkpoint that is missing, incomplete or damaged."""

    def __init__(self, where: Path | str, why: str) -> None:
        super().__init__(
            f"{where} is not a usable checkpoint: {why}",
            "Give a diffusers folder, a .safetensors file, a Hub id, or a built-in model (see nano-export --help).",
        )


class PickleOnlyError(UsageError):
    """Weights that exist only as pickles, which can run code when they are loaded."""

    def __init__(self, folder: Path | str) -> None:
        super().__init__(
            f"{folder} holds its weights only as pickles (.bin, .ckpt), which can run code when they are read",
            "Convert them to .safetensors first, for example with the Hub's safetensors converter.",
        )


class UnsupportedModelError(UsageError):
    """A checkpoint of an architecture this exporter does not know."""

    def __init__(self, where: Path | str, found: str, supported: Iterable[str]) -> None:
        super().__init__(f"{where} has {found}", f"Supported: {', '.join(supported)}.")


class SchedulerError(UsageError):
    """A scheduler config that no sampler can follow."""

    def __init__(self, place: Path | str, why: str, supported: str) -> None:
        super().__init__(
            f"{place} cannot be drawn with: {why}",
            f"{supported} Change the key there, or put the config of another scheduler into its place.",
        )


class AdoptionError(UsageError):
    """A folder of graphs that cannot become a bundle."""

    def __init__(self, where: Path | str, why: str) -> None:
        super().__init__(
            f"{where} cannot be adopted: {why}",
            "--adopt takes a Stable Diffusion that optimum, optimum-intel or diffusers exported to ONNX or OpenVINO. "
            "A checkpoint with safetensors is exported without --adopt.",
        )


class SingleFileError(UsageError):
    """One file with a model that is something else than a Stable Diffusion 1 or 2, or that leaves something open."""

    def __init__(self, file: Path | str, why: str, remedy: str) -> None:
        super().__init__(f"{file} cannot be exported: {why}", remedy)


class PickleFileError(UsageError):
    """A model in one pickle, which can run code when it is loaded."""

    def __init__(self, file: Path) -> None:
        source, target = json.dumps(str(file)), json.dumps(str(file.with_suffix(".safetensors")))
        call = (
            "import torch; from safetensors.torch import save_file; "
            f'd = torch.load({source}, map_location="cpu", weights_only=True); d = d.get("state_dict", d); '
            f'save_file({{k: v.clone().contiguous() for k, v in d.items() if hasattr(v, "dtype")}}, {target})'
        )
        super().__init__(
            f"{file} is a pickle, which can run code when it is read",
            f"Take the .safetensors that most models also come as, or convert it: python -c {quote(call)}",
        )


class VocabularyNotFoundError(UsageError):
    """A single file, and no vocabulary of CLIP anywhere: prompts cannot be read."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"{file} holds no vocabulary, and CLIP's was found neither beside it nor in the Hub client's cache",
            "Install the package that has it (pip install --no-deps open_clip_torch), or give --tokenizer FOLDER "
            "with vocab.json and merges.txt, as every Stable Diffusion repository has them.",
        )


class UndrawableError(UsageError):
    """A checkpoint that diffusers' own pipeline cannot draw, so that there is nothing to compare with."""

    def __init__(self, model: str, why: str) -> None:
        super().__init__(
            f"diffusers' own pipeline cannot draw with {model}: {why}",
            "Nothing was written. Mend the checkpoint's configs until diffusers draws with it.",
        )


class UntraceableError(UsageError):
    """A network that torch or the passes behind it cannot write as a graph."""

    def __init__(self, component: str, why: str) -> None:
        super().__init__(
            f"the {component} cannot be written as a graph: {why}",
            "Nothing was written. If diffusers draws with the checkpoint, this is worth a bug report.",
        )


class ImageSizeError(UsageError):
    """A picture size that the network cannot draw."""

    def __init__(self, size: int, multiple: int, largest: int, *, named: bool = True) -> None:
        whose = "" if named else ", which sample_size in unet/config.json asks for,"
        super().__init__(
            f"a size of {size} pixels{whose} cannot be exported",
            f"Choose with --size a multiple of {multiple} from {multiple} to {largest}.",
        )


class LoraError(UsageError):
    """A LoRA that cannot be read, or that does not fit this model."""

    def __init__(self, file: Path | str, why: str) -> None:
        super().__init__(
            f"the LoRA {file} cannot be merged: {why}",
            "Give a .safetensors file by kohya's scripts, LyCORIS, diffusers or PEFT, or the folder or Hub id of one, "
            "trained for the model that is exported.",
        )


class EmbeddingError(UsageError):
    """A textual inversion that cannot be read, or that does not fit this model."""

    def __init__(self, file: Path | str, why: str) -> None:
        super().__init__(
            f"the embedding {file} cannot be added: {why}",
            "Give a .safetensors file by AUTOMATIC1111 or diffusers, trained for the model that is exported.",
        )


class HubFilesError(UsageError):
    """A repository with a LoRA that cannot be had from the Hub."""

    def __init__(self, repository: str, why: str) -> None:
        super().__init__(
            f"{repository} cannot be used: {why}",
            "Give the path of a file or a folder, or a public Hub id such as user/repository.",
        )


class NotReplacedError(UsageError):
    """A place that ``--force`` must not replace, because not all in it is a bundle."""

    def __init__(self, target: Path, why: str) -> None:
        super().__init__(
            f"{target} is not replaced: {why}",
            "Nothing was changed. Move away what is not the bundle's, or choose another folder with -o.",
        )


class GoalRangeError(UsageError):
    """A goal that no comparison of two float32 results has."""

    def __init__(self, goal: float, most: float) -> None:
        super().__init__(
            f"--min-psnr {goal:g} cannot be a goal", f"Give decibels above 0 and up to {most:g}; 38 is usual."
        )


class QuantizerError(UsageError):
    """Another quantizer was asked for, where it cannot be used."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"--quantizer nncf cannot be used: {why}", remedy)


class QuantizerMissingError(MachineError, ImportError):
    """The package of another quantizer is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "--quantizer nncf needs the package nncf, which is not installed",
            'Install it with: pip install "nano-export[nncf]"',
        )


class ParityError(BundleError):
    """An exported graph whose results are too far from the original's."""

    def __init__(self, what: str, measured: str, required: str) -> None:
        super().__init__(
            f"{what} differs from the original: {measured}, {required} is required",
            "Nothing was written. If the checkpoint is sound, this is worth a bug report.",
        )


class GoalError(BundleError):
    """INT8 that falls short of its goal, where ``--strict`` forbids that."""

    def __init__(self, figures: str) -> None:
        super().__init__(
            f"INT8 falls short of its goal, and --strict was given: {figures}",
            "Nothing was written. Lower the goal with --min-psnr, export without --int8, or leave out --strict: the "
            "bundle is then written, and a warning has these figures.",
        )
