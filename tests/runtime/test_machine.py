"""What the machine says of itself is read correctly, and nothing is guessed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from nano_runtime.system import machine

CPUINFO = "model name\t: Some CPU @ 3 GHz\nflags\t\t: fpu sse2 avx2 avx512_vnni avx_vnnix"


def test_flags_are_whole_words():
    assert machine._isa(CPUINFO) == ("avx2", "avx512_vnni")  # noqa: SLF001
    assert machine._isa("Features : neon") is None  # noqa: SLF001


def test_this_machine_is_described():
    here = machine.describe_machine()
    assert here.cpu
    assert 1 <= here.cores <= (os.cpu_count() or 1)
    assert here.versions["numpy"] == np.__version__
    assert here.python == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_this_processes_own():
    """A child of a big process must not report its parent's peak, which getrusage does."""
    blob = np.ones(200_000_000, np.uint8)
    peak, available = machine.peak_rss_bytes(), machine.memory_available_bytes()
    assert peak is not None
    assert peak > blob.nbytes
    program = "from nano_runtime.system.machine import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 1_000_000 < int(done.stdout) < 100_000_000
    assert available is not None
    assert available > 1_000_000
