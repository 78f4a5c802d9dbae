"""Every option of an export, from Python and a shell, given odd values: an error that names it, or what was meant."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nano_export import cli
from nano_export.options import Options, parse_lora
from nano_runtime.errors import NetworkError, UsageError


class Rude:
    """A stranger's object, none of whose methods work."""

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def __float__(self) -> float:
        raise ZeroDivisionError


VALUES: tuple[Any, ...] = (
    *(True, np.False_, -1, 0, 1.9, 128.0, float("nan"), float("inf"), 10**5000, -(10**400)),
    *("", "7", "nonsense", "红狐狸", "a\0b", "\ud83e", "x" * 100_000, b"7", [], ["onnxruntime"], [1], {"a": 1}),
    *(object(), Rude(), len, int, Path("nowhere"), np.int64(2), np.float32(0.5), np.zeros((2, 2)), 1j),
)


def refused(options: dict[str, Any]) -> str | None:
    """Return the two lines of our error, in small letters; None if there was none."""
    try:
        Options(**options)
    except UsageError as error:
        said = str(error)
    else:
        return None
    assert len(said.splitlines()) == 2
    return said.lower()


@pytest.mark.parametrize("name", [field.name for field in fields(Options)])
def test_an_option_says_what_is_wrong_with_it_or_takes_it_for_what_it_is(name):
    answers = []
    for value in VALUES:
        given: dict[str, Any] = {"output": Path("bundle"), "precision": "int8", name: value}
        answers.append(words := refused(given))
        if words is None:
            taken = getattr(Options(**given), name)
            assert type(taken) in {str, int, float, bool, tuple, type(Path())}, value
        else:
            assert re.search(name.replace("min_psnr", "min_psnr|goal"), words), value
    assert len([words for words in answers if words is not None]) > len(VALUES) / 2


def test_what_notebooks_pass_is_what_they_mean():
    given: Any = {"output": "bundle", "size": np.int64(128), "backends": ["openvino"], "compact": np.True_, "vae": "x"}
    options = Options(model="tiny", **given)
    assert (options.output, options.size, options.backends) == (Path("bundle"), 128, ("openvino",))
    assert (options.compact, options.vae) == (True, Path("x"))
    assert Options(output=Path("x"), loras=(parse_lora("a.safetensors:0.5"),)).loras[0].scale == 0.5


TEXTS = (
    *("", " ", "-1", "0", "1.9", "128.0", "nan", "inf", "1e400", "9" * 5000, "x", "7 8", "红狐狸", "--", "true", "="),
    *("\x1b[31m", "nowhere/there", "a\nb", "\udcff", "a:b:c", "x.safetensors:1e999", "x.safetensors="),
)


def flags() -> list[str]:
    """The options of the command that take a value, so that none is forgotten."""
    parser: Any = cli._parser()  # noqa: SLF001 - nothing else has them all
    actions = [action for action in parser._actions if action.option_strings and action.nargs != 0]  # noqa: SLF001
    return sorted({action.option_strings[-1] for action in actions} - {"--output"})


@pytest.mark.parametrize("flag", flags())
def test_a_flag_says_what_is_wrong_with_it_in_two_lines(tmp_path, monkeypatch, capsys, flag):
    def nothing(_options: Options) -> None:
        raise NetworkError("all options are right", "Nothing is exported here.")

    monkeypatch.setattr(cli, "_run", nothing)
    monkeypatch.chdir(tmp_path)
    for text in TEXTS:
        code = cli.main(["tiny", "--int8", "-o", "bundle", f"{flag}={text}"])
        out, err = capsys.readouterr()
        assert code in {2, 3, 4, 5}, (text, err)
        assert (out, len(err.splitlines())) == ("", 2), (text, err)
        assert err.startswith("nano-export: ")
        assert list(tmp_path.iterdir()) == []
