"""Says which command installs Ray."""

from __future__ import annotations

from importlib.util import find_spec

from nano_runtime import MachineError
from nano_runtime.errors.wording import how_to_install

__all__ = ["RayMissingError", "require_ray"]


class RayMissingError(MachineError, ImportError):
    """The extra ``ray`` is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "--engine ray needs the package ray, which is not installed",
            how_to_install("ray", "ray>=2.60", where=" here and on every node"),
        )


def require_ray() -> None:
    """Check that Ray is installed; it is not imported.

    Raises:
        RayMissingError: it is not.
    """
    if find_spec("ray") is None:
        raise RayMissingError
