"""Quantizes float graphs with NNCF, Intel's library, into graphs that are quick in OpenVINO only.

Post-training quantization as NNCF advises for transformers: SmoothQuant (arXiv:2211.10438) in front of linear layers,
ranges from real runs, and a correction of the biases for what rounding shifts. It sees the pictures that calibrate our
own graphs. What runs once per prompt or schedule keeps float activations, as in our plan.

This is the only importer of nncf, which is an extra: ``nano-export[nncf]``.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from nano_export.graph.to_openvino import read_ir
from nano_export.quantize.plan import Rule, Scheme, scheme_for
from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.manifest import TensorSpec
from nano_runtime.bundle.wiring import BATCH
from nano_runtime.engines import Batch
from nano_runtime.engines.base import Runner

__all__ = ["Feeds", "Recorder", "nncf_is_installed", "quantize_with_nncf", "schemes_of"]

_MOST = 64  # rows kept of each component: 12 pictures' calls, of which the full-size UNet's take 8 MB each
_ROWS = 4  # taken of one call, evenly spread: both halves of a guided call are among them

_MOVES = ("Concat", "Convert", "Gather", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze")  # of rounded numbers

Feeds = dict[str, np.ndarray[Any, Any]]
"""Inputs of one row, by name."""


def nncf_is_installed() -> bool:
    """Return whether the package is there, an optional part of the exporter."""
    return find_spec("nncf") is not None


class Recorder:
    """Keeps what went into each component: rows of one sample, evenly spread over all that ran, at most ``_MOST``.

    Args:
        inputs: of each component, as the manifest describes them.
    """

    def __init__(self, inputs: Mapping[str, Sequence[TensorSpec]]) -> None:
        self._batched = {
            name: {spec.name for spec in specs if spec.shape[:1] == [BATCH]} for name, specs in inputs.items()
        }
        self.kept: dict[str, list[Feeds]] = {name: [] for name in inputs}
        self._every = dict.fromkeys(inputs, 1)
        self._seen = dict.fromkeys(inputs, 0)

    def recording(self, runner: Runner) -> Runner:
        """Wrap a runner; its results stay the same."""
        return _Recording(runner, self)

    def take(self, component: str, feeds: Arrays) -> None:
        """Keep some rows of one call."""
        batched = self._batched[component]
        rows = min((len(feeds[name]) for name in batched), default=1)
        for row in np.unique(np.linspace(0, rows - 1, _ROWS).round().astype(int)).tolist():
            if self._seen[component] % self._every[component] == 0:
                self.kept[component].append(
                    {
                        name: np.array(value[row : row + 1] if name in batched else value)
                        for name, value in feeds.items()
                    }
                )
            self._seen[component] += 1
            if len(self.kept[component]) > _MOST:
                del self.kept[component][1::2]
                self._every[component] *= 2


class _Recording:
    """A runner whose inputs are recorded."""

    def __init__(self, runner: Runner, recorder: Recorder) -> None:
        self._runner = runner
        self._recorder = recorder

    def run(self, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        """Run, and record the inputs."""
        self._recorder.take(component, feeds)
        return self._runner.run(component, feeds, batch=batch)


def quantize_with_nncf(onnx_path: Path, rules: tuple[Rule, ...], feeds: Sequence[Feeds]) -> Any:  # noqa: ANN401 - openvino has no types
    """Quantize one float graph; return OpenVINO's form of it, with the free dimensions of the original.

    Args:
        onnx_path: the float graph.
        rules: of its plan. Layers that the plan leaves float stay float; where it keeps all activations exact,
            only weights are quantized.
        feeds: inputs of real runs, one row each.
    """
    import nncf  # noqa: PLC0415 - not everybody has it; after openvino, whose door keeps both from reporting their use
    from nncf.quantization.advanced_parameters import OverflowFix  # noqa: PLC0415

    nncf.set_log_level(logging.ERROR)
    model = read_ir(onnx_path)
    names = _products(model, ir.load(onnx_path))
    kept = [str(op.get_friendly_name()) for op, name in names if scheme_for(rules, name) == "float"]
    with contextlib.redirect_stdout(io.StringIO()):  # nncf draws bars there
        if all(rule.scheme != "w8a8" for rule in rules):
            quantized = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        else:
            quantized = nncf.quantize(
                model,
                nncf.Dataset(feeds),
                subset_size=len(feeds),
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                model_type=nncf.ModelType.TRANSFORMER,
                # OpenVINO 2026.4 crashes where it enlarges small maps in integers, and where it pads rows of integers
                # for a convolution that is written as a product: these are rounded behind the padding.
                ignored_scope=nncf.IgnoredScope(names=kept, types=["Interpolate", "Pad"], validate=False),
                # Half of the range, as our own weights: whole products saturate on processors without VNNI.
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
            )
    del quantized.rt_info["nncf"]  # its settings, with quotes that no graph to be trusted has (``bundle.unsafe_ir``)
    return quantized


def schemes_of(model: Any, floats: ir.Model) -> dict[str, Scheme]:  # noqa: ANN401
    """Return how each product of a quantized graph is computed, by the name of its node in the float graph.

    Args:
        model: the result of ``quantize_with_nncf``.
        floats: the graph that it was made of.
    """
    found: dict[str, Scheme] = {}
    for op, name in _products(model, floats):
        factors = [_grid_before(op.input_value(position).get_node()) for position in (0, 1)]
        if factors[1]:
            found[name] = "w8a8" if factors[0] else "w8"
    return found


def _grid_before(op: Any) -> bool:  # noqa: ANN401
    """Return whether a factor is rounded: by FakeQuantize, or as integers that are converted and multiplied."""
    while op.get_type_name() in _MOVES:
        op = op.input_value(0).get_node()
    if op.get_type_name() == "Multiply":  # by the scale
        number = op.input_value(0).get_node()
        return bool(number.get_type_name() == "Convert" and number.get_input_element_type(0).get_type_name() == "i8")
    return bool(op.get_type_name() == "FakeQuantize")


def _products(model: Any, floats: ir.Model) -> Iterator[tuple[Any, str]]:  # noqa: ANN401
    """Yield OpenVINO's products, each with the name of its node in the float graph.

    OpenVINO calls an operator as the node, or, where it ends the graph, as the node's output.
    """
    names = {called: str(node.name) for node in floats.graph for called in (node.name, node.outputs[0].name)}
    for op in model.get_ops():
        if op.get_type_name() in ("Convolution", "MatMul"):
            yield op, names[str(op.get_friendly_name()).removesuffix("/WithoutBiases")]
