"""Has the pictures of a job drawn by a cluster of Ray: one process a node, which draws with all its cores."""

from __future__ import annotations

__all__: list[str] = []
