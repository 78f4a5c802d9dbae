"""Starts Python processes that import nothing from the current folder, which may be a bundle.

``python -m`` and the processes of ``multiprocessing`` look there first for every module, the standard library's too. A
bundle may have a file ``json.py`` in its list.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["module_command", "spawning"]

_HAS_SAFE_PATH = sys.version_info >= (3, 11)
_VARIABLE = "PYTHONSAFEPATH"
# Where Python has no -P: the first line runs before any import.
_PROGRAM = (
    "import sys; sys.path.pop(0); import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(module: str) -> list[str]:
    """Return the beginning of a command line that runs a module; its arguments follow."""
    if _HAS_SAFE_PATH:
        return [sys.executable, "-P", "-m", module]
    return [sys.executable, "-c", _PROGRAM, module]


@contextmanager
def spawning() -> Iterator[None]:
    """Start processes of ``multiprocessing`` inside this block: those of the method "spawn", and their helpers.

    Before Python 3.11 they begin in this package's folder, so that they need absolute paths.
    """
    before = os.environ.get(_VARIABLE)
    folder = None if _HAS_SAFE_PATH else Path.cwd()
    os.environ[_VARIABLE] = "1"
    if folder is not None:
        os.chdir(Path(__file__).parents[2])
    try:
        yield
    finally:
        if folder is not None:
            os.chdir(folder)
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
