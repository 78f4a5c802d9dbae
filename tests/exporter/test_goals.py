"""INT8 that misses its goal is written with a warning; ``--strict`` refuses it, and a wrong graph is always refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tests.exporter.test_fidelity import GOALS

from nano_export import cli
from nano_export import quantizing as _quantizing
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.goals import shortfalls

pytestmark = pytest.mark.slow

quantizing: Any = _quantizing  # whose function a test replaces
UNREACHABLE = ("--min-psnr", "190")  # no two computations in float32 are as near


@pytest.fixture
def target(tmp_path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "bundle"


def export(target: Path, *options: str) -> int:
    return cli.main(["tiny", "-o", str(target), "--int8", "--backend", "onnxruntime", *options])


def test_int8_that_misses_its_goal_is_written_with_its_figures(target, capsys):
    assert export(target, *UNREACHABLE) == 0
    error = capsys.readouterr().err
    assert "nano-export: warning: INT8 falls short of its goal: text_encoder " in error
    assert "dB of 190; whole pictures " in error
    bundle = Bundle.open(target)
    assert list(bundle.faults()) == []
    assert {short.component for short in shortfalls(bundle.manifest)} == set(GOALS)
    assert "Short of its goal" in (target / "README.md").read_text()


def test_strict_refuses_it_and_leaves_nothing(target, capsys):
    assert export(target, *UNREACHABLE, "--strict") == 3
    error = capsys.readouterr().err.splitlines()
    assert error[-2].startswith("nano-export: INT8 falls short of its goal, and --strict was given: text_encoder ")
    assert "unet" in error[-2]
    assert "dB of 190" in error[-2]
    assert list(target.parent.iterdir()) == []


def test_a_scale_that_is_another_layers_is_refused_without_strict(target, capsys, monkeypatch):
    right = quantizing.quantize

    def wrong(model: ir.Model, rules: Any, ranges: Mapping[str, Any], *others: Any) -> object:
        """Quantize, and double the scales of one weight: 20 dB and more are left of the UNet."""
        done = right(model, rules, ranges, *others)
        for name, value in model.graph.initializers.items():
            if name.endswith((".weight.scale", ".scaled.scale")) and value.const_value is not None:
                doubled = (value.const_value.numpy() * 2).astype(np.float32)
                value.const_value = ir.tensor(doubled, name=name)
                break
        return done

    monkeypatch.setattr(quantizing, "quantize", wrong)
    assert export(target) == 3
    error = capsys.readouterr().err.splitlines()
    assert error[-2].startswith("nano-export: the int8 unet differs from the original: the weight ")
    assert list(target.parent.iterdir()) == []


def test_a_bundle_for_openvino_alone_is_measured_too(target):
    assert cli.main(["tiny", "-o", str(target), "--int8", "--backend", "openvino"]) == 0
    bundle = Bundle.open(target)
    assert bundle.manifest.backends == ["openvino"]
    assert set(GOALS) <= {name for name, part in bundle.manifest.components.items() if part.fidelity}
    assert list(bundle.faults()) == []
