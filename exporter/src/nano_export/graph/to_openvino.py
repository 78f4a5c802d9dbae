"""Converts ONNX to OpenVINO IR, the form that OpenVINO loads fastest and maps into memory.

This is the exporter's only importer of openvino. The same QDQ graph serves both engines.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # see nano_runtime/engines/openvino.py

import openvino

from nano_runtime.errors import OutputError

__all__ = ["write_ir"]


def write_ir(onnx_path: Path, xml_path: Path) -> None:
    """Convert a graph; its weights go into a ``.bin`` beside the ``.xml``, in the precision of the graph.

    Raises:
        OutputError: the file cannot be written; the disk may be full.
    """
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": True})
    model = core.read_model(onnx_path)
    try:
        openvino.save_model(model, xml_path, compress_to_fp16=False)
    except RuntimeError as error:  # its message says that a stream failed, not why
        free = shutil.disk_usage(xml_path.parent).free
        raise OutputError(xml_path, f"openvino could not write it; {free / 1e6:.0f} MB are free there") from error
