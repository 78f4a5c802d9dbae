"""The rooms of the runtime: each imports only rooms below it, files are short, and functions take few arguments."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.rooms import arrows, circle, line_counts, parameter_counts, upward

import nano_runtime

PACKAGE = Path(nano_runtime.__file__).parent
FLOORS = """commands
cli
benchmark verify
pipeline rows
drawing
networks
pictures
options engines
sampling bundle
system values
errors arrays version"""
FEW = {  # what these rooms know of the others: all of it
    "arrays": set(),
    "errors": set(),
    "system": {"errors"},
    "sampling": {"arrays", "errors"},
    "values": {"errors"},
    "bundle": {"errors", "system", "values"},
    "options": {"arrays", "bundle", "errors", "sampling", "values"},
    "engines": {"arrays", "errors", "system", "bundle"},
    "rows": {"bundle", "errors", "options", "system", "values"},
}
PUBLIC = {"pipeline.py: Pipeline.from_pretrained"}  # may take as many arguments as users need
MOST_LINES, MOST_PARAMETERS = 400, 8


@pytest.fixture(scope="module")
def graph():
    return arrows(PACKAGE)


def test_every_room_stands_on_a_floor(graph):
    assert set(graph) == set(FLOORS.split())


def test_no_room_imports_itself_by_way_of_others(graph):
    assert circle(graph) is None


def test_imports_go_down(graph):
    assert upward(graph, FLOORS) == []
    assert len(upward(graph, "\n".join(reversed(FLOORS.split("\n"))))) > 40  # negative control: upside down


@pytest.mark.parametrize("room", FEW)
def test_rooms_that_others_rely_on_know_little(graph, room):
    assert set(graph[room]) <= FEW[room]


def test_only_the_command_line_and_its_parts_know_the_whole_pipeline(graph):
    assert {room for room, of in graph.items() if "pipeline" in of} == {"cli", "benchmark", "verify"}
    assert {room for room, of in graph.items() if "cli" in of} == {"commands"}


def test_no_file_is_long():
    counts = line_counts(PACKAGE)
    assert len(counts) > 80
    assert {name: count for name, count in counts.items() if count > MOST_LINES} == {}


def test_no_function_takes_many_arguments_outside_the_public_face():
    counts = parameter_counts(PACKAGE)
    assert {name for name, count in counts.items() if count > MOST_PARAMETERS} <= PUBLIC
    assert counts["pipeline.py: Pipeline.from_pretrained"] > MOST_PARAMETERS  # negative control: it is counted


def test_a_circle_is_found(tmp_path):
    """Through a file, a folder, an import inside a function and one for type checkers; another room only looks on."""
    package = tmp_path / "made_up"
    (package / "folder").mkdir(parents=True)
    (package / "__init__.py").write_text("from made_up.one import x\n")
    (package / "one.py").write_text("import os\nfrom made_up.folder.inner import y\nfrom made_up import __version__\n")
    (package / "folder" / "inner.py").write_text("def f(self, a, *b, c, **d):\n    from made_up import two\n")
    (package / "two.py").write_text("if TYPE_CHECKING:\n    import made_up.one\n")
    (package / "apart.py").write_text("from made_up import one\n")
    graph = arrows(package)
    assert graph == {
        "one": {"folder": ["one.py"]},
        "folder": {"two": ["folder/inner.py"]},
        "two": {"one": ["two.py"]},
        "apart": {"one": ["apart.py"]},
    }
    assert circle(graph) == ["one", "folder", "two"]
    assert circle({**graph, "two": {}}) is None
    assert upward(graph, "apart\none\nfolder\ntwo") == ["two.py in two imports one"]
    assert parameter_counts(package)["folder/inner.py: f"] == 4
