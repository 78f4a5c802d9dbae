"""Starts Python processes that import nothing from the current folder, which may be a bundle.

``python -m`` looks there first for every module, the standard library's too. A bundle may have a file ``json.py`` in
its list.
"""

from __future__ import annotations

import sys

__all__ = ["module_command"]

_HAS_SAFE_PATH = sys.version_info >= (3, 11)
# Where Python has no -P: the first line runs before any import.
_PROGRAM = (
    "import sys; sys.path.pop(0); import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(module: str) -> list[str]:
    """Return the beginning of a command line that runs a module; its arguments follow."""
    if _HAS_SAFE_PATH:
        return [sys.executable, "-P", "-m", module]
    return [sys.executable, "-c", _PROGRAM, module]
