"""Converts ONNX to OpenVINO IR, the form that OpenVINO loads fastest and maps into memory.

This is the exporter's only importer of openvino. The same QDQ graph serves both engines.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # see nano_runtime/engines/openvino.py

import openvino

from nano_runtime.errors import OutputError

__all__ = ["can_write_tokenizer", "cut_ir", "read_ir", "save_ir", "write_ir", "write_tokenizer"]


def write_ir(onnx_path: Path, xml_path: Path) -> None:
    """Convert a graph; its weights go into a ``.bin`` beside the ``.xml``, in the precision of the graph.

    Raises:
        OutputError: the file cannot be written; the disk may be full.
    """
    save_ir(read_ir(onnx_path), xml_path)


def read_ir(path: Path) -> Any:  # noqa: ANN401 - openvino has no types
    """Read a graph, ONNX or IR; its weights stay mapped from the file."""
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": True})
    return core.read_model(path)


def save_ir(model: Any, xml_path: Path) -> None:  # noqa: ANN401
    """Write a graph; its weights go into a ``.bin`` beside the ``.xml``, in the precision that they have.

    Raises:
        OutputError: the file cannot be written; the disk may be full.
    """
    try:
        openvino.save_model(model, xml_path, compress_to_fp16=False)
    except RuntimeError as error:  # its message says that a stream failed, not why
        free = shutil.disk_usage(xml_path.parent).free
        raise OutputError(xml_path, f"openvino could not write it; {free / 1e6:.0f} MB are free there") from error


def cut_ir(model: Any, feature: str, inputs: Sequence[str]) -> Any:  # noqa: ANN401
    """Cut a graph at an output: return one that takes it as an input, and has all other outputs; see ``shallow_unet``.

    Args:
        model: with ``feature`` among its outputs; it does not change.
        feature: name of the tensor.
        inputs: names of the model's inputs that the rest needs, in their order; ``feature`` may be one of them.

    Raises:
        ValueError: the model has no such output.
    """
    graph = model.clone()
    found = [result for result in graph.get_results() if feature in result.output(0).get_names()]
    if len(found) != 1:
        raise ValueError(f"{len(found)} outputs are called {feature}")
    source = found[0].input_value(0)
    given = openvino.opset13.parameter(source.get_partial_shape(), source.get_element_type(), feature)
    for reader in source.get_target_inputs():
        if reader.get_node().get_friendly_name() != found[0].get_friendly_name():
            reader.replace_source_output(given.output(0))
    source.get_tensor().set_names(set())
    given.output(0).get_tensor().set_names({feature})
    known = {name: parameter for parameter in graph.get_parameters() for name in parameter.output(0).get_names()}
    results = [result for result in graph.get_results() if result.get_friendly_name() != found[0].get_friendly_name()]
    return openvino.Model(results, [given if name == feature else known[name] for name in inputs])


def can_write_tokenizer() -> bool:
    """Return whether the package ``openvino_tokenizers`` is installed, an optional part of the exporter."""
    return find_spec("openvino_tokenizers") is not None


def write_tokenizer(tokenizer: Any, folder: Path) -> None:  # noqa: ANN401 - a class of transformers, which has no types
    """Write a tokenizer as two graphs, to ids and back, which openvino-genai reads; nothing without the package.

    Args:
        tokenizer: of transformers, a fast one.
        folder: for ``openvino_tokenizer.xml``, ``openvino_detokenizer.xml`` and their ``.bin``.
    """
    if not can_write_tokenizer():
        return
    from openvino_tokenizers import convert_tokenizer  # noqa: PLC0415 - not everybody has it

    graphs = convert_tokenizer(tokenizer, with_detokenizer=True)
    for graph, name in zip(graphs, ("openvino_tokenizer", "openvino_detokenizer"), strict=True):
        openvino.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)
