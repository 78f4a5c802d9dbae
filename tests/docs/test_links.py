"""Every link leads somewhere, and every file that a document names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.documents import DOCUMENTS, ROOT, anchors_of, code_of, links_of

NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
_SOURCES = ("runtime", "exporter", "tests", "bench", "models", "docs", ".ci")
FILES = {
    path.relative_to(ROOT).as_posix()
    for folder in (*_SOURCES, "")
    for path in ((ROOT / folder).rglob("*") if folder else ROOT.iterdir())
    if path.is_file() and "__pycache__" not in path.parts
}
FOLDERS = {parent.as_posix() for name in FILES for parent in Path(name).parents}
# A file of the project: by a source's or a document's ending, or by the folder that it is said to be in.
_FILE = re.compile(rf"(?:[\w-]+/)*[\w.-]+\.(?:py|md)|(?:{'|'.join(_SOURCES)})/[\w./-]+")


def missing(code: str) -> bool:
    """Whether what stands in backticks is the name of a file or folder that is not there, in full or by its end."""
    if _FILE.fullmatch(code) is None:
        return False
    name = code.rstrip("/")
    return not any(path == name or path.endswith(f"/{name}") for path in FILES | FOLDERS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(document):
    for target in links_of(document):
        name, _, anchor = target.partition("#")
        path = document if not name else (document.parent / name).resolve()
        assert path.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors_of(path), f"{path.name} has no heading {anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_named_files_exist(document):
    assert [code for code in code_of(document) if missing(code)] == []


def test_a_missing_file_would_be_found():
    assert missing("sampling/deis.py")
    assert missing("docs/how-to/nothing.md")
    assert not missing("sampling/noise.py")
    assert not missing("photo.jpg")


def test_every_page_is_linked():
    linked = {
        (document.parent / target.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for target in links_of(document)
    }
    pages = {path for path in DOCUMENTS if path.is_relative_to(ROOT / "docs") or path.is_relative_to(ROOT / "models")}
    assert sorted(path.relative_to(ROOT).as_posix() for path in pages - linked) == []
