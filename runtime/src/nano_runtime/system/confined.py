"""Runs a module in a process that was confined first: ``python -m nano_runtime.system.confined WITHIN MODULE ...``.

It comes before the module, because threads that exist already, as those of numpy, are not bound.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path

from nano_runtime.system.confinement import Confinement, die_with_parent

__all__ = ["described"]


def described(within: Confinement) -> str:
    """Return the first argument, for a process that the calling one starts.

    It dies with the thread that starts it, and does not hear Ctrl-C, which a terminal sends to all.
    """
    given = {
        "parent": os.getpid(),
        "reads": list(map(str, within.reads)),
        "writes": list(map(str, within.writes)),
        "memory": within.memory_bytes,
    }
    return json.dumps(given)


def main(within: str, module: str, *arguments: str) -> None:
    """Confine this process, and run the module in it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given = json.loads(within)
    die_with_parent(given["parent"])
    reads, writes = (tuple(map(Path, given[kind])) for kind in ("reads", "writes"))
    Confinement(reads, writes, given["memory"]).apply()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
