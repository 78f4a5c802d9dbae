"""Errors compose their messages, carry exit codes, and survive the way home from a worker process."""

from __future__ import annotations

import errno
import inspect
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from nano_runtime import errors
from nano_runtime.errors.escaping import OVERRIDES, first_line, last_line, pattern_of

LEAVES = [
    error
    for name in errors.__all__
    if (error := getattr(errors, name)) not in (errors.NanoError, *errors.NanoError.__subclasses__())
]


def example(leaf: type[errors.NanoError]) -> errors.NanoError:
    """Construct a leaf from its signature, without what has a default."""
    arguments: list[Any] = []
    for parameter in list(inspect.signature(leaf.__init__).parameters.values())[1:]:
        if parameter.default is not parameter.empty:
            break
        kind = str(parameter.annotation)
        if kind.startswith(("Iterable", "Sequence", "tuple")):
            arguments.append((1, 2) if "int" in kind else ("x", "y"))
        elif "Path" in kind:
            arguments.append(Path("some/file"))
        elif "int" in kind:
            arguments.append(3)
        elif "float" in kind:
            arguments.append(1.5)
        else:
            arguments.append("x")
    return leaf(*arguments)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_leaf_says_what_happened_and_what_to_do(leaf):
    error = example(leaf)
    assert error.what
    assert error.hint.endswith((".", '"', "]", "my-bundle"))
    assert "\n" not in error.what + error.hint
    assert str(error) == "\n".join((error.what, *error.details, error.hint))


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_leaf_comes_home_from_a_worker_with_its_message_and_code(leaf):
    error = example(leaf)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert issubclass(leaf, type(again))
    assert (again.what, again.details, again.hint) == (error.what, error.details, error.hint)
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code


def test_a_full_disk_is_told_from_a_path_that_cannot_be_written():
    for number in (errno.ENOSPC, errno.EDQUOT):
        full = errors.OutputError(Path("x"), OSError(number, os.strerror(number)))
        assert (full.what, full.hint) == (
            f"x cannot be written: {os.strerror(number)}",
            "Free some space, or choose a path on another disk.",
        )
    denied = errors.OutputError(Path("x"), OSError(errno.EACCES, "Permission denied"))
    assert (denied.what, denied.hint) == ("x cannot be written: Permission denied", "Choose another output path.")
    assert errors.OutputError(Path("x"), OSError("odd")).what == "x cannot be written: odd"
    assert errors.OutputError(Path("x"), OSError()).what == "x cannot be written: OSError"


def test_what_a_file_says_does_nothing_to_a_terminal():
    error = errors.EngineError("onnxruntime", "load", Path("x"), "node \x1b[2J\r\u202eevil\udc80 is née\nno")
    assert error.what == r"onnxruntime cannot load x: node \x1b[2J\r\u202eevil\udc80 is née\nno"


def test_a_message_of_another_library_becomes_one_short_line():
    pages = ValueError("\n\n  \nit is broken\nat line 1\n\nbecause of you\n \n")
    assert (first_line(pages), last_line(pages)) == ("it is broken", "because of you")
    assert first_line(ValueError("it does not fit:\n    5 are no 6\n")) == "it does not fit: 5 are no 6"
    for empty in (KeyError(), OSError(""), RuntimeError(" \n\t")):
        assert first_line(empty) == last_line(empty) == type(empty).__name__
    for line in (first_line, last_line):
        assert line(ValueError("x" * 100_000)) == "x" * 300 + "…"
        assert line(ValueError("words " * 100)) == f"{'words ' * 49}words…"


def test_a_pattern_finds_the_characters_it_was_made_of_and_no_other():
    overrides, bracket = pattern_of(OVERRIDES), pattern_of(map(ord, "^]-\\"))
    assert {code for code in range(0x110000) if overrides.search(chr(code))} == OVERRIDES
    assert {code for code in range(0x110000) if bracket.search(chr(code))} == set(map(ord, "^]-\\"))


@pytest.mark.parametrize(
    ("branch", "code", "builtin"),
    [
        (errors.UsageError, 2, ValueError),
        (errors.BundleError, 3, ValueError),
        (errors.MachineError, 4, Exception),
        (errors.NetworkError, 5, ConnectionError),
    ],
)
def test_branches_have_the_promised_exit_codes(branch, code, builtin):
    assert branch.exit_code == code
    assert issubclass(branch, builtin)
    assert all(leaf.exit_code == code for leaf in LEAVES if issubclass(leaf, branch))


def test_leaves_are_the_builtins_one_would_expect():
    assert issubclass(errors.BackendMissingError, ImportError)
    assert issubclass(errors.NotEnoughMemoryError, MemoryError)
    assert issubclass(errors.OutputError, OSError)


def test_all_names_the_whole_tree():
    def tree(branch: type) -> set[str]:
        return {branch.__name__}.union(*map(tree, branch.__subclasses__()))

    assert {name for name in tree(errors.NanoError) if hasattr(errors, name)} == set(errors.__all__)


def test_the_tree_in_the_docstring_is_complete():
    assert [name for name in errors.__all__ if name not in errors.__doc__] == []
