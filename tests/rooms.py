"""Reads a package's sources: which room imports which, how long files are, and how many parameters functions have.

A room is a folder of the package or a file on its first level. The package itself is none: its ``__init__`` is the
public face, which names what is in all rooms and imports it when it is asked for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["arrows", "circle", "line_counts", "parameter_counts", "upward"]

Arrows = Mapping[str, Mapping[str, list[str]]]
"""For each room the rooms that it imports, and of each the files that do."""


def arrows(package: Path) -> Arrows:
    """Return the imports between rooms, those for type checkers included."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        room = name.parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        imported = found.setdefault(room, {})
        for other in _rooms_imported(path, package):
            if other != room and str(name) not in imported.setdefault(other, []):
                imported[other].append(str(name))
    return {room: {other: files for other, files in of.items() if files} for room, of in found.items()}


def circle(graph: Arrows) -> list[str] | None:
    """Return rooms each of which imports the next, and the last the first; None if there are none."""
    done: set[str] = set()

    def search(path: list[str]) -> list[str] | None:
        for other in graph.get(path[-1], {}):
            if other in path:
                return path[path.index(other) :]
            if other not in done and (found := search([*path, other])) is not None:
                return found
        done.add(path[-1])
        return None

    return next((found for room in graph if room not in done and (found := search([room])) is not None), None)


def upward(graph: Arrows, floors: str) -> list[str]:
    """Return the imports that do not go down.

    Args:
        graph: of a package.
        floors: a line of rooms for each floor, from the top down.
    """
    height = {room: number for number, line in enumerate(reversed(floors.split("\n"))) for room in line.split()}
    return [
        f"{', '.join(files)} in {room} imports {other}"
        for room, of in graph.items()
        for other, files in of.items()
        if height.get(room, -1) <= height.get(other, len(height))
    ]


def line_counts(package: Path) -> dict[str, int]:
    """Return the number of lines of each file."""
    return {
        str(path.relative_to(package)): len(path.read_text(encoding="utf-8").splitlines())
        for path in package.rglob("*.py")
    }


def parameter_counts(package: Path) -> dict[str, int]:
    """Return the number of parameters of each function and method, without self."""
    return {
        f"{path.relative_to(package)}: {name}": count
        for path in package.rglob("*.py")
        for name, count in _functions(ast.parse(path.read_text(encoding="utf-8")), "")
    }


def _functions(tree: ast.AST, within: str) -> Iterator[tuple[str, int]]:
    """Yield the name and the number of parameters of each function, nested ones included."""
    for node in ast.iter_child_nodes(tree):
        name = f"{within}{getattr(node, 'name', '')}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            of = node.args
            named = [one.arg for one in (*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg) if one]
            yield name, len([one for one in named if one not in {"self", "cls"}])
        deeper = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _functions(node, f"{name}." if deeper else within)


def _rooms_imported(path: Path, package: Path) -> Iterator[str]:
    """Yield the room of every import from the same package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            # "from package import room" names the room last; "from package import __version__" names none
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            assert not isinstance(node, ast.ImportFrom), f"{path} has a relative import, which this does not follow"
            continue
        for module in modules:
            top, _, rest = module.partition(".")
            room = rest.partition(".")[0]
            if top == package.name and ((package / room).is_dir() or (package / f"{room}.py").is_file()) and room:
                yield room
