"""The table of promises about drawing, ``promises.md``: each sentence stands in its document, each test exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.docs.documents import DOCUMENTS, ROOT, blocks_of

from nano_runtime.cli import generate

TABLE = Path(__file__).with_name("promises.md")
PAGES = {"commands": "docs/reference/commands.md", "python": "docs/reference/python.md"}

OTHERS = {"checkpoints", "embeddings", "int8", "lora", "other-libraries", "single-files", "trust-a-bundle"}
"""Guides to exports and to bundles."""


class Promise(NamedTuple):
    """A sentence, the document that it stands in, and the tests that hold it."""

    words: str
    page: str
    tests: tuple[str, ...]


def promises(text: str) -> Iterator[Promise]:
    """Yield the rows of the table."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| promise |"):
            words, page, tests = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            yield Promise(words, PAGES.get(page, page), tuple(tests.split(", ")))


@cache
def plain(page: str) -> str:
    """A document on one line, as it is read."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").replace("\\|", "|").split())


@cache
def names_in(file: str) -> frozenset[str]:
    """The names of the tests in a file; none if there is no such file."""
    path = ROOT / "tests" / file
    return frozenset(
        re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE) if path.is_file() else ()
    )


def faults(promise: Promise) -> list[str]:
    """What is not true of a row."""
    found = (
        []
        if promise.words.replace("\\|", "|") in plain(promise.page)
        else [f"{promise.words!r} is not in {promise.page}"]
    )
    for test in promise.tests:
        file, _, name = test.partition("::")
        if name not in names_in(file):
            found.append(f"there is no test {test}")
    return found


PROMISES = list(promises(TABLE.read_text(encoding="utf-8")))


def test_every_promise_stands_where_the_table_says_and_has_its_tests():
    """Whoever changes a promise mends its row, and looks at the test."""
    assert [fault for promise in PROMISES for fault in faults(promise)] == []


def test_a_promise_that_is_gone_or_has_no_test_would_be_found():
    (row,) = promises("| it draws in no time | README.md | runtime/test_plan.py::test_nothing, nowhere.py::test_a |")
    assert len(faults(row)) == 3


def test_every_option_of_the_command_is_in_the_table():
    parser: Any = generate._parser()  # noqa: SLF001 - so that none is forgotten
    named = {word for promise in PROMISES for word in re.findall(r"`(-[-\w]*)", promise.words)}
    options = {name for action in parser._all_actions() for name in action.option_strings}  # noqa: SLF001
    assert options - named == {"-h", "--help", "--version"}


def test_every_guide_to_drawing_is_in_the_table():
    guides = [path for path in DOCUMENTS if path.parent.name == "how-to" and path.stem not in OTHERS]
    draws = {path for path in guides for block in blocks_of(path) if "nano-generate" in block.text}
    assert {path.relative_to(ROOT).as_posix() for path in draws} <= {promise.page for promise in PROMISES}
