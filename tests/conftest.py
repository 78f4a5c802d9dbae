"""Shared by all tests: a core for each of several processes, the header that says where they ran, and ``--counts``."""

from __future__ import annotations

import os
import signal
import sys
from importlib import metadata

import pytest

from nano_runtime.system.machine import PACKAGES, describe_machine

EXPORTERS = ("nano-export", "torch", "diffusers", "transformers", "onnx", "onnxscript")

# Engines that wait for each other's cores take many times as long: each process of ``make test`` gets one core.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is not None and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

# A shell that starts the tests in the background has them ignore Ctrl-C, and nohup a closed terminal; so would the
# commands that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--counts``."""
    parser.addoption(
        "--counts",
        choices=("few", "full"),
        default="few",
        help="how many cases tests generate: few for every run (default), or the full counts that SECURITY.md names",
    )


def pytest_report_header() -> list[str]:
    """Name what results depend on: processor, instruction sets, interpreter, versions."""
    here = describe_machine()
    cores = f"{here.cores} core{'s' * (here.cores != 1)}"
    flags = "instruction sets unknown" if here.isa is None else " ".join(here.isa) or "no AVX2"
    found = {package: _version(package) for package in (*PACKAGES, *EXPORTERS)}
    versions = ", ".join(f"{package} {version}" for package, version in found.items() if version is not None)
    return [f"machine: {here.cpu}, {cores}, {flags}; {here.system}", f"versions: {versions}"]


def _version(package: str) -> str | None:
    """Return which version of a package is installed; None where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse cases in a set: its order may differ in each process of ``make test``, and no test would run then."""
    for marker in metafunc.definition.iter_markers("parametrize"):
        cases = marker.kwargs.get("argvalues", marker.args[1] if len(marker.args) > 1 else None)
        if isinstance(cases, set | frozenset):
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: parametrize was given a set. Give it a list.")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the full counts were asked for."""
    return request.config.getoption("--counts") == "full"


@pytest.fixture(scope="session", autouse=True)
def shared_operators() -> None:
    """Have torch's exporter read its operators once for a process, where tests were collected that trace networks."""
    if "nano_export.graph.to_onnx" in sys.modules:
        from tests.torch_operators import share_operators  # noqa: PLC0415 - imports torch, which the runtime's tests do without

        share_operators()
