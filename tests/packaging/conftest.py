"""Both wheels, built once for all packaging tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.packaging.building import build, copied


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime's wheel."""
    folder = tmp_path_factory.mktemp("runtime")
    return build(copied("runtime", folder), folder / "dist")


@pytest.fixture(scope="session")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exporter's wheel."""
    folder = tmp_path_factory.mktemp("exporter")
    return build(copied("exporter", folder), folder / "dist")
