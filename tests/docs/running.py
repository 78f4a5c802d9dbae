"""Runs what documents tell people to type: commands and Python blocks, in a folder that has what they name.

Commands of Nano run in this process, by their own ``main``; all others in a shell. ``nano-export`` does everything but
the export, which takes most of a minute even for ``tiny``: it leaves a copy of the demo's bundle. The exporter's and
the contract tests export for real, by the same ``main``. What cannot be run here stands in ``NOT_RUN`` with the reason,
and its options are checked nevertheless.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

from docs.generate import parsers
from tests.docs.documents import ROOT, Block

import nano_batch.cli
import nano_export.cli
import nano_runtime.cli.bundle
import nano_runtime.cli.generate
from nano_export.adoption.adopting import Adopted
from nano_export.exporting import Exported
from nano_export.options import Options
from nano_runtime.bundle.folder import DEMO
from nano_runtime.errors import UsageError

MAINS: dict[str, Callable[[list[str]], int]] = {
    "nano-generate": nano_runtime.cli.generate.main,
    "nano-bundle": nano_runtime.cli.bundle.main,
    "nano-batch": nano_batch.cli.main,
    "nano-export": nano_export.cli.main,
}
SCRIPTS = re.compile(r"python3? -m (?P<module>(?:bench|models)\.[\w.]+)")
ON_PATH = ".venv/bin/"


@dataclass(frozen=True)
class Excuse:
    """Commands that begin with this pattern are not run; ``check`` finds out what can be found out without that."""

    pattern: str
    reason: str
    check: Callable[[str], None]


def _nothing(_command: str) -> None:
    """Check no more than that it is listed."""


def _local_package(command: str) -> None:
    """An installation from this clone names a folder that has a package, and extras that it offers."""
    found = re.fullmatch(r'pip install "(?P<package>[\w./-]+)\[(?P<extras>[\w,]+)\]"', command)
    assert found is not None, f"unknown form: {command}"
    folder = ROOT / found["package"].replace("nano-runtime", "runtime")
    for extra in found["extras"].split(","):
        assert re.search(rf"^{extra} = \[", (folder / "pyproject.toml").read_text(), re.MULTILINE), command


def _target(command: str) -> None:
    """A target of make exists."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    unknown = set(shlex.split(command, comments=True)[1:]) - set(targets)
    assert not unknown, f"the Makefile has no {unknown}"


def _script(command: str) -> None:
    """A program of this repository exists, and its source has the options."""
    found = SCRIPTS.match(command)
    assert found is not None
    path = ROOT / found["module"].replace(".", "/")
    files = [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else sorted(path.glob("**/*.py"))
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    for option in re.findall(r"--[\w-]+", command):
        assert f'"{option}"' in source, f"{found['module']} has no option {option}"


def _parsed(command: str) -> None:
    """The command's own parser takes the line."""
    name, *arguments = shlex.split(command, comments=True)
    parsers()[name].parse_args(arguments)


NOT_RUN = (
    Excuse("pip install", "needs a package registry; tests/packaging installs the wheels", _local_package),
    Excuse("python3 -m venv", "of the reader's machine", _nothing),
    Excuse(r"\. ", "changes the reader's shell", _nothing),
    Excuse("make ", "builds for minutes, or needs a registry", _target),
    Excuse("python -m models.demo.train", "trains for hours", _script),
    Excuse("python -m models.demo.draw .*--quality", "draws 36 pictures", _script),
    Excuse("nano-bench", "times for minutes; tests/contract/test_cli.py runs it", _parsed),
    Excuse(
        "nano-generate .*--bundle (inpainting|pix2pix)-int8",
        "the demo draws from prompts; tests/contract/test_tasks.py exports such checkpoints and draws with them",
        _parsed,
    ),
    Excuse("nano-serve", "serves until it is stopped; tests/serve starts it", _parsed),
    Excuse("curl http://localhost:7860", "asks a server; tests/serve/test_how_to.py runs it", _nothing),
    Excuse("nano-batch .*--ray-address", "needs a cluster of Ray; `make batch-ray` has one", _parsed),
    Excuse("(ray|export RAY)", "starts a cluster on the reader's machine", _nothing),
    Excuse("nano-generate .*--precision bf16", "not every processor has bf16", _parsed),
)


def run_block(block: Block, workshop: Path, names: dict[str, object]) -> None:
    """Run a block as its reader would.

    Args:
        block: of a shell, of Python, or of neither, which does nothing.
        workshop: folder to run it in.
        names: what Python blocks before it defined; changed.

    Raises:
        AssertionError: a command fails, or cannot be parsed.
    """
    if block.language == "sh":
        for command in block.commands():
            run(command.removeprefix(ON_PATH), workshop)
    elif block.language == "python":
        with _inside(workshop), _without_exporting():
            exec(compile(block.text, block.place, "exec"), names)  # noqa: S102 - that is the test


def run(command: str, workshop: Path) -> None:
    """Run one command, or check it if there is an excuse for not running it."""
    for excuse in NOT_RUN:
        if re.match(excuse.pattern, command):
            with _explained(command):
                excuse.check(command)
            return
    words = _plain_words(command)
    if words is None or words[0] not in MAINS:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", command],
            cwd=workshop, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return
    with _inside(workshop), _explained(command) as said, _without_exporting():
        if words[0] == "nano-export":
            shutil.rmtree(parsers()[words[0]].parse_args(words[1:]).output, ignore_errors=True)
        code = MAINS[words[0]](words[1:])
        assert code == 0, said.getvalue()


def _plain_words(command: str) -> list[str] | None:
    """Return the words of a command; None if it needs a shell."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    shell = "$" in command or any(word and set(word) <= set("();<>|&") for word in words)
    return None if shell else words


@contextlib.contextmanager
def _explained(command: str) -> Iterator[io.StringIO]:
    """Say which command failed, and what it said."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield said
    except SystemExit as error:
        raise AssertionError(f"{command}\n{said.getvalue()}") from error
    except (AssertionError, UsageError) as error:
        raise AssertionError(f"{command}\n{error}") from error


@contextlib.contextmanager
def _without_exporting() -> Iterator[None]:
    """Have an export leave a copy of the demo's bundle."""

    def copy(options: Options) -> Iterator[Exported]:
        copied(DEMO, options.output)
        yield Exported(options.output, {}, 0)

    def copy_adopted(_source: Path, output: Path, **_options: object) -> Iterator[Adopted]:
        copied(DEMO, output)
        yield Adopted(output, "onnxruntime", 0, ())

    with patch("nano_export.exporting.export", copy), patch("nano_export.adoption.adopting.adopt", copy_adopted):
        yield


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Make a folder the current one."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def copied(bundle: Path, target: Path) -> Path:
    """Copy a bundle by hard links to a copy of our own, which take no space; really, across file systems."""

    def link_or_copy(source: str, to: str) -> None:
        try:
            os.link(source, to)
        except OSError:
            shutil.copy2(source, to)

    return Path(shutil.copytree(_own(bundle), target, copy_function=link_or_copy))


@cache
def _own(bundle: Path) -> Path:
    """Copy a bundle once for all documents: tests beside these refuse its own files while they have several names."""
    folder = tempfile.TemporaryDirectory(prefix="nano-docs-")
    atexit.register(folder.cleanup)
    return Path(shutil.copytree(bundle, Path(folder.name) / "bundle"))
