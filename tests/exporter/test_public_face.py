"""The names that ``nano_export`` offers: all there, imported late, and the function is not hidden by a module."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import nano_export
from nano_runtime.errors import NanoError

NAMES = [
    "Adopted", "AdoptionError", "CheckpointError", "EmbeddingError", "EmbeddingFile", "Exported", "HubFilesError",
    "ImageSizeError", "LoraError", "LoraFile", "Options", "ParityError", "PickleFileError", "PickleOnlyError",
    "Progress", "SingleFileError", "SingleFileOptions", "UnsupportedModelError", "VocabularyNotFoundError", "adopt",
    "export",
]  # fmt: skip


def test_it_offers_these_names():
    assert sorted(nano_export.__all__) == NAMES
    assert dir(nano_export) == NAMES
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nano_export.nothing


def test_each_can_be_imported_and_means_what_it_says():
    offered = {name: getattr(nano_export, name) for name in NAMES}
    assert callable(offered["export"])
    assert all(issubclass(offered[name], NanoError) for name in NAMES if name.endswith("Error"))
    assert nano_export.export is offered["export"]


def test_options_are_complete_but_for_the_output():
    required = [field.name for field in fields(nano_export.Options) if not hasattr(nano_export.Options, field.name)]
    assert required == ["output"]
    assert nano_export.Options(output=Path("x")) == nano_export.Options(output=Path("x"))


def test_nothing_heavy_is_imported_for_the_options():
    code = (
        "import sys, nano_export; nano_export.Options, nano_export.Progress, nano_export.LoraError;"
        "print({'torch', 'numpy', 'onnx_ir', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
