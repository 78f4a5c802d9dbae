"""What the machine says of itself is read correctly, and nothing is guessed."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from nano_runtime.system import machine

# Two packages of two cores with two threads each would be 8 processors; this one has 1 package, 2 cores, 4 processors.
CPUINFO = "\n\n".join(
    f"processor\t: {n}\nmodel name\t: Some CPU @ 3 GHz\nphysical id\t: 0\ncore id\t\t: {n // 2}\n"
    "flags\t\t: fpu sse2 avx2 avx512_vnni avx_vnnix"
    for n in range(4)
)


@pytest.mark.parametrize(("allowed", "cores"), [({0, 1, 2, 3}, 2), ({0, 1}, 1), ({1, 2}, 2), ({3}, 1)])
def test_hyperthreads_are_not_cores(allowed, cores):
    assert machine._physical(CPUINFO, allowed) == cores  # noqa: SLF001


def test_where_the_system_is_silent_processors_count():
    assert machine._physical("", {0, 1, 2}) == 3  # noqa: SLF001


@pytest.mark.parametrize(
    ("line", "processors"),
    [("max 100000", None), ("", None), ("150000 100000", 1), ("400000 100000", 4), ("5000 100000", 1)],
)
def test_container_quotas_are_whole_processors(line, processors):
    assert machine._cgroup_quota(line) == processors  # noqa: SLF001


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
def test_affinity_is_respected():
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    program += "from nano_runtime.system.machine import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


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
