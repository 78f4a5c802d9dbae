"""Options of all tests: how often those with generated cases repeat."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--counts``."""
    parser.addoption(
        "--counts",
        choices=("few", "full"),
        default="few",
        help="how many cases tests generate: few for every run (default), or the full counts that SECURITY.md names",
    )


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the full counts were asked for."""
    return request.config.getoption("--counts") == "full"
