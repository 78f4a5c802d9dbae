"""Options of all tests: how often those with generated cases repeat."""

from __future__ import annotations

import signal

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the commands that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
