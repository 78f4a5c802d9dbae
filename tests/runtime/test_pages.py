"""A mapped file's pages are given back while a block runs, and only they."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from nano_runtime.engines.pages import mapped_once

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and elsewhere nothing is given back")

_SIZE = 8 << 20


def test_the_pages_of_the_named_file_are_given_back_and_its_content_stays(tmp_path: Path) -> None:
    named, other = tmp_path / "named weights.bin", tmp_path / "other.bin"
    content = bytes(range(256)) * (_SIZE // 256)
    for path in (named, other):
        path.write_bytes(content)
    with named.open("rb") as first, other.open("rb") as second:
        maps = [mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) for file in (first, second)]
        assert all(bytes(mapped) == content for mapped in maps)
        assert _resident_bytes(named) >= _SIZE, "the control: reading makes them resident"
        with mapped_once(named):
            pass
        assert _resident_bytes(named) == 0
        assert _resident_bytes(other) >= _SIZE
        assert bytes(maps[0]) == content


def _resident_bytes(file: Path) -> int:
    """Return how much of a mapped file is in this process's memory, from ``/proc/self/smaps``."""
    lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
    at = [number for number, line in enumerate(lines) if line.endswith(str(file))]
    return sum(int(next(line for line in lines[number:] if line.startswith("Rss:")).split()[1]) * 1024 for number in at)
