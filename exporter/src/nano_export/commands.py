"""Starts the command: Ctrl-C and SIGTERM end it also while it reads its modules; see ``nano_runtime.commands``."""

from __future__ import annotations

from nano_runtime.commands import ended, ended_by_signals

__all__ = ["export"]


def export() -> int:
    """Run ``nano-export`` and return its exit code."""
    with ended_by_signals("nano-export"):
        from nano_export.cli import main

        return ended(main())
