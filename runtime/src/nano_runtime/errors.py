"""Everything a user can cause to go wrong, as one small tree.

Each error composes its own message from typed arguments: what happened, to which file or value, what to do next. Each
leaf also is the builtin a caller would expect, so ``except ValueError`` works without knowing this module. The command
line prints the message and leaves with ``exit_code``; a traceback means a bug of ours.

    NanoError
    ├── UsageError            2   ValueError          the request cannot be met as asked
    │   ├── PromptError · NoPromptError · LongPromptError
    │   ├── UnknownSchedulerError
    │   ├── StepsError · SeedError · GuidanceError · IntervalError · SizeError · LatentsError · OptionError
    │   ├── ImageError · MaskSizeError · StrengthError · VariationError
    │   ├── MissingArgumentError · ConflictError · KeyFileError
    │   ├── BackendNotInBundleError · NoShortcutError · PrecisionError
    │   ├── OutputNameError · OutputExistsError · NoPreviewError
    │   └── NoParametersError · OtherBundleError · NoOriginalError
    ├── BundleError           3   ValueError          the bundle is not one, is damaged, or computes nonsense
    │   ├── NotABundleError · ManifestError · TamperedFileError · ExtraFileError
    │   ├── DigestError · SignatureError · UnsafeGraphError · LoaderDiedError
    │   ├── UnsupportedScheduleError
    │   └── EngineError · OutputShapeError · NonFiniteError
    ├── MachineError          4                       the machine lacks something
    │   ├── BackendMissingError · SigningMissingError   ImportError
    │   ├── NotEnoughMemoryError · OutOfMemoryError   MemoryError
    │   ├── DiskSpaceError · OutputError   OSError
    │   └── WorkerDiedError           ChildProcessError
    └── NetworkError          5   ConnectionError     the network or the far end failed
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from nano_runtime.text import escaped

__all__ = [
    "BackendMissingError",
    "BackendNotInBundleError",
    "BundleError",
    "ConflictError",
    "DigestError",
    "DiskSpaceError",
    "EngineError",
    "ExtraFileError",
    "GuidanceError",
    "ImageError",
    "IntervalError",
    "KeyFileError",
    "LatentsError",
    "LoaderDiedError",
    "LongPromptError",
    "MachineError",
    "ManifestError",
    "MaskSizeError",
    "MissingArgumentError",
    "NanoError",
    "NetworkError",
    "NoOriginalError",
    "NoParametersError",
    "NoPreviewError",
    "NoPromptError",
    "NoShortcutError",
    "NonFiniteError",
    "NotABundleError",
    "NotEnoughMemoryError",
    "OptionError",
    "OtherBundleError",
    "OutOfMemoryError",
    "OutputError",
    "OutputExistsError",
    "OutputNameError",
    "OutputShapeError",
    "PrecisionError",
    "PromptError",
    "SeedError",
    "SignatureError",
    "SigningMissingError",
    "SizeError",
    "StepsError",
    "StrengthError",
    "TamperedFileError",
    "UnknownSchedulerError",
    "UnsafeGraphError",
    "UnsupportedScheduleError",
    "UsageError",
    "VariationError",
    "WorkerDiedError",
]


class NanoError(Exception):
    """Base of all errors a user can cause.

    Args:
        what: one line, what happened and to which file or value.
        hint: one line, what to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, hint: str) -> None:
        # Names out of files and what engines say of them end in messages, and a terminal would obey them.
        self.what, self.hint = escaped(what), escaped(hint)
        super().__init__(f"{self.what}\n{self.hint}")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the branch with the finished message: leaves want arguments that are no longer known."""
        branch = next(base for base in type(self).__mro__ if "__init__" not in vars(base))
        return branch, (self.what, self.hint)


class UsageError(NanoError, ValueError):
    """The request cannot be met as it was asked."""

    exit_code = 2


class BundleError(NanoError, ValueError):
    """The bundle is missing, damaged or not usable."""

    exit_code = 3


class MachineError(NanoError):
    """This machine lacks something: an engine, space, memory, permission."""

    exit_code = 4


class NetworkError(NanoError, ConnectionError):
    """The network, or the server at the other end, failed."""

    exit_code = 5


class PromptError(UsageError):
    """A prompt that cannot be tokenized."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the prompt cannot be used: {why}", "Shorten it, or change what is named above.")


