"""`make help` lists every target, and `.ci/run` runs what the documents say it does."""

from __future__ import annotations

import os
import re
import subprocess

from tests.packaging.building import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()


def make(*options: str) -> list[str]:
    """Run make as from a shell, though the tests may have been started by another make; return its lines."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return done.stdout.splitlines()


def test_every_target_is_listed_with_what_it_does():
    named = re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    listed = dict(line.removeprefix("make ").split(maxsplit=1) for line in make("help"))
    assert set(listed) == set(named) == set(phony.split())


def test_make_alone_is_help():
    assert make() == make("help")


def test_ci_checks_what_is_quick_first_and_ends_with_tests():
    assert (ROOT / ".ci" / "run").read_text().endswith("\nexec make ci\n")
    planned = make("--dry-run", "--assume-old=.venv/ready", "ci")
    tests = 'pytest -m "not slow" '
    wanted = ["ruff check", "ruff format --check", "mypy", f"{tests}--durations", f"{tests}tests/runtime"]
    places = [next(n for n, line in enumerate(planned) if part in line) for part in wanted]
    assert places == sorted(places)
    assert "pytest" in planned[-1]
