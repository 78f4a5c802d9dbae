"""What may be said about the use of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Rules"]


@dataclass(frozen=True)
class Rules:
    """How a cluster is used.

    Attributes:
        address: of the cluster; see ``cluster.joined``.
        cpus: processors of each process; None takes all of its node.
        patience_s: longest time that a unit takes, or that nothing happens.
    """

    address: str | None = None
    cpus: int | None = None
    patience_s: float = 900.0