class LongPromptError(UsageError):
    """A prompt of several chunks for graphs that take one."""

    def __init__(self, bundle: Path, chunks: int) -> None:
        super().__init__(
            f"the prompt fills {chunks} chunks, and the graphs in {bundle} take one",
            "Export the bundle again with this release of nano-export, or leave out --long-prompt (long_prompts).",
        )


class NoPromptError(UsageError):
    """A command without anything to draw."""

    def __init__(self) -> None:
        super().__init__("there is no prompt", "Give one, - to read it from standard input, or --from PICTURE.")


class UnknownSchedulerError(UsageError):
    """A scheduler name that does not exist."""

    def __init__(self, name: str, known: Iterable[str], spreadable: Iterable[str]) -> None:
        super().__init__(
            f"there is no scheduler {name!r}",
            f"Choose one of: {', '.join(known)}. "
            f"After {', '.join(spreadable)} may come _karras, _exponential or _beta.",
        )


class StepsError(UsageError):
    """A number of steps outside the schedule."""

    def __init__(self, steps: int, most: int) -> None:
        super().__init__(f"{steps} steps cannot be run", f"Choose a number from 1 to {most}; 20 is usual.")


class StrengthError(UsageError):
    """A strength that is no share, or leaves no step to run."""

    def __init__(self, strength: float) -> None:
        super().__init__(
            f"the strength {strength} cannot be used",
            "Choose a number above 0 and up to 1 that leaves a step: strength times steps is rounded down.",
        )


class MissingArgumentError(UsageError):
    """An argument without the other that it needs."""

    def __init__(self, argument: str, needed: str) -> None:
        super().__init__(f"{argument} means nothing without {needed}", f"Give {needed}, or leave {argument} out.")


class KeyFileError(UsageError):
    """A key that cannot sign, or check a signature."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} cannot be used as a key: {why}",
            "Give an elliptic-curve key in PEM without a passphrase: the private one signs, the public one verifies.",
        )


class ConflictError(UsageError):
    """Two arguments that exclude each other."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other} exclude each other", f"Leave out {one} or {other}.")


