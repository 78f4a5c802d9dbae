"""Marks names of arguments in messages: Python shows them as they are, a command shows the option that a person typed.

``given("seed", 1.9)`` reads ``seed=1.9`` in Python and ``--seed 1.9`` in a shell. A mark is a name between two NUL
characters, which no file name and no command line can hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nano_runtime.errors.escaping import shortened

__all__ = ["given", "how_to_install", "named", "shown", "spelled"]

_MARKED = re.compile("\0([^\0=]+)(=?)\0")
_LONGEST_VALUE = 80  # characters of a value in a message
_LONGEST_INT = 256  # bits; Python refuses to write some thousands of digits


def named(argument: str) -> str:
    """Return the name of an argument, marked."""
    return f"\0{argument}\0"


def given(argument: str, value: object) -> str:
    """Return the name of an argument, marked, and its value."""
    return f"\0{argument}=\0{shown(value)}"


def how_to_install(extra: str, *packages: str, where: str = "") -> str:
    """Return how to install an extra of the runtime.

    Args:
        extra: its name, as the README has it for a clone of the repository.
        packages: that it stands for; they can be installed where there is no clone, too.
        where: a few words behind "Install it".
    """
    quoted = " ".join(f'"{package}"' for package in packages)
    clone = f'pip install "./runtime[{extra}]" in the clone of the repository'
    return f"Install it{where} with: {clone}, or else pip install {quoted}"


def shown(value: object) -> str:
    """Return a value as Python writes it, cut if it is long; its type if it cannot be written."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return f"a number of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the __repr__ of a stranger's object may raise anything
        return f"a {type(value).__name__}"
    return shortened(text, _LONGEST_VALUE)


def spelled(text: str, spell: Callable[[str], str] | None = None) -> str:
    """Return a text without marks.

    Args:
        text: with marks.
        spell: turns the name of an argument into what a caller knows it by; None leaves Python's names.
    """

    def replaced(found: re.Match[str]) -> str:
        name, equals = found.groups()
        if spell is None:
            return name + equals
        return spell(name) + (" " if equals else "")

    return _MARKED.sub(replaced, text)
