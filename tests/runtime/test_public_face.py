"""The public face of the package: these names and no others, each importable, and listed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nano_runtime
from nano_runtime import errors

NAMES = [
    "Bundle",
    "BundleError",
    "DrawOptions",
    "MachineError",
    "NanoError",
    "NetworkError",
    "Pipeline",
    "Progress",
    "Result",
    "Row",
    "RowsError",
    "UsageError",
    "__version__",
    "open_picture",
    "read_foreign",
    "read_parameters",
    "read_rows",
    "sampler_names",
    "save_png",
    "verify_bundle",
]


def test_the_names_stay():
    """Adding one is a promise, and removing one breaks it: change this list only with CHANGELOG.md."""
    assert sorted(nano_runtime.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_name_can_be_imported(name):
    found = getattr(nano_runtime, name)
    assert found is not None
    assert getattr(found, "__name__", name) == name


def test_all_are_listed_before_any_is_imported():
    program = (
        "import nano_runtime as package\n"
        "print([sorted(set(package.__all__) - set(dir(package))), 'Pipeline' in vars(package)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[], False]"


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'Piepline'"):
        _ = nano_runtime.Piepline
    with pytest.raises(ImportError, match="Piepline"):
        exec("from nano_runtime import Piepline")  # noqa: S102 - a literal


def test_a_star_import_brings_exactly_these():
    found: dict[str, object] = {}
    exec("from nano_runtime import *", found)  # noqa: S102 - a literal
    assert sorted(set(found) - {"__builtins__"}) == NAMES


def test_every_error_is_one_of_the_public_branches():
    branches = (nano_runtime.UsageError, nano_runtime.BundleError, nano_runtime.MachineError, nano_runtime.NetworkError)
    leaves = [getattr(errors, name) for name in errors.__all__ if getattr(errors, name) is not nano_runtime.NanoError]
    assert len(leaves) > 40
    assert all(issubclass(leaf, nano_runtime.NanoError) for leaf in leaves)
    assert [leaf for leaf in leaves if sum(issubclass(leaf, branch) for branch in branches) != 1] == []
