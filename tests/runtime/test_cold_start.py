"""Memory that no file backs is told from memory that one does."""

from __future__ import annotations

import mmap
import subprocess
import sys

import numpy as np
import pytest

from nano_runtime.benchmark.cold_start import anonymous_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def private_bytes() -> int:
    """What this process has for itself, which Linux tells."""
    found = anonymous_bytes()
    assert found is not None
    return found


def test_arrays_count_and_mapped_files_do_not(tmp_path):
    before = private_bytes()
    # Mapped anew: an array of the allocator's may lie in memory that the process had before.
    fresh = mmap.mmap(-1, 50_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(fresh, np.uint8)
    array[:] = 1
    grown = private_bytes() - before
    assert array.nbytes * 0.9 < grown < array.nbytes * 1.2  # pages, and whatever else moved meanwhile

    path = tmp_path / "file"
    path.write_bytes(array.tobytes())
    mapped = np.memmap(path, np.uint8, "r")
    before = private_bytes()
    assert int(mapped.max()) == 1  # every page was read
    assert abs(private_bytes() - before) < array.nbytes * 0.1


def test_a_process_that_is_gone_says_nothing():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert anonymous_bytes(process.pid) is None
