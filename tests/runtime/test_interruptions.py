"""Ctrl-C and SIGTERM end a command from its first line on, and are not lost where Python or a library swallows them."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

# argv: the number of a signal, and the module at whose import it comes
AT_IMPORT = """
import signal, sys
number, name, entry = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1)
class Sender:
    def find_spec(self, module, *_):
        if module == name:
            signal.raise_signal(int(number))
sys.meta_path.insert(0, Sender())
package, _, command = entry.partition(":")
start = getattr(__import__(package + ".commands", fromlist=[command]), command)
sys.argv.append("--version")
sys.exit(start())
"""
# argv: how the signal is swallowed
SWALLOWED = """
import signal, sys, time, weakref
from nano_runtime.cli import make_parser, run_command
import argparse
def work(options):
    if sys.argv[1] == "dropped":  # Python's import system has such callbacks
        class Gone: pass
        kept = weakref.ref(gone := Gone(), lambda _: signal.raise_signal(signal.SIGTERM))
        del gone
        time.sleep(30)
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:  # as engines do that are written in C++
        raise ImportError("initialization failed")
    return 0
if sys.argv[2:] == ["bare"]:
    def end(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, end)
    time.sleep = lambda _: sys.exit(7)
    sys.exit(work(None))
sys.exit(run_command(make_parser("nano-x", "", ""), argparse.Namespace(), work, []))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, check=False, timeout=25)


@pytest.mark.parametrize("number", [2, 15])
@pytest.mark.parametrize(
    ("module", "entry"),
    [
        ("argparse", "nano_runtime:generate"),
        ("nano_runtime.cli.bench", "nano_runtime:bench"),
        ("nano_runtime.bundle.folder", "nano_runtime:bundle"),
        ("nano_serve.cli", "nano_serve:serve"),
    ],
)
def test_a_signal_before_the_first_word_ends_a_command_with_its_code_and_no_traceback(number, module, entry):
    done = run(AT_IMPORT, str(number), module, entry)
    name = entry.partition(":")[2]
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"nano-{name}: interrupted\n")


def test_without_a_signal_the_command_goes_on():
    """The control."""
    done = run(AT_IMPORT, "2", "nobody", "nano_runtime:generate")
    assert (done.returncode, done.stdout.partition(" ")[0]) == (0, "nano-generate")


@pytest.mark.parametrize("how", ["dropped", "another error"])
def test_what_is_swallowed_comes_again(how):
    done = run(SWALLOWED, how)
    assert (done.returncode, done.stderr) == (130, "nano-x: interrupted\n")


@pytest.mark.parametrize(("how", "code"), [("dropped", 7), ("another error", 1)])
def test_without_us_it_is_swallowed(how, code):
    """The control: with a plain handler, the work goes on, or ends in a traceback."""
    assert run(SWALLOWED, how, "bare").returncode == code


def test_a_signal_while_python_ends_changes_no_exit_code():
    ends = "class End:\n    def __del__(self): signal.raise_signal(signal.SIGINT)\nend = End()\nsys.exit(start())"
    done = run(AT_IMPORT.replace("sys.exit(start())", ends), "2", "nobody", "nano_runtime:generate")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupted_command_waits_for_no_thread():
    code = (
        "import hashlib, sys, threading\nfrom nano_runtime.commands import ended\n"
        "work = lambda: hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 30)\n"
        "threading.Thread(target=work).start()\nprint(ended(0))\nsys.exit(ended(130))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "0\n", "")
