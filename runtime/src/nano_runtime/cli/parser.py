"""The parser of all commands: its errors are two lines, and it knows what an argument is called on the command line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, NoReturn, TypeVar

from nano_runtime.errors import CommandLineError, UnknownFlagError
from nano_runtime.errors.habits import FLAGS

__all__ = ["Parser", "digest", "number"]

Options = TypeVar("Options", bound=argparse.Namespace)

_ELSEWHERE: Final[Mapping[str, str]] = {  # what other programs call an option
    "--cfg": "--guidance",
    "--cfg-scale": "--guidance",
    "--guidance-scale": "--guidance",
    "--scale": "--guidance",
    "--ddim-steps": "--steps",
    "--num-inference-steps": "--steps",
    "--sampler": "--scheduler",
    "--sampler-name": "--scheduler",
    "--sampling-method": "--scheduler",
    "--batch-count": "--count",
    "--n-iter": "--count",
    "--num-images-per-prompt": "--count",
    "--init-img": "--image",
    "--mask-image": "--mask",
    "--denoising-strength": "--strength",
    "--prompt": "PROMPT",
    "--model": "--bundle",
    "-m": "--bundle",
    "-s": "--seed",
    "-t": "--threads",
    "--outdir": "--output",
    "--outfile": "--output",
}


_ALIKE: Final = 0.7  # of difflib's ratio: "guidence" is "guidance", "device" is not "preview"


class Parser(argparse.ArgumentParser):
    """Raises errors of ours, instead of printing its whole usage and leaving."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line.

        Raises:
            CommandLineError: always.
        """
        raise CommandLineError(self.prog, message)

    def read(self, argv: Sequence[str] | None, options: Options) -> Options:
        """Parse a whole command line.

        Args:
            argv: arguments without the program's name; None takes those of the process.
            options: an empty namespace, which is filled.

        Raises:
            UnknownFlagError: there is something that no option takes.
            CommandLineError: an option lacks its value, or has one that it cannot have.
        """
        words = sys.argv[1:] if argv is None else list(argv)
        for word in words:
            if word.startswith("--") and word.endswith("=--"):  # which argparse takes for an empty list
                raise CommandLineError(self.prog, f"argument {word.removesuffix('=--')}: expected one argument")
        ours = self._long_flags()
        for flag in (word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]):
            if flag in _ELSEWHERE and flag not in ours and any(name.startswith(flag) for name in ours):
                raise UnknownFlagError(self.prog, flag, self._nearest(flag))  # argparse takes --prompt for --prompts
        parsed, left = self.parse_known_args(words, options)
        if left:
            flag = next((word for word in left if word.startswith("-")), left[0]).partition("=")[0]
            if "--" in words and flag in (word.partition("=")[0] for word in words[words.index("--") :]):
                raise CommandLineError(self.prog, f"{flag!r} stands after --, where everything is text")
            raise UnknownFlagError(self.prog, flag, self._nearest(flag), FLAGS.get(flag.lower().replace("_", "-")))
        return parsed

    def spelled(self, name: str) -> str:
        """Return an argument as a person types it here: the long name of its option; a name of no argument as it is."""
        for action in self._all_actions():
            if action.dest == name:
                return action.option_strings[-1] if action.option_strings else str(action.metavar)
        return name

    def _all_actions(self) -> Iterator[argparse.Action]:
        """Yield the arguments of this parser and of those of its commands."""
        for action in self._actions:
            yield action
            for command in action.choices.values() if isinstance(action.choices, dict) else ():
                yield from command._all_actions()  # noqa: SLF001 - it is another of this class

    def _long_flags(self) -> list[str]:
        """Return the long names of all options."""
        return [name for action in self._all_actions() for name in action.option_strings if name.startswith("--")]

    def _nearest(self, flag: str) -> str | None:
        """Return the option that somebody meant, or None."""
        typed = flag.lower().replace("_", "-") if flag.startswith("--") else flag
        ours = self._long_flags()
        if typed in ours:
            return typed
        known = [*ours, *(name for name, other in _ELSEWHERE.items() if other in (*ours, "PROMPT"))]
        bare = {name.lstrip("-"): name for name in known}  # the dashes that all have would make all alike
        close = [typed.lstrip("-")] if typed in known else []
        if not close and typed.startswith("--"):
            close = get_close_matches(typed.lstrip("-"), bare, 1, cutoff=_ALIKE)
        return _ELSEWHERE.get(bare[close[0]], bare[close[0]]) if close else None


def number(text: str) -> int | float | str:
    """Read a number; a text that is none, or is not finite, stays one, which the option's own check then refuses."""
    for kind in (int, float):
        try:
            found = kind(text)
        except ValueError:
            continue
        return found if isinstance(found, int) or abs(found) < float("inf") or "n" in text.lower() else text
    return text


def digest(text: str) -> str:
    """Read a bundle's digest from a command line."""
    if re.fullmatch("[0-9a-fA-F]{64}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a sha256 in 64 hexadecimal digits")
    return text.lower()
