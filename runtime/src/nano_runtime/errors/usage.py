"""Errors in a request, which cannot be met as it was asked: exit code 2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nano_runtime.errors.branches import UsageError
from nano_runtime.errors.wording import given, named, shown

__all__ = [
    "BackendNotInBundleError",
    "CommandLineError",
    "ConflictError",
    "GuidanceError",
    "ImageGuidanceError",
    "IntervalError",
    "KeyFileError",
    "LatentsError",
    "ListLengthError",
    "LongPromptError",
    "MissingArgumentError",
    "NoCardError",
    "NoPictureError",
    "NoPreviewError",
    "NoPromptError",
    "NoShortcutError",
    "OptionError",
    "OtherTaskError",
    "OutputExistsError",
    "OutputNameError",
    "PrecisionError",
    "PromptError",
    "SeedError",
    "SizeError",
    "StepsError",
    "StrengthError",
    "TerminalError",
    "UnknownFlagError",
    "UnknownOptionError",
    "UnknownSchedulerError",
    "VariationError",
]


class PromptError(UsageError):
    """A prompt that cannot be read or tokenized; ``why`` is said of any text."""

    def __init__(
        self, why: str, which: str = "prompt", hint: str = "Shorten it, or change what is named above."
    ) -> None:
        super().__init__(f"the {which} cannot be used: {why}", hint)
        self.why = why


class LongPromptError(UsageError):
    """A prompt of several chunks, and a bundle whose graphs take one."""

    def __init__(self, bundle: Path, chunks: int) -> None:
        super().__init__(
            f"the prompt fills {chunks} chunks, and the graphs in {bundle} take one",
            f"Export the bundle again with this release of nano-export, or leave out {named('long_prompts')}.",
        )


class NoPromptError(UsageError):
    """A command without anything to draw."""

    def __init__(self) -> None:
        super().__init__(
            "there is no prompt", "Give one, - to read it from standard input, --prompts FILE, or --from PICTURE."
        )


class UnknownSchedulerError(UsageError):
    """A scheduler name that does not exist."""

    def __init__(
        self,
        name: str,
        nearest: Sequence[str],
        known: Iterable[str],
        spreadable: Iterable[str],
        spreads: Iterable[str],
    ) -> None:
        near = f"Did you mean {' or '.join(nearest)}? All names: " if nearest else "Choose one of: "
        super().__init__(
            f"there is no scheduler {shown(name)}",
            f"{near}{', '.join(known)}. "
            f"The names {', '.join(spreadable)} may end in one of: {', '.join(f'_{spread}' for spread in spreads)}.",
        )


class StepsError(UsageError):
    """A number of steps outside the schedule."""

    def __init__(self, steps: int, most: int, least: int = 1) -> None:
        super().__init__(f"{shown(steps)} steps cannot be run", f"Choose a number from {least} to {most}; 20 is usual.")


class StrengthError(UsageError):
    """A strength that is no share, or leaves no step to run."""

    def __init__(self, strength: float) -> None:
        super().__init__(
            f"the strength {strength} cannot be used",
            "Choose a number above 0 and up to 1 that leaves a step: strength times steps is rounded down.",
        )


class MissingArgumentError(UsageError):
    """An argument that needs another one, which is missing."""

    def __init__(self, argument: str, needed: str) -> None:
        one, other = named(argument), named(needed)
        super().__init__(f"{one} means nothing without {other}", f"Give {other}, or leave {one} out.")


class ImageGuidanceError(UsageError):
    """A guidance scale of the picture that is not a number from 0 to 1000."""

    def __init__(self, image_guidance_scale: float) -> None:
        super().__init__(
            f"the image guidance scale {image_guidance_scale} cannot be used",
            "Choose a number from 0 to 1000; 1.5 is usual, and below 1 there is no guidance at all.",
        )


class NoPictureError(UsageError):
    """A bundle whose UNet sees a picture, or a mask, and a call without one."""

    def __init__(self, task: str, missing: Iterable[str]) -> None:
        hint = f"Give the picture that the prompt tells how to change with {named('image')}."
        if task == "inpainting":
            hint = (
                f"Give a picture with {named('image')} and its mask with {named('mask_image')}. To draw from the "
                "prompt alone, give any picture and a mask that is all white."
            )
        super().__init__(f"the bundle is for {task}, and there is no {' and no '.join(map(named, missing))}", hint)


class OtherTaskError(UsageError):
    """An option that only bundles of another kind have."""

    def __init__(self, argument: str, task: str) -> None:
        super().__init__(f"{named(argument)} means nothing to a bundle for {task}", f"Leave out {named(argument)}.")


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
        names = named(one), named(other)
        super().__init__(f"{names[0]} and {names[1]} exclude each other", f"Leave out {names[0]} or {names[1]}.")


class VariationError(UsageError):
    """A strength of variation outside [0, 1]."""

    def __init__(self, strength: float) -> None:
        super().__init__(
            f"the variation strength {strength} cannot be used",
            "Choose a number from 0, the seed's own picture, to 1, the variation seed's; 0.1 to 0.3 are usual.",
        )


class SeedError(UsageError):
    """A seed outside 64 bits."""

    def __init__(self, seed: int, picture: int = 1) -> None:
        of = "" if picture == 1 else f" of picture {picture}"
        super().__init__(
            f"the seed {shown(seed)}{of} is out of range",
            "Choose a whole number from 0 to 18446744073709551615, or leave the seed out for a random one.",
        )


class GuidanceError(UsageError):
    """A guidance scale that is not a number from 0 to 1000."""

    def __init__(self, guidance_scale: float) -> None:
        super().__init__(
            f"the guidance scale {guidance_scale} cannot be used",
            "Choose a number from 0 to 1000; 7.5 is usual, 1 turns guidance off and halves the work.",
        )


class IntervalError(UsageError):
    """A guidance interval that is not two shares of the steps in ascending order."""

    def __init__(self, interval: object) -> None:
        super().__init__(
            f"the guidance interval {shown(interval)} cannot be used",
            "Give two shares of the steps from 0 to 1, the smaller first, as in 0.1:0.8; 0:1 is all steps.",
        )


class NoShortcutError(UsageError):
    """A bundle without the graph or the presets that a shortcut needs."""

    def __init__(self, bundle: Path, what: str) -> None:
        super().__init__(
            f"{bundle} has no {what}",
            f"Leave out {named('quality')} and {named('cache_interval')}, or export again, with --graph hoisted.",
        )


class SizeError(UsageError):
    """A picture size, (height, width), that the bundle's graphs do not have."""

    def __init__(self, asked: tuple[int, int], built: tuple[int, int]) -> None:
        sizes = [f"{shown(width)} x {shown(height)}" for height, width in (built, asked)]
        super().__init__(
            f"the bundle draws {sizes[0]} pixels, not {sizes[1]}",
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
    """A value that an argument cannot have: it is of another type, or none of the choices."""

    def __init__(self, argument: str, value: object, wanted: str | Iterable[object]) -> None:
        hint = f"Give {wanted}." if isinstance(wanted, str) else f"Choose one of: {', '.join(map(str, wanted))}."
        super().__init__(f"{given(argument, value)} cannot be used", hint)


class ListLengthError(UsageError):
    """A list with more or fewer values than there are prompts or pictures."""

    def __init__(self, argument: str, length: int, count: int, of: str, wanted: str) -> None:
        many = f"are {count} {of}s" if count != 1 else f"is 1 {of}"
        super().__init__(f"{named(argument)} lists {length}, and there {many}", f"Give {wanted}.")


class CommandLineError(UsageError):
    """A command line that lacks something, or an option of it with a value that it cannot have."""

    def __init__(self, prog: str, why: str) -> None:
        super().__init__(why, f"{prog} --help shows all options.")


class UnknownFlagError(UsageError):
    """Something on a command line that no option takes; ``known`` says what to do if other commands have it."""

    def __init__(self, prog: str, word: str, nearest: str | None, known: str | None = None) -> None:
        if not word.startswith("-"):
            what = f"there is no use for {word!r} on the command line"
            hint = "Put a text of several words in quotes."
        else:
            what = f"there is no option {word}"
            hint = "" if nearest is None else f"Did you mean {nearest}?"
        super().__init__(what, known or f"{hint} {prog} --help shows all options.".lstrip())


class UnknownOptionError(UsageError, TypeError):
    """A keyword that no option has."""

    def __init__(
        self, name: str, nearest: str | None, hint: str = "nano_runtime.DrawOptions lists all options."
    ) -> None:
        super().__init__(f"there is no option {name!r}", hint if nearest is None else f"Did you mean {nearest}? {hint}")


class BackendNotInBundleError(UsageError):
    """The bundle was exported without the engine that was asked for."""

    def __init__(self, backend: str, bundle: Path, present: Iterable[str]) -> None:
        super().__init__(
            f"{bundle} has no graphs for {backend}",
            f"It serves: {', '.join(present)}. Choose one of these, or export again with --backend {backend}.",
        )


class PrecisionError(UsageError):
    """A precision that the engine does not have on this machine."""

    def __init__(self, backend: str, precision: str, why: str) -> None:
        super().__init__(
            f"{backend} cannot compute in {precision} here: {why}", "Leave the precision out, or choose f32."
        )


class OutputNameError(UsageError):
    """An output name that is not a picture's; a preview is a PNG file."""

    def __init__(self, path: Path, kind: str = "picture") -> None:
        usual = "Give a name that ends in .png, .jpg, .jpeg or .webp, an existing folder, or - for standard output."
        super().__init__(
            f"{path} is not the name of a {kind}", usual if kind == "picture" else "Give a name that ends in .png."
        )


class OutputExistsError(UsageError):
    """A named output file that is already there."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already", "Choose another name with -o, or add --force to replace it.")


class TerminalError(UsageError):
    """A picture that would be written to a terminal."""

    def __init__(self) -> None:
        super().__init__("a terminal shows no picture", "Send standard output to a file or a program, or give -o FILE.")


class NoPreviewError(UsageError):
    """A bundle that does not say how latents become colours."""

    def __init__(self) -> None:
        super().__init__(
            "the bundle has no matrix for previews",
            "Export it again with this release of nano-export, or leave the preview out.",
        )


class NoCardError(UsageError):
    """A bundle without a model card."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the bundle {path} has no README.md of up to 1 MB",
            "Export it again with this release of nano-export, or print its metadata alone with --hub.",
        )
