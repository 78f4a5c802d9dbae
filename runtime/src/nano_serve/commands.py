"""Starts the command: Ctrl-C and SIGTERM end it also while it reads its modules; see ``nano_runtime.commands``."""

from __future__ import annotations

from nano_runtime.commands import ended_by_signals

__all__ = ["serve"]


def serve() -> int:
    """Run ``nano-serve`` and return its exit code."""
    with ended_by_signals("nano-serve"):
        from nano_serve.cli import main

        return main()
