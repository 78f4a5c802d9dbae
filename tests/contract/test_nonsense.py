"""Damaged weights whose checksums are right: whatever computes nonsense first is named. And interrupted drawings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from tests.contract.sealed import seal
from tests.results import arrays

from nano_export.judge.original import diffusers_pipeline
from nano_export.source import builtin
from nano_runtime.errors import NonFiniteError
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.noise import randn

COMPONENTS = ["text_encoder", "unet_prompt", "unet_time", "unet", "vae_encoder", "vae_decoder"]


def damaged(bundle: Path, target: Path, component: str, value: float, which: Callable[[str], bool]) -> Path:
    """A copy with other numbers in some of a graph's weights, compact so that both engines read them."""
    copy = Path(shutil.copytree(bundle, target))
    manifest = json.loads((copy / "manifest.json").read_text())
    files = manifest["components"][component]["graphs"]["onnxruntime"]
    manifest["components"][component]["graphs"]["openvino"] = files
    data = copy / files["weights"]
    content = bytearray(data.read_bytes())
    weights = ir.load(copy / files["model"]).graph.initializers
    tensors = [weights[name].const_value for name in weights if which(name)]
    chosen = [one for one in tensors if isinstance(one, ir.ExternalTensor) and one.dtype == ir.DataType.FLOAT]
    assert chosen
    for one in chosen:
        assert one.offset is not None
        assert one.length is not None
        content[one.offset : one.offset + one.length] = np.full(one.length // 4, value, np.float32).tobytes()
    data.unlink()  # it is a link
    data.write_bytes(content)
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return seal(copy)


@pytest.mark.parametrize(
    ("component", "backend"),
    [
        *((component, "onnxruntime") for component in COMPONENTS),
        pytest.param("unet", "openvino", marks=pytest.mark.slow),
    ],
)
def test_the_graph_that_computes_nan_is_named(fp32, tmp_path, component, backend):
    pipe = Pipeline.from_pretrained(damaged(fp32, tmp_path / "nan", component, np.nan, lambda _: True), backend)
    picture = {"image": builtin_picture()} if component == "vae_encoder" else {}
    where = "call 1 of 3" if component == "unet" else "output"
    with pytest.raises(NonFiniteError, match=f"the {component} computed .*{where}"):
        pipe("a fox", num_inference_steps=2, scheduler="pndm", seed=1, **picture)
    pipe.close()


def builtin_picture():
    from PIL import Image  # noqa: PLC0415 - for one case only

    return Image.new("RGB", (128, 128), "teal")


def test_a_blank_picture_is_told_and_by_whom(fp32, tmp_path, caplog):
    def draw(bundle: Path, **options) -> np.ndarray:
        pipe = Pipeline.from_pretrained(bundle, "onnxruntime")
        picture = arrays(pipe("a fox", num_inference_steps=1, output_type="np", seed=3, **options))
        pipe.close()
        return picture

    broken = damaged(fp32, tmp_path / "blank", "vae_decoder", 0.0, lambda name: "conv_out.weight" in name)
    assert np.ptp(draw(broken), axis=(1, 2)).max() == 0
    assert "the picture of seed 3 is blank: the vae_decoder made it constant" in caplog.text
    caplog.clear()
    assert np.ptp(draw(fp32)) > 0.1
    assert "blank" not in caplog.text


@pytest.fixture(scope="module")
def pipe(fp32):
    pipe = Pipeline.from_pretrained(fp32, "onnxruntime")
    yield pipe
    pipe.close()


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "DDIMScheduler"])
def test_an_interrupted_drawing_is_diffusers(pipe, scheduler):
    """The callback of diffusers' documentation, as it is."""
    import diffusers  # noqa: PLC0415 - only the name is needed

    def stop_at_the_third(pipeline, step_index, _timestep, kwargs):
        calls.append(step_index)
        if step_index == 2:
            pipeline._interrupt = True  # noqa: SLF001 - how diffusers documents it
        return kwargs

    original = diffusers_pipeline(builtin.build("tiny"))
    original.scheduler = getattr(diffusers, scheduler).from_config(original.scheduler.config)
    options = {"num_inference_steps": 8, "guidance_scale": 7.5, "output_type": "latent"}
    calls: list[int] = []
    generator = torch.Generator().manual_seed(7)
    theirs = original(
        "a fox", height=128, width=128, generator=generator, callback_on_step_end=stop_at_the_third, **options
    ).images.numpy()
    assert calls == [0, 1, 2]
    calls.clear()
    name = {"PNDMScheduler": "pndm", "DDIMScheduler": "ddim"}[scheduler]
    options |= {"seed": 7, "scheduler": name}
    ours = pipe("a fox", callback_on_step_end=stop_at_the_third, **options)
    assert calls == [0, 1, 2]
    assert ours.parameters[0].interrupted_after == 3
    assert np.abs(ours.images - theirs).max() < 1e-4 * np.abs(theirs).max()  # as in test_parity.py
    whole = pipe("a fox", **options)  # the next call is not interrupted
    assert whole.parameters[0].interrupted_after is None
    assert np.abs(whole.images - theirs).max() > 1e-2 * np.abs(theirs).max()


def test_what_had_not_begun_is_left_out(pipe):
    def stop(pipeline, *_):
        pipeline.interrupt = True

    result = pipe("a fox", seed=5, num_images_per_prompt=6, num_inference_steps=2, callback_on_step_end=stop)
    assert result.seeds == (5, 6, 7)  # the first of two groups
    assert (len(result.images), len(result.parameters)) == (3, 3)


def test_a_callback_replaces_the_latents(pipe):
    """diffusers' signature, and its way to change what goes on."""
    given = []

    def replaced(pipeline, step_index, timestep, kwargs):
        assert pipeline is pipe
        given.append((step_index, float(timestep), list(kwargs)))
        return {"latents": randn(1, kwargs["latents"].shape)} if step_index == 3 else {}

    options = {"num_inference_steps": 4, "scheduler": "ddim", "output_type": "latent", "seed": 2}
    images = pipe("a fox", callback_on_step_end=replaced, **options).images
    np.testing.assert_array_equal(images, randn(1, images.shape))
    assert given == [(0, 751, ["latents"]), (1, 501, ["latents"]), (2, 251, ["latents"]), (3, 1, ["latents"])]
