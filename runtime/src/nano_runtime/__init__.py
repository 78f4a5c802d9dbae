"""Draw pictures with Stable Diffusion Nano on a CPU, from a bundle that ``nano-export`` wrote.

    from nano_runtime import Pipeline
    pipe = Pipeline.from_pretrained("bundle")
    pipe("a red fox", seed=0).save("fox.png")

``__all__`` is the public face: these names stay, all others may move. Importing the package imports no engine and not
even numpy; each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from nano_runtime.version import __version__

if TYPE_CHECKING:
    from nano_runtime.bundle.folder import Bundle
    from nano_runtime.drawing.events import Progress, Result
    from nano_runtime.errors import BundleError, MachineError, NanoError, NetworkError, RowsError, UsageError
    from nano_runtime.options import DrawOptions
    from nano_runtime.pictures.png import read_foreign, read_parameters, save_png
    from nano_runtime.pictures.source import open_picture
    from nano_runtime.pipeline import Pipeline
    from nano_runtime.rows.reading import read_rows
    from nano_runtime.rows.row import Row
    from nano_runtime.sampling.sampler_names import sampler_names
    from nano_runtime.verify.checks import verify_bundle

__all__ = [
    "Bundle",
    "BundleError",
    "DrawOptions",
    "MachineError",
    "NanoError",
    "NetworkError",
    "Pipeline",
    "Progress",
    "Result",
    "Row",
    "RowsError",
    "UsageError",
    "__version__",
    "open_picture",
    "read_foreign",
    "read_parameters",
    "read_rows",
    "sampler_names",
    "save_png",
    "verify_bundle",
]

_HOMES = {
    "Bundle": "bundle.folder",
    "BundleError": "errors",
    "DrawOptions": "options",
    "MachineError": "errors",
    "NanoError": "errors",
    "NetworkError": "errors",
    "Pipeline": "pipeline",
    "Progress": "drawing.events",
    "Result": "drawing.events",
    "Row": "rows.row",
    "RowsError": "errors",
    "UsageError": "errors",
    "open_picture": "pictures.source",
    "read_foreign": "pictures.png",
    "read_parameters": "pictures.png",
    "read_rows": "rows.reading",
    "sampler_names": "sampling.sampler_names",
    "save_png": "pictures.png",
    "verify_bundle": "verify.checks",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
