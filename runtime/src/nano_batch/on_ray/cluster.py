"""Joins a cluster of Ray, or starts one of this machine alone, and tells of its nodes."""

from __future__ import annotations

import os
import signal
import socket  # noqa: TID251 - only the head of the cluster is asked
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from nano_batch.on_ray.errors import AddressError, ClusterError
from nano_batch.on_ray.extra import require_ray
from nano_runtime.errors.escaping import first_line

__all__ = ["Node", "has_head", "joined", "nodes_of"]

_STORE_BYTES: Final = 80 << 20
"""Shared memory of a cluster of this machine: hardly more than the least that Ray takes. No picture goes through it."""

_HEAD_ANSWERS_S: Final = 2.0


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: that Ray gave it.
        name: its host's name and address.
        cpus: processors that Ray counts on it.
    """

    id: str
    name: str
    cpus: int


@contextmanager
def joined(address: str | None) -> Iterator[Any]:
    """Yield the module ``ray``, connected to a cluster; leave it afterwards.

    A process that is connected already stays so.

    Args:
        address: of the cluster, or ``auto`` for the one of this node; None starts one of this machine alone, which
            ends with this process.

    Raises:
        RayMissingError: Ray is not installed.
        AddressError: the address is of a Ray client.
        ClusterError: there is no cluster, or it does not let this process in.
    """
    require_ray()
    if address is not None and address.startswith("ray://"):
        raise AddressError(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray: Any = import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES} if address is None else {}
    try:
        with _signals_as_they_are():
            ray.init(address=address or "local", **own, **quiet)
    except Exception as error:  # Ray raises many kinds here, and Exception itself
        there = "a cluster on this machine cannot be started" if address is None else f"no cluster answers at {address}"
        raise ClusterError(
            f"{there}: {first_line(error)}",
            "See with `ray status` whether it runs and is of the same release of Ray and Python, "
            "and whether RAY_AUTH_MODE and the token are the same here and there.",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def has_head(ray: Any) -> bool:  # noqa: ANN401 - a module without types
    """Return whether the head node takes connections.

    Ray's own calls wait for it, for 60 seconds unless it is told otherwise, and then end this process.
    """
    host, port = ray.get_runtime_context().gcs_address.rsplit(":", 1)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _HEAD_ANSWERS_S):
            return True
    except OSError:
        return False


def nodes_of(ray: Any) -> list[Node]:  # noqa: ANN401 - a module without types
    """Return the nodes that are alive and have processors."""
    return [
        Node(
            str(node["NodeID"]),
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            int(node["Resources"].get("CPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]


@contextmanager
def _signals_as_they_are() -> Iterator[None]:
    """Undo what Ray does to SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
