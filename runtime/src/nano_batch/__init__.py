"""Draws the pictures of a whole list: goes on where it was ended, and leaves a folder that other tools open.

``nano_batch.Draw`` is the part that draws; pipelines of Ray Data, Daft or Spark can use it, too. Importing the package
imports no engine and not even numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nano_batch.draw import Draw
    from nano_batch.wanted import Source, Wanted

__all__ = ["Draw", "Source", "Wanted"]

_HOMES = {"Draw": "draw", "Source": "wanted", "Wanted": "wanted"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
