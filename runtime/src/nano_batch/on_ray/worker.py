"""The process on a node: opens the bundle once, and draws units of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nano_batch.draw import Draw
from nano_batch.job import JOB
from nano_batch.wanted import Wanted
from nano_runtime import NanoError, __version__
from nano_runtime.errors.escaping import first_line
from nano_runtime.system.processors import usable_cores

__all__ = ["Worker"]


class Worker:
    """One actor of Ray. It returns what is wrong with its node instead of raising it: errors do not travel well.

    Args:
        kind: of what draws.
        arguments: that it is made with; ``threads`` None for the processors of this actor.
        cpus: processors of this actor.
        version: of the driver's program.
    """

    def __init__(self, kind: type[Draw], arguments: Mapping[str, Any], cpus: int, version: str) -> None:
        threads = min(cpus, usable_cores()) if arguments["threads"] is None else arguments["threads"]
        self._draw = kind(**{**arguments, "threads": threads})
        self._version = version

    def fault(self) -> str | None:
        """Open the bundle, and return what keeps this node from drawing; None if nothing does."""
        if self._version != __version__:
            return f"it has release {__version__} of this program, and the driver has {self._version}"
        if not (self._draw.out / JOB).is_file():
            return f"{self._draw.out} is not there: the job's folder has to be shared"
        try:
            self._draw.pipeline  # noqa: B018 - opens the bundle
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver names the node
            return _said(error)
        return None

    def draw(self, unit: list[dict[str, Any]]) -> list[dict[str, Any]] | str:
        """Draw pictures that share a call, and return their records; or what keeps this node from drawing."""
        try:
            return self._draw.draw([Wanted.from_dict(one) for one in unit])
        except Exception as error:  # noqa: BLE001 - see above
            return _said(error)


def _said(error: Exception) -> str:
    return error.what if isinstance(error, NanoError) else f"{type(error).__name__}: {first_line(error)}"
