"""The documents and what is in them: blocks of commands and of Python, headings, links, names of files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = tuple(
    sorted(
        path
        for pattern in ("*.md", "runtime/*.md", "exporter/*.md", "docs/**/*.md", "models/*/*.md", "models/*.md")
        for path in ROOT.glob(pattern)
    )
)

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)")
_CODE = re.compile(r"`(?P<code>[^`\n]+)`")
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document; ``line`` is that of its first line of text."""

    document: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it stands, as editors understand it."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[str]:
        """Yield the commands of a shell block: lines that end in a backslash are joined, comments are left out."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                yield line.strip()


def blocks_of(document: Path, text: str | None = None) -> list[Block]:
    """Return the fenced blocks of a document; of another text in its place, for tests of the tests."""
    text = document.read_text(encoding="utf-8") if text is None else text
    return [
        Block(document, text.count("\n", 0, found.start()) + 2, found["language"], found["text"])
        for found in _FENCE.finditer(text)
    ]


def prose_of(document: Path) -> str:
    """Return a document without its fenced blocks."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def links_of(document: Path) -> list[str]:
    """Return the targets of links and pictures that are not addresses on the web."""
    targets = (found["target"] for found in _LINK.finditer(prose_of(document)))
    return [target for target in targets if not target.startswith(("https://", "http://"))]


def code_of(document: Path) -> list[str]:
    """Return everything in single backticks."""
    return [found["code"] for found in _CODE.finditer(prose_of(document))]


def anchors_of(document: Path) -> set[str]:
    """Return what links may name after a hash: the headings, as code hosts shorten them."""
    titles = (found["title"].strip().lower() for found in _HEADING.finditer(prose_of(document)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}
