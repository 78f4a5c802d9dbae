"""Turns a Stable Diffusion checkpoint into a bundle for ``nano_runtime``: ONNX and OpenVINO graphs, fp32 or INT8.

    from pathlib import Path
    from nano_export import Exported, Options, export

    for event in export(Options(model="./my-fine-tune", output=Path("mine"), precision="int8")):
        print(event.path if isinstance(event, Exported) else f"{event.done:.0%} {event.stage}")

Importing this package imports neither torch nor numpy; the first use of ``export`` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nano_export.adoption.adopting import Adopted, adopt
    from nano_export.errors import (
        AdoptionError,
        CheckpointError,
        EmbeddingError,
        HubFilesError,
        ImageSizeError,
        LoraError,
        ParityError,
        PickleFileError,
        PickleOnlyError,
        SingleFileError,
        UnsupportedModelError,
        VocabularyNotFoundError,
    )
    from nano_export.exporting import Exported, export
    from nano_export.options import EmbeddingFile, LoraFile, Options, SingleFileOptions
    from nano_export.progress import Progress

__all__ = [
    "Adopted",
    "AdoptionError",
    "CheckpointError",
    "EmbeddingError",
    "EmbeddingFile",
    "Exported",
    "HubFilesError",
    "ImageSizeError",
    "LoraError",
    "LoraFile",
    "Options",
    "ParityError",
    "PickleFileError",
    "PickleOnlyError",
    "Progress",
    "SingleFileError",
    "SingleFileOptions",
    "UnsupportedModelError",
    "VocabularyNotFoundError",
    "adopt",
    "export",
]

_HOMES = {
    "Adopted": "adoption.adopting",
    "EmbeddingFile": "options",
    "Exported": "exporting",
    "LoraFile": "options",
    "Options": "options",
    "Progress": "progress",
    "adopt": "adoption.adopting",
    "SingleFileOptions": "options",
    "export": "exporting",
}


def __getattr__(name: str) -> object:
    """Import the module of a name when the name is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    """List the names above, imported or not."""
    return sorted(__all__)
