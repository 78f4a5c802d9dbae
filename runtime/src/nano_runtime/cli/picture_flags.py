"""The flags of ``nano-generate`` that are picture options: one line each, for the command line and for sheets."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from nano_runtime.bundle.manifest import Quality
from nano_runtime.cli.parser import number
from nano_runtime.cli.streams import read_stdin
from nano_runtime.errors import IntervalError, NoPromptError, PromptError
from nano_runtime.options import DrawOptions
from nano_runtime.sampling.sampler_names import names_in_words

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FLAGS", "Flag", "add_picture_flags", "defaults_from", "options_from"]


@dataclass(frozen=True)
class Flag:
    """A command-line flag that sets one field of ``DrawOptions``.

    Attributes:
        names: on the command line, the long one last.
        field: of ``DrawOptions``.
        help: for ``--help``.
        read: makes a value of the text; bool for a flag without one.
        metavar: stands for the value in ``--help``.
        choices: the only values; None takes all.
        finish: turns the value into the option's, once the whole command line is read; None changes nothing.
        on_sheets: whether a sheet can vary it.
    """

    names: tuple[str, ...]
    field: str
    help: str
    read: Callable[[str], Any] = str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    finish: Callable[[Any], Any] | None = None
    on_sheets: bool = False

    @property
    def option(self) -> str:
        """The long name without its dashes, as sheets spell it."""
        return self.names[-1].removeprefix("--")


def _picture(path: Path) -> Image:
    """Open a picture to start from, or a mask."""
    from nano_runtime.pictures.source import open_picture

    return open_picture(path)


def _interval(text: str) -> tuple[float, float]:
    """Return the two numbers of ``FROM:TO``; the plan checks that they are shares."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError as error:
        raise IntervalError(text) from error
    return low, high


def _unchanged(value: object) -> object:
    return value


def _seed(value: object) -> object:
    """Return a seed; -1 asks for a random one, as in A1111, and the command says which."""
    return None if value == -1 else value


_BLUR = 4.0  # pixels, as in A1111

FLAGS: Final = (
    Flag(("--negative-prompt",), "negative_prompt", "text to move away from", metavar="TEXT"),
    Flag(("--weights",), "prompt_weighting", "read (word), (word:1.3), [word] and BREAK as A1111 does", bool),
    Flag(("--long-prompt",), "long_prompts", "use the words beyond the text encoder's length, often 75 tokens", bool),
    Flag(
        ("--seed",), "seed", "seed of the first picture; each further picture adds 1 (default, and -1: random)",
        number, "N", finish=_seed, on_sheets=True,
    ),
    Flag(
        ("--steps",), "num_inference_steps", "denoising steps (default: the bundle's, or 20 of another sampler)",
        number, "N", on_sheets=True,
    ),
    Flag(
        ("--guidance",), "guidance_scale", "up to 1 turns guidance off (default: the bundle's, often 7.5)",
        number, "X", on_sheets=True,
    ),
    Flag(("-W", "--width"), "width", "must be the bundle's own, in pixels: its graphs have one size", number, "PX"),
    Flag(("-H", "--height"), "height", "as --width", number, "PX"),
    Flag(("-n", "--count"), "num_images_per_prompt", "pictures to draw (default: 1)", number, "N"),
    Flag(
        ("--scheduler",), "scheduler", f"{names_in_words()} (default: the bundle's)",
        metavar="NAME", on_sheets=True,
    ),
    Flag(
        ("--image",), "image", "PNG, JPEG or WebP to start from; scaled to cover, and cropped",
        Path, "FILE", finish=_picture,
    ),
    Flag(
        ("--mask",), "mask_image", "as large as the image: white is painted anew, black stays",
        Path, "FILE", finish=_picture,
    ),
    Flag(
        ("--mask-blur",), "mask_blur", "how softly kept pixels meet drawn ones, in pixels (default: 4)", number, "PX",
    ),
    Flag(
        ("--no-keep-unmasked",), "keep_unmasked",
        "let all pixels go through the autoencoder, as diffusers does: those outside the mask change a little",
        bool, finish=lambda said: not said,
    ),
    Flag(
        ("--strength",), "strength",
        "how much of the image may change: above 0, at most 1 (default: 0.8, with a mask 1)",
        number, "X", on_sheets=True,
    ),
    Flag(
        ("--image-guidance",), "image_guidance_scale",
        "nearness to the image, with bundles for instruct-pix2pix; below 1 turns all guidance off (default: 1.5)",
        number, "X", on_sheets=True,
    ),
    Flag(
        ("--variation-seed",), "variation_seed", "seed to vary towards; each further picture adds 1",
        number, "N", on_sheets=True,
    ),
    Flag(
        ("--variation-strength",), "variation_strength",
        "how far to vary, 0 to 1; 0.1 to 0.3 give siblings (default: 0)",
        number, "X", on_sheets=True,
    ),
    Flag(
        ("--quality",), "quality", "leave out some work, as measured for the bundle; see nano-bundle info "
        "(default: exact)", choices=get_args(Quality),
    ),
    Flag(
        ("--cache-interval",), "cache_interval", "run the whole UNet every N calls and its outermost layers between "
        "(default: the preset's; exact is 1)", number, "N",
    ),
    Flag(
        ("--guidance-interval",), "guidance_interval", "guide only between these shares of the steps (default: the "
        "preset's; exact is 0:1)", metavar="FROM:TO", finish=_interval,
    ),
)  # fmt: skip


