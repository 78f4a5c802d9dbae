"""Keeps compiled modules for the next start: a child that may not write them leaves that to its parent.

Installers such as uv leave compiling to the first import. If none could ever write, every start would compile anew.
"""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["compile_modules", "uncompiled_modules"]


def uncompiled_modules(before: Collection[str]) -> list[str]:
    """Return the sources of imported modules whose compiled form is missing or older, and could be written.

    Args:
        before: names of modules that were imported while that could still be written.
    """
    return [] if sys.dont_write_bytecode else list(_uncompiled(before))


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


def _uncompiled(before: Collection[str]) -> Iterator[str]:
    """Yield the sources that ``uncompiled_modules`` returns."""
    for name, module in list(sys.modules.items()):
        if name in before:
            continue
        spec = getattr(module, "__spec__", None)
        source, kept = getattr(spec, "origin", None), getattr(spec, "cached", None)
        if not (isinstance(source, str) and isinstance(kept, str) and source.endswith(".py")):
            continue
        try:
            if os.stat(kept).st_mtime >= os.stat(source).st_mtime:  # noqa: PTH116 - hundreds of them, at every start
                continue
        except OSError:
            pass
        folder = Path(kept).parent
        if os.access(folder if folder.is_dir() else folder.parent, os.W_OK):
            yield source
