"""ONNX to OpenVINO IR: the only importer of openvino in the exporter.

The same QDQ graph serves both engines; the IR is the form OpenVINO loads fastest and maps into memory.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["OPENVINO_TELEMETRY_ENABLED"] = "0"  # conversion reports usage by default; this program reports nothing

import openvino

__all__ = ["write_ir"]


def write_ir(onnx_path: Path, xml_path: Path) -> None:
    """Convert a graph; the ``.bin`` with its weights is written beside the ``.xml``, in the precision of the graph."""
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": True})
    openvino.save_model(core.read_model(onnx_path), xml_path, compress_to_fp16=False)