class _Size(argparse.Action):
    """``--size 128`` and ``--size 128x128``: width and height at once; whether the bundle has them is seen later."""

    def __call__(
        self, _parser: object, namespace: argparse.Namespace, values: object, _option: str | None = None
    ) -> None:
        """Set both.

        Raises:
            argparse.ArgumentError: it is neither one number nor two.
        """
        sizes = re.fullmatch(r"(\d+)(?:\s*[x*\u00d7]\s*(\d+))?", str(values).strip().lower())
        if sizes is None:
            raise argparse.ArgumentError(self, f"{values!r} is not PX or PXxPX, as in 128 or 128x128")
        namespace.width, namespace.height = number(sizes[1]), number(sizes[2] or sizes[1])


def add_picture_flags(add: Callable[..., object]) -> None:
    """Add all flags; the namespace has only those that were given, by field name.

    Args:
        add: ``add_argument`` of a parser or a group.
    """
    for flag in FLAGS:
        kind: Mapping[str, Any] = (
            {"action": "store_true"}
            if flag.read is bool
            else {"type": flag.read, "metavar": flag.metavar, "choices": flag.choices}
        )
        add(*flag.names, dest=flag.field, default=argparse.SUPPRESS, help=flag.help, **kind)
    size = "short for --width and --height, as in 128 or 128x128"
    add("--size", action=_Size, default=argparse.SUPPRESS, metavar="PX", help=size)


def defaults_from(given: argparse.Namespace) -> DrawOptions:
    """Return the picture options of a command line for rows that leave them out, but for prompts and pictures.

    Raises:
        UsageError: a value is not one of its option's.
    """
    finish = {flag.field: flag.finish for flag in FLAGS if flag.finish is not None}
    options = {one.name for one in fields(DrawOptions)} - {"prompt", "image", "mask_image"}
    said = {name: finish.get(name, _unchanged)(value) for name, value in vars(given).items() if name in options}
    if "keep_unmasked" not in said:
        said = {"keep_unmasked": True, "mask_blur": _BLUR, **said}
    return DrawOptions(**said)


def options_from(given: argparse.Namespace, base: DrawOptions | None, *, masked: bool = False) -> DrawOptions:
    """Return the picture options of a command line.

    Args:
        given: the parsed command line, with ``prompt``, None if there is none and "-" for standard input.
        base: options to change, of a picture that is to be repeated; None starts from the defaults.
        masked: whether that picture was drawn with a mask: then it says what to do with the pixels outside.

    Raises:
        NoPromptError: there is no prompt.
        ImageError: the picture to start from, or its mask, cannot be read.
        IntervalError: an interval is not two numbers.
        PromptError: standard input is not text.
    """
    finish = {flag.field: flag.finish for flag in FLAGS if flag.finish is not None}
    said = {name: value for name, value in vars(given).items() if name in {one.name for one in fields(DrawOptions)}}
    changes = {name: finish[name](value) if name in finish else value for name, value in said.items()}
    if changes["prompt"] is None:
        del changes["prompt"]
    else:
        text = _read_stdin() if changes["prompt"] == "-" else changes["prompt"]
        changes["prompt"] = text.removeprefix("\ufeff")  # as "$(cat prompt.txt)" of a file from Windows begins
    if "prompt" not in changes and base is None:
        raise NoPromptError
    if base is None:
        base = DrawOptions()
    if "mask_image" not in changes:  # a picture's own mask is not in its file; what needs one goes with it
        base = replace(base, keep_unmasked=False, mask_blur=0.0)
    elif not masked and "keep_unmasked" not in changes:  # as A1111 does; Python does as diffusers
        changes = {"keep_unmasked": True, "mask_blur": _BLUR, **changes}
    if "quality" in changes:  # a preset takes the place of the intervals that the picture was drawn with
        base = replace(base, cache_interval=None, guidance_interval=None)
    return replace(base, **changes)


def _read_stdin() -> str:
    """Return all of standard input as the prompt."""
    hint = "Save the text as UTF-8, or give it on the command line."
    try:
        text = read_stdin().strip()
    except UnicodeDecodeError as error:
        raise PromptError("standard input is not text in the terminal's encoding", hint=hint) from error
    except OSError as error:
        why = f"standard input cannot be read: {error.strerror or error}"
        raise PromptError(why, hint="Give the prompt on the command line.") from error
    if "\0" in text:
        raise PromptError("standard input is not text in the terminal's encoding", hint=hint)
    return text
