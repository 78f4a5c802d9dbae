"""Keeps compiled modules for the next start: a child that may not write them leaves that to its parent.

Installers such as uv leave compiling to the first import. If none could ever write, every start would compile anew.
"""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["compile_modules", "uncompiled_modules"]


def uncompiled_modules() -> list[str]:
    """Return the sources of imported modules whose compiled form is missing or older, and could be written."""
    return [] if sys.dont_write_bytecode else list(_uncompiled())


def compile_modules(sources: Iterable[str]) -> None:
    """Compile modules, each into its place in Python's cache; what is no module of this Python is passed over.

    Args:
        sources: paths, from a child that is not believed.
    """
    folders = [os.path.realpath(one) for one in {*sys.path, sys.prefix, sys.base_prefix} if one]
    for source in sources:
        with suppress(OSError, ValueError):
            real = os.path.realpath(source)
            if real.endswith(".py") and any(real.startswith(folder + os.sep) for folder in folders):
                py_compile.compile(source, doraise=False, quiet=2)


def _uncompiled() -> Iterator[str]:
    """Yield the sources that ``uncompiled_modules`` returns."""
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        source, kept = getattr(spec, "origin", None), getattr(spec, "cached", None)
        if not (isinstance(source, str) and isinstance(kept, str) and source.endswith(".py")):
            continue
        try:
            if Path(kept).stat().st_mtime >= Path(source).stat().st_mtime:
                continue
        except OSError:
            pass
        folder = Path(kept).parent
        if os.access(folder if folder.is_dir() else folder.parent, os.W_OK):
            yield source
