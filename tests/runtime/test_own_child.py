"""The process that draws for a command: it can be ended, it reaches its own files only, and its death is an error.

Stand-ins for the work do what an engine might. They run in the place of the real work, behind the real command.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nano_runtime.errors import EngineDiedError
from nano_runtime.system import bytecode
from nano_runtime.system.confinement import LEAST_MEMORY, memory_for_child
from nano_runtime.system.landlock import landlock_version
from nano_runtime.system.messages import Channel, ChannelError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands draw in a child on Linux")
needs_landlock = pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock, or forbids it")

# argv: "child", "patient" (a child has a minute to end) or "here", the lines of the stand-in, arguments of the command
STAND_IN = """
import ctypes, json, os, signal, socket, subprocess, sys, time
from pathlib import Path
from nano_runtime.cli import generate
from nano_runtime.system import forked
how, lines, *arguments = sys.argv[1:]
if how == "patient":
    forked._GRACE_S = 60.0
def work(options, _listed, output, cache, desk):
    exec(lines, {**globals(), "options": options, "output": output, "cache": cache, "desk": desk})
    return 0
generate._work = work
sys.argv[1:] = arguments
sys.exit(generate.main(arguments if how == "here" else None))
"""


def started(folder: Path, lines: str, *arguments: str, how: str = "child") -> subprocess.Popen[str]:
    """The command with a stand-in, in a session of its own."""
    command = [sys.executable, "-c", STAND_IN, how, lines, "a fox", "--cache", str(folder / "cache"), *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def done(folder: Path, lines: str, *arguments: str, how: str = "child") -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    with started(folder, lines, *arguments, how=how) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


TRIES = """
reached = []
def tried(name, what):
    try:
        what()
    except (OSError, subprocess.SubprocessError):
        return
    reached.append(name)
tried("passwd", lambda: open("/etc/passwd").read())
tried("home", lambda: Path(SECRET).read_text())
tried("bundle", lambda: (options.bundle / "new").touch())
tried("weights", lambda: (options.bundle / "LICENSE").open("r+").close())
tried("folder", lambda: Path("new").touch())
tried("connect", lambda: socket.create_connection(("127.0.0.1", PORT), 5).close())
tried("listen", lambda: socket.create_server(("127.0.0.1", 0)).close())
tried("program", lambda: subprocess.run(["/bin/true"], check=True))
tried("signal", lambda: os.kill(os.getppid(), 0))
tried("environment", lambda: open(f"/proc/{os.getppid()}/environ").read())
tried("read bundle", lambda: (options.bundle / "manifest.json").read_text())
tried("write cache", lambda: ((cache / "a").write_text("a"), (cache / "a").rename(cache / "b"), (cache / "b").unlink()))
tried("null", lambda: open("/dev/null", "w").close())
import numpy
print(json.dumps(reached))
"""
MAY, MAY_NOT = (
    {"read bundle", "write cache", "null"},
    {
        *("passwd", "home", "bundle", "weights", "folder", "connect", "listen", "program", "signal", "environment"),
    },
)


@needs_landlock
def test_the_process_that_draws_reaches_its_bundle_and_the_cache_alone(tmp_path, hoisted):
    (tmp_path / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        lines = TRIES.replace("SECRET", repr(str(tmp_path / "secret"))).replace("PORT", str(server.getsockname()[1]))
        allowed = {}
        for how in ("child", "here"):
            code, out, err = done(tmp_path, lines, "--bundle", str(hoisted.path), how=how)
            assert code == 0, err
            allowed[how] = set(json.loads(out))
        for name in ("new", "cache/a"):
            (tmp_path / name).unlink(missing_ok=True)
        (hoisted.path / "new").unlink(missing_ok=True)
    newer = {"connect", "listen"} if landlock_version() < 4 else set()
    newer |= {"signal"} if landlock_version() < 6 else set()
    assert allowed["child"] - newer == MAY
    assert allowed["here"] == MAY | MAY_NOT  # the control: without the child, each of them can be


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        ("ctypes.string_at(0)", signal.SIGSEGV),
        ("os.write(2, b'terminate called\\x1b[31m'); os.abort()", signal.SIGABRT),
        ("os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL),
    ],
)
def test_the_death_of_an_engine_is_an_error_of_two_lines(tmp_path, lines, number):
    code, out, err = done(tmp_path, f"desk.go_on('1 of 2 pictures are finished'); {lines}", "--bundle", "some")
    expected = EngineDiedError(Path("some"), -number)
    said = ["terminate called\\x1b[31m"] if number == signal.SIGABRT else []
    told = ["1 of 2 pictures are finished", f"nano-generate: {expected.what}", expected.hint]
    assert (code, out, sorted(err.splitlines())) == (3, "", sorted([*said, *told]))
    assert (number.name in expected.what, "verify --deep" in expected.hint) == (True, number != signal.SIGKILL)


HANGING = (
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('hangs', os.getpid(), file=sys.stderr)\nwhile True: pass"
)
TIDY = (
    "try:\n    print('waits', os.getpid(), file=sys.stderr)\n    time.sleep(60)\n"
    "finally: print('tidied', file=sys.stderr)"
)


@pytest.mark.parametrize(
    ("lines", "signals"),
    [
        (HANGING, (signal.SIGINT,)),
        (HANGING, (signal.SIGTERM,)),
        (HANGING, (signal.SIGTERM, signal.SIGTERM)),
        (TIDY, (signal.SIGINT,)),
        (TIDY, (signal.SIGTERM,)),
    ],
    ids=["deaf-int", "deaf-term", "deaf-twice", "tidy-int", "tidy-term"],
)
def test_a_signal_ends_it_whatever_it_does(tmp_path, lines, signals):
    how = "patient" if lines == TIDY else "child"
    with started(tmp_path, f"desk.go_on('the rest')\n{lines}", how=how) as process:
        assert process.stderr is not None
        child = int(process.stderr.readline().split()[1])
        for number in signals:
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            time.sleep(0.1)
        err = process.stderr.read()
    assert process.returncode == 130
    tidied = lines == TIDY
    assert (err.splitlines()[-1], "tidied" in err) == ("nano-generate: interrupted", tidied)
    assert "the rest" in err
    assert not Path(f"/proc/{child}").exists()


def test_it_does_not_outlive_the_command(tmp_path):
    with started(tmp_path, HANGING) as process:
        assert process.stderr is not None
        child = int(process.stderr.readline().split()[1])
        process.kill()
    for _ in range(500):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.02)
    pytest.fail("it is still there")


@pytest.mark.parametrize(
    ("lines", "arguments"),
    [
        ("desk.write(Path('other.png'), b'x')", ("-o", "fox.png")),
        ("desk.write(Path('../fox.png'), b'x')", ("-o", "fox.png")),
        ("desk.write(Path('fox-cells/1.png'), b'x')", ("-o", "fox.png")),
        ("desk.read(Path('/etc/passwd'))", ("-o", "fox.png")),
        ("desk.remove([Path('fox.png')])", ("--grid", "steps=1,2", "-o", "fox.png")),
        ("desk.write(Path('nano-x.png'), b'x')", ()),
        ("desk.write(None, b'x')", ()),
        ("desk._channel.send({'pickle': 'x'})", ()),
        ("os.write(desk._channel.writing, b'x' * 100)", ()),
    ],
)
def test_nothing_is_written_that_the_command_line_does_not_name(tmp_path, lines, arguments):
    code, out, err = done(tmp_path, lines + "\ntime.sleep(60)", *arguments)
    assert (code, out) == (3, ""), err
    assert "has no business with" in err or "SIGKILL" in err
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_what_it_names_is_written_and_what_is_printed_is_escaped(tmp_path):
    lines = """
