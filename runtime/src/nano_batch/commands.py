"""Starts the command: Ctrl-C and SIGTERM end it also while it reads its modules; see ``nano_runtime.commands``."""

from __future__ import annotations

from nano_runtime.commands import ended, ended_by_signals

__all__ = ["batch"]


def batch() -> int:
    """Run ``nano-batch`` and return its exit code."""
    with ended_by_signals("nano-batch"):
        from nano_batch.cli import main

        return ended(main())
