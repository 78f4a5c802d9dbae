"""The server stands on the runtime's public names, its files are short, and one file opens sockets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.rooms import arrows, circle, line_counts, parameter_counts

import nano_runtime
import nano_serve

PACKAGE = Path(nano_serve.__file__).parent
MOST_LINES, MOST_PARAMETERS = 400, 8
SHARED = {
    "nano_runtime.commands": {"commands.py"},  # signals before the first word
    "nano_runtime.cli": {"cli.py"},  # what all commands share: the error boundary, the cache
    "nano_runtime.drawing.demo_prompts": {"views.py", "notes.py"},  # what the demo was taught
    "nano_runtime.system.files": {"gallery.py", "journal.py"},  # plain files, and no waiting for others
    "nano_runtime.rows.columns": {
        "openai_fields.py",
        "a1111_fields.py",
        "a1111_unheeded.py",
    },  # names that options have elsewhere
    "nano_runtime.pictures.source": {"a1111_request.py"},  # transparent parts, 16 bits a channel
    "nano_runtime.networks.other_syntax": {"notes.py"},  # what the commands say of a prompt, too
}


def test_only_public_names_of_the_runtime_are_used():
    used = {pair for path in PACKAGE.rglob("*.py") for pair in _used(path)}
    assert len(used) > 8
    public = {f"nano_runtime.{name}" for name in nano_runtime.__all__}
    others = {(name.rpartition(".")[0], file) for name, file in used if name not in public}
    assert {(module, file) for module, file in others if not _shared(module, file)} == set()
    assert {file for _, file in others} == set().union(*SHARED.values())  # negative control


def test_the_runtime_does_not_know_the_server():
    for path in Path(nano_runtime.__file__).parent.rglob("*.py"):
        assert "nano_serve" not in path.read_text(encoding="utf-8"), path


def test_one_file_opens_sockets():
    named = {path.name for path in PACKAGE.rglob("*.py") if "import socket" in path.read_text(encoding="utf-8")}
    assert named == {"server.py"}


def test_only_the_http_side_knows_starlette():
    heavy = ("import starlette", "from starlette", "import uvicorn", "from uvicorn")
    for path in PACKAGE.glob("*.py"):
        assert not any(line in path.read_text(encoding="utf-8") for line in heavy), path


def test_no_room_imports_itself_by_way_of_others():
    graph = arrows(PACKAGE)
    assert sum(map(len, graph.values())) > 10
    assert circle(graph) is None


def test_no_file_is_long_and_no_function_takes_many_arguments():
    counts = line_counts(PACKAGE)
    assert len(counts) > 20
    assert {name: count for name, count in counts.items() if count > MOST_LINES} == {}
    assert {name for name, count in parameter_counts(PACKAGE).items() if count > MOST_PARAMETERS} == set()


def _used(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each name of the runtime that a file imports, those for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "nano_runtime":
            for alias in node.names:
                yield f"{node.module}.{alias.name}", path.name


def _shared(module: str, file: str) -> bool:
    """Return whether a file may import a module that is not public."""
    return any(module.startswith(name) and file in of for name, of in SHARED.items())
