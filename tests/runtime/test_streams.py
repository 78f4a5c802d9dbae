"""Commands whose streams are closed, full, or of another encoding: a picture is drawn, or two lines say why not."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nano_runtime.cli import make_parser, run_command
from nano_runtime.cli.picture_flags import options_from
from nano_runtime.errors import PromptError

DRAWING = ["an otter", "--steps", "1", "--scheduler", "ddim", "--threads", "1", "--no-cache", "-o", "-"]
PROGRAM = """
import argparse, os, sys
from pathlib import Path
from nano_runtime.cli import make_parser, run_command
def action(_):
    print("talk", file=sys.stderr)
    with open("picture", "wb") as file:  # which a closed stream would lend its number
        file.write(b"pixels")
        os.write(2, b"an engine's own words") if os.fstat(2) and os.environ["CASE"] != "full" else None
        print("path", flush=True)
    return 0
sys.exit(run_command(make_parser("p", "", ""), argparse.Namespace(), action, []))
"""


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize(
    ("redirected", "code"),
    [(">&-", 0), ("2>&-", 0), ("<&-", 0), ("<&- >&- 2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 4)],
)
def test_a_missing_stream_ends_no_drawing_and_lends_its_number_to_no_file(tmp_path, redirected, code):
    environment = {**os.environ, "CASE": "full" if "full" in redirected else "closed"}
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, PROGRAM],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert (tmp_path / "picture").read_bytes() == b"pixels"
    assert "Traceback" not in done.stderr
    if code == 4:
        assert done.stderr.splitlines()[1] == "p: No space left on device"


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize(("redirected", "why"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")])
def test_a_picture_that_standard_output_cannot_take_is_told(tmp_path, redirected, why):
    program = f"import sys; from nano_runtime.cli.generate import main; sys.exit(main({DRAWING!r}))"
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, program],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert f"nano-generate: standard output cannot be written: {why}\n" in done.stderr


def test_without_any_streams_as_under_pythonw(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)

    def action(_options: argparse.Namespace) -> int:
        print("path")  # noqa: T201 - as commands do
        print("talk", file=sys.stderr)  # noqa: T201
        assert not sys.stderr.isatty()
        return 0

    assert run_command(make_parser("p", "", ""), argparse.Namespace(), action, []) == 0
    assert (sys.stdout, sys.stderr) == (None, None)


def prompt_of(content: bytes, monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> str:
    """The prompt that a command reads from a standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding))
    return str(options_from(argparse.Namespace(prompt="-"), None).prompt)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_prompt(monkeypatch, encoding):
    assert prompt_of("ein rötlicher Fuchs 🦊\r\n".encode(encoding), monkeypatch) == "ein rötlicher Fuchs 🦊"
    big = b"\xfe\xff" + "a fox".encode("utf-16-be")
    assert prompt_of(big, monkeypatch) == "a fox"
    assert options_from(argparse.Namespace(prompt="\ufeffa fox"), None).prompt == "a fox"


def test_without_a_mark_the_terminal_says_what_the_encoding_is(monkeypatch):
    assert prompt_of("Füchse".encode("latin-1"), monkeypatch, "latin-1") == "Füchse"


@pytest.mark.parametrize("content", ["Füchse".encode("latin-1"), "a fox".encode("utf-16-le"), b"\xff\xfea", b"\0"])
def test_what_is_not_text_is_told(monkeypatch, content):
    with pytest.raises(PromptError, match="not text"):
        prompt_of(content, monkeypatch)


def test_a_closed_standard_input_is_told(monkeypatch, tmp_path):
    path = Path(tmp_path / "text")
    path.touch()
    with path.open(encoding="utf-8") as closed:
        pass
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(PromptError, match="standard input cannot be read: it is closed"):
            options_from(argparse.Namespace(prompt="-"), None)