desk.write(Path("fox-cells/1.png"), b"cell")
desk.write(Path("fox-cells/1.png"), desk.read(Path("fox-cells/1.png")) + b"s")
desk.write(Path("fox.png"), b"sheet")
print("a\\x1b[31mb")
"""
    code, out, err = done(tmp_path, lines, "--grid", "steps=1,2", "-o", "fox.png")
    assert (code, out, err) == (0, "a\\x1b[31mb\n", "")
    assert (tmp_path / "fox-cells" / "1.png").read_bytes() == b"cells"
    code, out, err = done(tmp_path, "desk.remove([Path('fox-cells/1.png')])", "--grid", "steps=1,2", "-o", "fox.png",
                          "--force")  # fmt: skip
    assert (code, [*tmp_path.rglob("fox*")]) == (0, [tmp_path / "fox.png"])


def test_a_bug_shows_its_traceback(tmp_path):
    code, _, err = done(tmp_path, "1 / 0")
    assert (code, err.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")


def test_memory_is_limited_by_what_the_machine_has(tmp_path):
    most = memory_for_child()
    assert most is not None
    assert most >= LEAST_MEMORY
    lines = "import resource; print(resource.getrlimit(resource.RLIMIT_DATA)[0]); bytearray(1 << 46)"
    code, out, err = done(tmp_path, lines)
    assert (code, err.splitlines()[0]) == (4, "nano-generate: this machine ran out of memory")
    assert 0.5 * most < int(out) < 2 * most


def test_messages_are_taken_whole_or_not_at_all():
    reading, writing = os.pipe()
    channel = Channel(reading, writing)
    channel.send({"a": "ü\ud800"}, b"12", bytearray(b"345"))
    assert channel.receive() == ({"a": "ü\ud800"}, bytearray(b"12345"))
    os.write(writing, (2).to_bytes(4, "little") + (0).to_bytes(8, "little") + b"[]")
    with pytest.raises(ChannelError):
        channel.receive()
    os.write(writing, (2).to_bytes(4, "little") + (1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ChannelError):
        channel.receive()
    channel.close()


def test_modules_are_compiled_where_they_belong_alone(tmp_path, monkeypatch):
    ours, others = tmp_path / "ours", tmp_path / "others"
    for folder in (ours, others):
        folder.mkdir()
        (folder / "thing.py").write_text("a = 1\n")
    monkeypatch.setattr(sys, "path", [str(ours)])
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    bytecode.compile_modules([str(ours / "thing.py"), str(others / "thing.py"), str(ours / "nothing.py"), "\0"])
    assert [path.parent.parent.name for path in tmp_path.rglob("*.pyc")] == ["ours"]


def test_an_error_that_an_interruption_became_is_the_interruption(tmp_path):
    lines = """
print('waits', os.getpid(), file=sys.stderr)
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise ImportError("initialization failed")
"""
    with started(tmp_path, lines) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.terminate()
        err = process.stderr.read()
    assert (process.returncode, err) == (130, "nano-generate: interrupted\n")
