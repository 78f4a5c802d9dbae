"""Folders of other exporters as bundles: the picture of the graphs that they were made of, in their own precision."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.contract import foreign

from nano_export import cli
from nano_export.adoption.adopting import Adopted, adopt
from nano_export.judge.metrics import psnr_db
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend, TensorSpec
from nano_runtime.pipeline import Pipeline
from nano_runtime.verify.checks import verify_bundle

PROMPT, SEED, STEPS = "a red fox", 7, 2


def adopted(folder: Path, target: Path, size: int | None = None) -> Adopted:
    """Adopt a folder."""
    *_, result = adopt(folder, target, size=size)
    assert isinstance(result, Adopted)
    return result


def drawn(bundle: Path, backend: Backend | None = None, **options: Any) -> np.ndarray:
    """Draw a picture, float64."""
    pipe = Pipeline.from_pretrained(bundle, backend=backend, threads=1)
    options = {"seed": SEED, "num_inference_steps": STEPS, **options}
    return np.asarray(pipe(PROMPT, **options).images[0], np.float64)


def own(specs: list[TensorSpec] | None) -> list[TensorSpec]:
    """Return an engine's own tensors, which must be there."""
    assert specs is not None
    return specs


@pytest.fixture(scope="module")
def original(sd1) -> np.ndarray:
    """The picture of the bundle whose graphs the folders are made of; other tests compare it with diffusers'."""
    return drawn(sd1, "onnxruntime")


def test_what_optimum_exports_draws_the_same_picture(sd1, original, tmp_path):
    folder = foreign.optimum(sd1, tmp_path / "optimum")
    result = adopted(folder, tmp_path / "bundle")
    assert (result.backend, result.notes) == ("onnxruntime", ())
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert (manifest.exporter, manifest.precision, manifest.graph) == ("optimum", "fp32", "standard")
    assert manifest.image_size == (128, 128)  # of the config: all sides of the graphs are free
    assert own(manifest.components["unet"].graphs["onnxruntime"].inputs)[1].shape == []
    assert np.abs(drawn(tmp_path / "bundle") - original).max() <= 1  # of 255: engines round as they fuse
    assert verify_bundle(tmp_path / "bundle").faults == ()
    assert psnr_db(drawn(tmp_path / "bundle", seed=SEED + 1), original, 255) < 40  # the negative control


def test_what_diffusers_script_exports_draws_the_same_picture(sd1, original, tmp_path):
    folder = foreign.diffusers_script(sd1, tmp_path / "script")
    assert adopted(folder, tmp_path / "bundle", size=128).notes == ()
    manifest = Bundle.open(tmp_path / "bundle").manifest
    unet, encoder = (manifest.components[name] for name in ("unet", "vae_encoder"))
    assert manifest.exporter == "diffusers"
    assert [tensor.dtype for tensor in unet.inputs] == ["float32"] * 3
    assert encoder.outputs[0].shape == ["batch", 8, 16, 16]  # the moments, so that seeds draw the noise
    assert np.abs(drawn(tmp_path / "bundle") - original).max() <= 1
    start = Image.fromarray(original.astype(np.uint8))
    again, before = (drawn(bundle, "onnxruntime", image=start, strength=0.9) for bundle in (tmp_path / "bundle", sd1))
    assert np.abs(again - before).max() <= 1


@pytest.mark.slow
def test_half_precision_stays_half(sd1, original, tmp_path):
    folder = foreign.optimum(sd1, tmp_path / "half", half=True)
    adopted(folder, tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.precision == "fp16"
    assert {tensor.dtype for tensor in own(manifest.components["unet"].graphs["onnxruntime"].outputs)} == {"float16"}
    assert 30 < psnr_db(drawn(tmp_path / "bundle"), original, 255) < 80
    fp32, fp16 = ((path / "unet" / "model.onnx.data").stat().st_size for path in (sd1, tmp_path / "bundle"))
    assert fp16 < 0.6 * fp32


def test_what_optimum_intel_exports_draws_nearly_the_same_picture(sd1, original, tmp_path):
    """Weights in half precision are unpacked to float32, which arithmetic stays."""
    adopted(foreign.optimum_intel(sd1, tmp_path / "ov", half=True), tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert (manifest.exporter, manifest.precision, manifest.backends) == ("optimum-intel", "fp16", ["openvino"])
    assert 35 < psnr_db(drawn(tmp_path / "bundle"), original, 255) < 80


def test_torch_is_not_imported(sd1, tmp_path):
    folder = foreign.optimum(sd1, tmp_path / "optimum")
    code = f"""
import sys
from nano_export.cli import main
code = main(["--adopt", {str(folder)!r}, "-o", {str(tmp_path / "bundle")!r}, "--json"])
heavy = {{"torch", "diffusers", "transformers", "safetensors"}} & {{*sys.modules}}
sys.exit(f"{{code}} {{heavy}}" if code or heavy else 0)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["path"] == str(tmp_path / "bundle")


@pytest.mark.parametrize(
    "option", [["--int8"], ["--graph", "standard"], ["--lora", "x.safetensors"], ["--compact"], ["demo"]]
)
def test_options_of_exports_are_refused(tmp_path, capsys, option):
    assert cli.main(["--adopt", str(tmp_path), "-o", str(tmp_path / "bundle"), *option]) == 2
    assert "--adopt and " in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
