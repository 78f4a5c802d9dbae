"""Ctrl-C and SIGTERM end a command at once: exit code 130, one line, and nothing half written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nano_runtime.pictures.png import read_parameters


def started(command: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a command of the runtime in a process group of its own, as a terminal does."""
    line = f"import sys; from nano_runtime.commands import {command}; sys.exit({command}())"
    return subprocess.Popen(
        [sys.executable, "-c", line, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return its exit code and what it said that was not read yet, once nobody holds the other end of the pipe."""
    with process:
        assert process.stderr is not None
        error = process.stderr.read()
    return process.returncode, error


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Ctrl-C reaches the whole group, SIGTERM the process."""
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)


@pytest.mark.parametrize(
    ("backend", "number"),
    [
        ("onnxruntime", signal.SIGTERM),
        ("openvino", signal.SIGINT),
        pytest.param("onnxruntime", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("openvino", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_drawing_stops_within_a_step(tmp_path, fp32, backend, number):
    """Nine hundred steps, four pictures: the end would be minutes away."""
    process = started("generate", "a fox", "--bundle", fp32, "--backend", backend, "--steps", 900,
                      "-n", 4, "-o", tmp_path, "--no-cache", "--scheduler", "ddim")  # fmt: skip
    assert process.stderr is not None
    assert "900 steps" in process.stderr.readline()
    time.sleep(1)  # loading, or drawing
    send(process, number)
    code, error = ended(process)
    assert (code, error) == (130, "nano-generate: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_at_any_moment_it_ends_and_leaves_nothing(tmp_path, full, backend):
    """Loading, compiling, encoding, UNet calls, decoding, writing: most of the time is native code's."""
    pytest.importorskip(backend)
    arguments = ("an otter", "--backend", backend, "--threads", 1, "--steps", 3, "-n", 2, "-o", tmp_path, "--no-cache")
    began = time.monotonic()
    process = started("generate", *arguments)
    assert process.stderr is not None
    process.stderr.readline()
    announced = time.monotonic()
    assert ended(process)[0] == 0
    seconds = time.monotonic() - announced
    dice = random.Random(backend)  # noqa: S311 - to be repeated
    waits: list[float] = []
    for case in range(500 if full else 1):
        for path in tmp_path.iterdir():
            path.unlink()
        number = (signal.SIGTERM, signal.SIGINT)[case % 2]
        process = started("generate", *arguments)
        if case % 5 < 4:
            assert process.stderr is not None
            process.stderr.readline()
        else:  # also before the first word, but not in Python's own start
            time.sleep(0.3 * (announced - began))
        time.sleep(dice.uniform(0, seconds))
        sent = time.monotonic()
        send(process, number)
        code, error = ended(process)
        waits.append(time.monotonic() - sent)
        assert (code, "Traceback" in error) in {(130, False), (0, False)}, error
        for path in tmp_path.iterdir():  # finished pictures, and nothing else
            read_parameters(path)
    print(f"{backend}: {len(waits)} ends, the longest took {max(waits):.2f} s")  # noqa: T201 - with -s


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_measuring_stops_and_takes_its_processes_along(tmp_path, fp32, number):
    report = tmp_path / "report.json"
    process = started("bench", fp32, "--steps", 900, "--backend", "onnxruntime", "--json", report)
    while not has_child(process):  # a busy machine starts it late
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(3)  # it draws or loads
    send(process, number)
    code, error = ended(process)  # which returns when nobody holds the pipes any more
    assert (code, error) == (130, "nano-bench: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def has_child(process: subprocess.Popen[str]) -> bool:
    """Return whether any thread of a process has started another one."""
    for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            if children.read_text():
                return True
    return False


def test_a_signal_that_nobody_catches_ends_otherwise():
    """The control: without our handler, the code is another."""
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
