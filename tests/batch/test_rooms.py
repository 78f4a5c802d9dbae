"""``nano_batch`` stands on the runtime's public names and few others; neither runtime nor server knows it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.rooms import arrows, circle, line_counts, parameter_counts

import nano_batch
import nano_runtime
import nano_serve

PACKAGE = Path(nano_batch.__file__).parent
MOST_LINES, MOST_PARAMETERS = 400, 8
SHARED = {  # of what the runtime has no public names for: commands, errors by their names, files, this machine
    "nano_runtime.cli",
    "nano_runtime.commands",
    "nano_runtime.errors",
    "nano_runtime.pictures.parameters",
    "nano_runtime.system.files",
    "nano_runtime.system.machine",
    "nano_runtime.system.processors",
}


def test_public_names_of_the_runtime_and_few_others_are_used():
    used = {name for path in PACKAGE.rglob("*.py") for name in _used(path)}
    public = {f"nano_runtime.{name}" for name in nano_runtime.__all__}
    assert len(used & public) > 8
    modules = {name.rpartition(".")[0] for name in used - public}
    assert {module for module in modules if not any(module.startswith(one) for one in SHARED)} == set()
    assert {one for one in SHARED if not any(module.startswith(one) for module in modules)} == set()  # negative control


def test_the_runtime_and_the_server_do_not_know_it():
    for package in (nano_runtime.__file__, nano_serve.__file__):
        for path in Path(str(package)).parent.rglob("*.py"):
            assert "nano_batch" not in path.read_text(encoding="utf-8"), path


def test_only_the_command_prints():
    printing = {path.name for path in PACKAGE.rglob("*.py") if "print(" in path.read_text(encoding="utf-8")}
    assert printing == {"cli.py"}


def test_no_room_imports_itself_by_way_of_others():
    graph = arrows(PACKAGE)
    assert sum(map(len, graph.values())) > 10
    assert circle(graph) is None


def test_no_file_is_long_and_no_function_takes_many_arguments():
    counts = line_counts(PACKAGE)
    assert len(counts) > 10
    assert {name: count for name, count in counts.items() if count > MOST_LINES} == {}
    assert {name for name, count in parameter_counts(PACKAGE).items() if count > MOST_PARAMETERS} == set()


def _used(path: Path) -> Iterator[str]:
    """Yield each name of the runtime that a file imports, those for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "nano_runtime":
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
