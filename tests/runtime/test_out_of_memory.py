"""What native code says when memory runs out is recognized, and nothing else is."""

from __future__ import annotations

import argparse

import pytest

from nano_runtime.cli import make_parser, run_command
from nano_runtime.system.out_of_memory import is_out_of_memory

# Collected from runs under a limited address space, and from torch's source.
SAID = [
    MemoryError(),
    RuntimeError("std::bad_alloc"),
    RuntimeError("bad allocation"),
    RuntimeError("Failed to allocate memory for requested buffer of size 8388608"),
    RuntimeError("can't alloc"),
    RuntimeError("Resource temporarily unavailable"),
    RuntimeError("Exception from src/inference/src/cpp/core.cpp:107:\nstd::future_error: Broken promise"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1"),
    ImportError("libopenvino.so.2641: failed to map segment from shared object"),
    SystemError("error return without exception set"),
    SystemError("<function _find_and_load at 0x7f92ba21bce0> returned NULL without setting an exception"),
]


@pytest.mark.parametrize("error", SAID, ids=str)
def test_too_little_memory_is_4(error, capsys):
    def action(_options):
        raise error

    assert is_out_of_memory(error)
    assert run_command(make_parser("nano-test", "", ""), argparse.Namespace(), action, []) == 4
    assert "ran out of memory" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("out of range"), ImportError("no module named torch"), ValueError("x")])
def test_other_errors_are_bugs(error):
    def action(_options):
        raise error

    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        run_command(make_parser("nano-test", "", ""), argparse.Namespace(), action, [])