class ImageError(UsageError):
    """A picture to start from, or a mask, that cannot be used."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} cannot be used: {why}", "Give a PNG, JPEG or WebP picture.")


class MaskSizeError(UsageError):
    """A mask of another size than its picture."""

    def __init__(self, mask: tuple[int, int], picture: tuple[int, int]) -> None:
        sizes = [f"{width} x {height}" for width, height in (mask, picture)]
        super().__init__(
            f"the mask has {sizes[0]} pixels and its picture {sizes[1]}",
            "Give a mask of the picture's own size, white where it is to be painted anew.",
        )


class VariationError(UsageError):
    """A strength of variation outside [0, 1]."""

    def __init__(self, strength: float) -> None:
        super().__init__(
            f"the variation strength {strength} cannot be used",
            "Choose a number from 0, the seed's own picture, to 1, the variation seed's; 0.1 to 0.3 are usual.",
        )


class SeedError(UsageError):
    """A seed outside 64 bits."""

    def __init__(self, seed: int) -> None:
        super().__init__(f"the seed {seed} is out of range", "Choose a whole number from 0 to 18446744073709551615.")


class GuidanceError(UsageError):
    """A guidance scale that is not a finite number of at least zero."""

    def __init__(self, guidance_scale: float) -> None:
        super().__init__(
            f"the guidance scale {guidance_scale} cannot be used",
            "Choose a number of at least 0; 7.5 is usual, 1 turns guidance off and halves the work.",
        )


class IntervalError(UsageError):
    """A guidance interval that is not two shares of the steps in ascending order."""

    def __init__(self, interval: object) -> None:
        super().__init__(
            f"the guidance interval {interval!r} cannot be used",
            "Give two shares of the steps from 0 to 1, the smaller first, as in 0.1:0.8; 0:1 is all steps.",
        )


class NoShortcutError(UsageError):
    """A bundle that was exported without what a cheaper way of drawing needs."""

    def __init__(self, bundle: Path, what: str) -> None:
        super().__init__(
            f"{bundle} has no {what}",
            "Draw with --quality exact and without --cache-interval, or export again, with --graph hoisted.",
        )


class SizeError(UsageError):
    """A picture size the static graphs were not made for."""

    def __init__(self, asked: tuple[int, ...], built: tuple[int, ...]) -> None:
        super().__init__(
            f"the bundle draws {' x '.join(map(str, built))}, not {' x '.join(map(str, asked))}",
            "Leave the size out, or export a bundle of the other size with nano-export --size.",
        )


class LatentsError(UsageError):
    """Starting latents that do not fit the request."""

    def __init__(self, found: str, wanted: tuple[int, ...]) -> None:
        super().__init__(
            f"the latents are {found}, not float32 {list(wanted)}",
            "Give unit-variance noise of that shape, or leave latents out and give a seed.",
        )


class OptionError(UsageError):
    """A value that is none of the choices an argument has."""

    def __init__(self, argument: str, value: object, known: Iterable[object]) -> None:
        super().__init__(f"{argument}={value!r} cannot be used", f"Choose one of: {', '.join(map(str, known))}.")


class BackendNotInBundleError(UsageError):
    """The bundle was exported without the engine that was asked for."""

    def __init__(self, backend: str, bundle: Path, present: Iterable[str]) -> None:
        super().__init__(
            f"{bundle} has no graphs for {backend}",
            f"It serves: {', '.join(present)}. Choose one of these, or export again with --backend {backend}.",
        )


class PrecisionError(UsageError):
    """An arithmetic that the engine does not have on this machine."""

    def __init__(self, backend: str, precision: str, why: str) -> None:
        super().__init__(
            f"{backend} cannot compute in {precision} here: {why}", "Leave the precision out, or choose f32."
        )


class OutputNameError(UsageError):
    """An output name that is not a PNG file's."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is not the name of a PNG file", "Give a name that ends in .png, or an existing folder."
        )


class OutputExistsError(UsageError):
    """A named output file that is already there."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already", "Choose another name with -o, or add --force to replace it.")


class NoPreviewError(UsageError):
    """A bundle that does not say how latents become colours."""

    def __init__(self) -> None:
        super().__init__(
            "the bundle has no matrix for previews",
            "Export it again with this release of nano-export, or leave the preview out.",
        )


class NoParametersError(UsageError):
    """A picture without the parameters that drew it."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} holds no drawing parameters: {why}",
            "Give a PNG that nano-generate wrote without --no-metadata.",
        )


class OtherBundleError(UsageError):
    """A picture to repeat that another bundle drew."""

    def __init__(self, picture: Path, name: str, digest: str, bundle: Path) -> None:
        super().__init__(
            f"{picture} was drawn by the bundle {name} ({digest[:10]}), and {bundle} is another",
            "Name with --bundle the one that drew it, or the one that is to draw it now.",
        )


class NoOriginalError(UsageError):
    """A picture to repeat that was drawn from a picture."""

    def __init__(self, picture: Path) -> None:
        super().__init__(
            f"{picture} was drawn from another picture, which it does not hold",
            "Give that one with --image, and its mask, if there was one, with --mask.",
        )


class NotABundleError(BundleError):
    """A path without a readable manifest."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is not a bundle: {why}", "Give a folder that nano-export wrote.")


class ManifestError(BundleError):
    """A manifest that breaks the contract."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is not a valid manifest: {why}", "Export the bundle again, or fetch a fresh copy.")


class TamperedFileError(BundleError):
    """A file of the bundle that is not the one the manifest describes."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is not the file the manifest describes: {why}",
            "Do not use this bundle; export it again, or fetch a fresh copy.",
        )


class ExtraFileError(BundleError):
    """A file in the bundle's folder that the manifest does not know."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is not listed in the manifest",
            "Move it out of the bundle; if you did not put it there, export the bundle again or fetch a fresh copy.",
        )


