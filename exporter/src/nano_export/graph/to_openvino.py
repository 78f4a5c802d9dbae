"""ONNX to OpenVINO IR: the only importer of openvino in the exporter.

The same QDQ graph serves both engines; the IR is the form OpenVINO loads fastest and maps into memory.
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
    """Convert a graph; the ``.bin`` with its weights is written beside the ``.xml``, in the precision of the graph.

    Raises:
        OutputError: the disk is full, or refuses otherwise.
    """
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": True})
    model = core.read_model(onnx_path)
    try:
        openvino.save_model(model, xml_path, compress_to_fp16=False)
    except RuntimeError as error:  # which says that a stream failed, not why
        free = shutil.disk_usage(xml_path.parent).free
        raise OutputError(xml_path, f"openvino could not write it; {free / 1e6:.0f} MB are free there") from error
