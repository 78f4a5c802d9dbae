"""Prints the lowest versions that a pyproject.toml allows of what it needs, one ``name==version`` a line.

    python tests/packaging/lowest.py runtime/pyproject.toml onnxruntime

Extras are named after the file. Every requirement has to name its lowest version.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

__all__ = ["lowest"]


def lowest(pyproject: Path, extras: Sequence[str] = ()) -> list[str]:
    """Return the lowest versions of the requirements of a project and some of its extras.

    Raises:
        ValueError: a requirement does not say which version is the lowest.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [_pinned(Requirement(line)) for line in lines]


def _pinned(requirement: Requirement) -> str:
    """Return the requirement for the lowest version alone."""
    bounds = [one.version for one in requirement.specifier if one.operator in {">=", "=="}]
    if len(bounds) != 1:
        message = f"{requirement}: no lowest version"
        raise ValueError(message)
    return f"{requirement.name}=={bounds[0]}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lowest(Path(sys.argv[1]), sys.argv[2:]))
