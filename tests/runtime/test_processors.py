"""The system's tables of processors are read correctly: affinity, hybrid processors, and containers' quotas."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.fakes import FakeGraphs

from nano_runtime.errors.wording import shown
from nano_runtime.pipeline import Pipeline
from nano_runtime.system import processors

# Two packages of two cores with two threads each would be 8 processors; this one has 1 package, 2 cores, 4 processors.
CPUINFO = "\n\n".join(f"processor\t: {n}\nphysical id\t: 0\ncore id\t\t: {n // 2}" for n in range(4))


def machine(root: Path, files: dict[str, str]) -> Path:
    """A file system with these pseudo-files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(("allowed", "cores"), [({0, 1, 2, 3}, 2), ({0, 1}, 1), ({1, 2}, 2), ({3}, 1)])
def test_hyperthreads_are_not_cores(allowed, cores):
    assert processors._physical(CPUINFO, allowed) == cores  # noqa: SLF001


def test_where_the_system_is_silent_processors_count():
    assert processors._physical("", {0, 1, 2}) == 3  # noqa: SLF001


@pytest.mark.parametrize(
    ("allowed", "fast"),
    [(range(20), range(16)), (range(14, 18), (14, 15)), ((16, 17), (16, 17))],
    ids=["all", "some of both", "efficiency cores alone"],
)
def test_of_intels_hybrid_processors_performance_cores_count(tmp_path, allowed, fast):
    root = machine(tmp_path, {"sys/devices/cpu_core/cpus": "0-15\n", "sys/devices/cpu_atom/cpus": "16-19\n"})
    assert processors._performance(root, set(allowed)) == set(fast)  # noqa: SLF001


@pytest.mark.parametrize(
    ("capacities", "fast"),
    [
        ((446,) * 4 + (1024,) * 4, {4, 5, 6, 7}),
        ((325, 325, 812, 1024), {2, 3}),
        ((1024, 1024), {0, 1}),
        ((0, 0), {0, 1}),
    ],
)
def test_of_arms_cores_those_of_half_the_largest_capacity_count(tmp_path, capacities, fast):
    names = {f"sys/devices/system/cpu/cpu{n}/cpu_capacity": f"{capacity}\n" for n, capacity in enumerate(capacities)}
    assert processors._performance(machine(tmp_path, names), set(range(len(capacities)))) == fast  # noqa: SLF001


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, float("inf")),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, float("inf")),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/user.slice/shell.scope\n",
                "sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/user.slice/shell.scope/cpu.max": "400000 100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            float("inf"),
        ),
    ],
    ids=["none", "unlimited", "version 2", "a group above", "version 1", "version 1, unlimited"],
)
def test_containers_have_a_quota(tmp_path, monkeypatch, files, quota):
    monkeypatch.setattr(processors, "_allowed", lambda: set(range(8)))
    monkeypatch.setattr(sys, "platform", "linux")
    root = machine(tmp_path, files)
    assert processors._quota(root) == quota  # noqa: SLF001
    assert processors.usable_cores(root) == min(8, quota // 1)
    assert processors.most_threads(root) == min(8, -(-quota // 1))


def windows_core(efficiency: int, mask: int, group: int = 0) -> bytes:
    """A record of ``SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX`` as 64-bit Windows writes it."""
    core = struct.pack("<BB20xH", mask.bit_count() > 1, efficiency, 1) + struct.pack("<QH6x", mask, group)
    return struct.pack("<II", 0, 8 + len(core)) + core


def test_windows_efficiency_classes():
    hybrid = [windows_core(1, 0b11 << 2 * n) for n in range(6)] + [windows_core(0, 1 << 12 + n) for n in range(8)]
    table = b"".join(hybrid)
    assert processors._fastest_cores(table, (1 << 20) - 1) == 6  # noqa: SLF001
    assert processors._fastest_cores(table, 0b1111) == 2  # noqa: SLF001 - allowed two performance cores
    assert processors._fastest_cores(table, 0b11 << 12) == 2  # noqa: SLF001 - allowed two efficiency cores
    assert processors._fastest_cores(table, 0) == 6  # noqa: SLF001
    assert processors._fastest_cores(b"".join(windows_core(0, 1 << n) for n in range(4)), 0) == 4  # noqa: SLF001
    assert processors._fastest_cores(b"", 0) == 0  # noqa: SLF001


@pytest.mark.parametrize(("system", "cores"), [("darwin", 4), ("win32", 6)])
def test_other_systems_say_it_themselves(monkeypatch, system, cores):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(processors, "_sysctl", {"hw.perflevel0.physicalcpu": 4, "hw.physicalcpu": 8}.get)
    monkeypatch.setattr(processors, "_windows_cores", lambda: 6)
    assert processors.usable_cores() == cores


def test_where_they_cannot_the_processors_count(monkeypatch):
    assert processors._windows_cores() is None or sys.platform == "win32"  # noqa: SLF001
    for system in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(processors, "_sysctl", lambda _name: None)
        monkeypatch.setattr(processors, "_windows_cores", lambda: None)
        assert processors.usable_cores() == os.cpu_count()


@pytest.mark.skipif(sys.platform != "linux", reason="sets an affinity")
def test_affinity_is_respected():
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    program += "from nano_runtime.system.processors import *; print(usable_cores(), most_threads())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("asked", [64, 1000, 10**30, 10**5000], ids=["64", "1000", "huge", "unwritable"])
def test_more_threads_than_processors_are_refused_with_a_word(hoisted, monkeypatch, caplog, asked):
    monkeypatch.setattr(processors, "most_threads", lambda: 2)
    pipe: Any = Pipeline.from_pretrained(FakeGraphs(hoisted).bundle.path, threads=asked)
    assert pipe.options.threads == 2
    assert f"this process may use 2 processors, so it runs 2 threads instead of {shown(asked)}" in caplog.text
    caplog.clear()
    assert processors.thread_count(2) == 2
    assert caplog.records == []


def test_the_words_are_a_warning(caplog, monkeypatch):
    monkeypatch.setattr(processors, "most_threads", lambda: 1)
    with caplog.at_level(logging.WARNING):
        assert processors.thread_count(3) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
