"""Drawing sends nothing, runs nothing that it reads, and leaves nothing behind but what was asked for.

One drawing on each engine is watched from three sides: by Python's audit events, by the kernel (strace) where that is
allowed, and by being run on a machine without a network (a namespace) where that is.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CALLS = "connect,sendto,sendmsg,sendmmsg,bind"
# Runs nano-generate, or some lines of Python, and writes down what they did.
WATCHED = """
import json, sys
seen = []
def watch(event, args):
    if event.startswith(("socket.", "pickle.", "os.exec", "os.posix_spawn", "os.system", "subprocess.")):
        seen.append([event, *map(str, args[:2])])
sys.addaudithook(watch)
report, what, *arguments = sys.argv[1:]
if what == "python":
    exec(arguments[0])
else:
    from nano_runtime.cli.generate import main
    assert main(arguments) == 0
with open(report, "w") as file:
    json.dump(seen, file)
"""
DATAGRAM = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"


@dataclass(frozen=True)
class Seen:
    """What a process did: audit events, lines of a trace (None for not traced), and files in its folders."""

    events: list[list[str]]
    calls: list[str] | None
    files: set[str]


def works(*command: str) -> bool:
    """Whether a tool is installed and allowed here."""
    found = shutil.which(command[0])
    return found is not None and subprocess.run([found, *command[1:]], capture_output=True, check=False).returncode == 0


def watched(folder: Path, *what: str, network: bool) -> Seen:
    """Run something with a home, a temporary and a current folder of its own."""
    report, trace, places = folder / "report", folder / "trace", folder / "places"
    for name in ("cwd", "home", "temp", "cache"):
        (places / name).mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environment |= {"HOME": f"{places}/home", "TMPDIR": f"{places}/temp", "XDG_CACHE_HOME": f"{places}/cache"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", WATCHED, str(report), *what]
    if traced := works("strace", "-f", "-qq", "true"):
        command = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-o", str(trace), *command]
    if not network and works("unshare", "-rn", "true"):
        command = ["unshare", "-rn", *command]
    done = subprocess.run(command, cwd=places / "cwd", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Seen(
        events=json.loads(report.read_text()),
        calls=[line for line in trace.read_text().splitlines() if "(" in line] if traced else None,
        files={path.relative_to(places).as_posix() for path in places.rglob("*") if path.is_file()},
    )


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def drawing(request, tmp_path_factory, fp32) -> tuple[str, Seen]:
    """What drawing a picture does, with everything that a person gets unasked."""
    arguments = ["a fox", f"--bundle={fp32}", f"--backend={request.param}", "--steps=2", "--seed=1"]
    return request.param, watched(tmp_path_factory.mktemp("quiet"), "draw", *arguments, network=False)


def test_no_system_call_sends_anything(drawing):
    if drawing[1].calls is None:
        pytest.skip("needs strace, and leave to trace")
    assert drawing[1].calls == []


def test_no_socket_is_opened_nothing_is_unpickled_and_no_process_is_started(drawing):
    assert drawing[1].events == []


def test_no_file_is_left_but_the_picture_and_the_cache(drawing):
    backend, seen = drawing
    kept = {name for name in seen.files if name.startswith("cache/nano-runtime/nano-") and name.endswith(".blob")}
    assert seen.files - kept == {"cwd/nano-1.png"}
    assert (len(kept) > 0) == (backend == "openvino")


def test_the_watch_sees_all_of_that(tmp_path):
    unpickle = f"import pickle; pickle.loads({pickle.dumps(Path('x'))!r})"
    lines = [DATAGRAM, unpickle, "import os; os.system('true')", "open('stray', 'w').close()"]
    seen = watched(tmp_path, "python", "\n".join(lines), network=True)
    assert {"socket.sendto", "pickle.find_class", "os.system"} <= {event for event, *_ in seen.events}
    assert seen.calls is None or len(seen.calls) == 1
    assert seen.files == {"cwd/stray"}