class DigestError(BundleError):
    """Another bundle than the one that was asked for."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        super().__init__(
            f"{path} is another bundle than expected: its digest is {found}, not {expected}",
            "Compare the digest with where you got it from; if it is right there, fetch a fresh copy.",
        )


class SignatureError(BundleError):
    """A signature that is none, or of other files or another key."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"the signature {path} is not valid: {why}", "Fetch bundle and signature anew, and do not mix."
        )


class UnsafeGraphError(BundleError):
    """A graph that no engine may see, though its checksum is right."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is not a graph to be trusted: {why}",
            "Do not use this bundle; tell whoever made it, or export your own.",
        )


class LoaderDiedError(BundleError):
    """A graph or tokenizer that ended the process that tried it."""

    def __init__(self, path: Path, doing: str, how: str) -> None:
        super().__init__(
            f"{path} cannot be trusted: the process that tried to {doing} it {how}",
            "Do not use this bundle; if it should be good, check the memory of this machine and try again.",
        )


class UnsupportedScheduleError(BundleError):
    """A noise schedule this runtime does not implement."""

    def __init__(self, key: str, value: object, known: Iterable[object]) -> None:
        super().__init__(
            f"the schedule asks for {key}={value!r}, which is not implemented",
            f"Supported values of {key}: {', '.join(map(repr, known))}.",
        )


class EngineError(BundleError):
    """A graph that an engine refuses to load or to run."""

    def __init__(self, backend: str, doing: str, model: Path, why: str) -> None:
        super().__init__(
            f"{backend} cannot {doing} {model}: {why}",
            "Export the bundle again with the tool versions of this release, or try the other engine.",
        )


class OutputShapeError(BundleError):
    """A graph that computed something else than its manifest says."""

    def __init__(self, component: str, tensor: str, found: str, wanted: str) -> None:
        super().__init__(
            f"the {component} computed {found} for {tensor!r}, not the {wanted} of the manifest",
            "Export the bundle again, or fetch a fresh copy.",
        )


class NonFiniteError(BundleError):
    """A graph, or the sampler, that computed NaN or infinity."""

    def __init__(self, component: str, where: str) -> None:
        self.component = component
        super().__init__(
            f"the {component} computed values that are not finite ({where})",
            "Try another engine or an fp32 bundle; if it stays, the weights are damaged.",
        )


class BackendMissingError(MachineError, ImportError):
    """The engine's package is not installed."""

    def __init__(self, backend: str) -> None:
        super().__init__(
            f"the engine {backend} is not installed",
            f'Install it with: pip install "nano-runtime[{backend}]"',
        )


class SigningMissingError(MachineError, ImportError):
    """The package that signs and verifies is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "signatures need the package model-signing, which is not installed",
            'Install it with: pip install "nano-runtime[signing]"',
        )


class DiskSpaceError(MachineError, OSError):
    """Too little space to finish what was asked."""

    def __init__(self, path: Path, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"{path} has {free_bytes / 1e9:.2f} GB free, {needed_bytes / 1e9:.2f} GB are needed",
            "Free some space, or choose an output folder on another disk.",
        )


class NotEnoughMemoryError(MachineError, MemoryError):
    """Too little memory to begin what was asked."""

    def __init__(self, what: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"{what} needs {needed_bytes / 1e9:.2f} GB of memory, {free_bytes / 1e9:.2f} GB are available",
            "Close other programs, or use a machine with more memory.",
        )


class OutOfMemoryError(MachineError, MemoryError):
    """Memory that the system refused in the middle of the work."""

    def __init__(self, doing: str) -> None:
        super().__init__(
            f"memory ran out while {doing}",
            "Close other programs, raise this process's memory limit if it has one, or draw fewer pictures at once.",
        )


class OutputError(MachineError, OSError):
    """A place that cannot be written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be written: {why}", "Choose another output path.")


class WorkerDiedError(MachineError, ChildProcessError):
    """A process of ours that ended without an answer."""

    def __init__(self, work: str, exit_code: int | None) -> None:
        end = f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
        super().__init__(
            f"the process for {work} ended without an answer ({end})",
            "Signal 9 usually means too little memory: close other programs, or measure fewer bundles at once.",
        )
