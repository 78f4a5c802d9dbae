"""The documents agree with the code: generated parts, public names, and what each room may import."""

from __future__ import annotations

import re

import pytest
from docs.generate import PARTS, outdated, parsers, with_part
from tests.docs.documents import ROOT
from tests.rooms import arrows

import nano_runtime

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PACKAGES = {
    "nano_runtime": ROOT / "runtime/src/nano_runtime",
    "nano_batch": ROOT / "runtime/src/nano_batch",
    "nano_serve": ROOT / "runtime/src/nano_serve",
    "nano_export": ROOT / "exporter/src/nano_export",
}


def test_generated_parts_are_current():
    assert [path.relative_to(ROOT).as_posix() for path, _ in outdated()] == [], "run make docs"


def test_a_part_that_is_not_current_would_be_found():
    (document, name), make = next(iter(PARTS.items()))
    text = (ROOT / document).read_text(encoding="utf-8")
    assert with_part(text, name, make()) == text
    assert with_part(text, name, make() + "one line more\n") != text


def test_every_source_file_is_in_the_map():
    for package in PACKAGES.values():
        for path in package.rglob("*.py"):
            if path.name != "__init__.py":
                assert f"`{path.relative_to(package).as_posix()}`" in ARCHITECTURE


def test_every_command_and_public_name_has_its_section():
    commands = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    assert [name for name in parsers() if f"\n## {name}\n" not in commands] == []
    names = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    public = [name for name in nano_runtime.__all__ if not name.startswith("__")]
    assert [name for name in public if f"\n## {name}\n" not in names] == []


def allowed(package: str) -> dict[str, set[str]]:
    """Return what each room may import, as ARCHITECTURE.md says; ``all above`` means the rooms above it."""
    table = ARCHITECTURE.partition(f"### Rooms of {package}\n")[2].partition("\n#")[0]
    rooms: dict[str, set[str]] = {}
    for room, imports in re.findall(r"^\| `(\w+)` \|.*\| (.*?) ?\|$", table, re.MULTILINE):
        names = set(re.findall(r"`(\w+)`", imports))
        rooms[room] = set(rooms) - names if "all above" in imports else names
    return rooms


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_is_described(package):
    assert set(allowed(package)) == set(arrows(PACKAGES[package]))


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_what_they_may(package):
    may = allowed(package)
    assert {room: set(of) - may[room] for room, of in arrows(PACKAGES[package]).items() if set(of) - may[room]} == {}


def test_a_room_that_imports_too_much_would_be_found():
    assert set(arrows(PACKAGES["nano_runtime"])["pipeline"]) - allowed("nano_runtime")["sampling"] != set()
