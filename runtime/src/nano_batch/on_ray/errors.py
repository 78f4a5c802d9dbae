"""Errors of clusters."""

from __future__ import annotations

from collections.abc import Sequence

from nano_runtime import MachineError, UsageError

__all__ = ["AddressError", "ClusterError", "NoNodeError", "StalledError"]

_MOST_NAMED = 5


class AddressError(UsageError):
    """An address that this engine does not take.

    Args:
        address: as it was given.
    """

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is the address of a Ray client, through which pictures cannot be drawn",
            "Start nano-batch on a node of the cluster (also with `ray job submit`), with --ray-address auto.",
        )


class ClusterError(MachineError, ConnectionError):
    """There is no cluster to draw on.

    Args:
        what: happened.
        hint: what to do.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)


class NoNodeError(MachineError):
    """No node can draw.

    Args:
        reasons: each node's name, and why; nodes of one machine share a name.
    """

    def __init__(self, reasons: Sequence[tuple[str, str]]) -> None:
        shown = "; ".join(f"{node}: {why}" for node, why in reasons[:_MOST_NAMED])
        more = f"; and {len(reasons) - _MOST_NAMED} more" if len(reasons) > _MOST_NAMED else ""
        super().__init__(
            f"no node can draw: {shown}{more}",
            "Every node needs this program, the bundle and the job's folder, all under the paths that they have here.",
        )


class StalledError(MachineError, TimeoutError):
    """Nothing has happened for too long.

    Args:
        seconds: that nothing happened.
        state: of the cluster, in words.
    """

    def __init__(self, seconds: float, state: str) -> None:
        super().__init__(
            f"nothing has happened for {seconds:.0f} seconds: {state}",
            "See with `ray status` who has the processors. The same command goes on where this one ended; "
            "--ray-patience SECONDS makes it wait longer, --ray-cpus N takes fewer processors of a node.",
        )
