"""Says which command installs what the server needs beside the runtime."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from nano_runtime import MachineError

__all__ = ["ServeMissingError", "require"]

_PACKAGES: Final = ("starlette", "uvicorn", "python_multipart")
_DISTRIBUTIONS: Final = ("starlette", "uvicorn", "python-multipart")


class ServeMissingError(MachineError, ImportError):
    """The extra ``serve`` is not installed.

    Args:
        package: that is missing.
    """

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed", f"Install it with: pip install {' '.join(_DISTRIBUTIONS)}"
        )


def require() -> None:
    """Check that everything is installed.

    Raises:
        ServeMissingError: something is not.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise ServeMissingError(package)
