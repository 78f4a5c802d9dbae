"""The sampler and steps that exports choose: written into the manifest, drawn where a call names none, and told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.results import arrays

from nano_export.judge.metrics import psnr_db
from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.cli import generate
from nano_runtime.pipeline import Pipeline

COLORS = ("teal", "orange", "blue", "green")
HOLDS_DB = 21.0
"""Pictures look finished from here on; one by the checkpoint's own sampler at guidance 9 is at 7 dB."""
PROMPTS = ("an otter on a teal background", "a cactus on an orange background")


def test_a_call_that_names_none_draws_the_default(int8):
    default = Bundle.open(int8).manifest.default
    assert default is not None
    pipe = Pipeline.from_pretrained(int8, "onnxruntime")
    assert pipe.own_scheduler == "pndm"
    said: dict[str, Any] = {"scheduler": default.scheduler, "num_inference_steps": default.steps}
    drawn = pipe("a fox", seed=3, output_type="latent")
    np.testing.assert_array_equal(drawn.images, pipe("a fox", seed=3, output_type="latent", **said).images)
    assert (drawn.parameters[0].options.scheduler, drawn.parameters[0].options.num_inference_steps) == (
        default.scheduler,
        default.steps,
    )
    other = pipe("a fox", seed=3, output_type="latent", scheduler="ddim", num_inference_steps=default.steps)
    assert not np.array_equal(arrays(other), arrays(drawn))
    pipe.close()


def test_the_command_says_what_it_is_and_what_it_costs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    default = Bundle.open(DEMO).manifest.default
    assert default is not None
    for options, plan in (
        ([], f"{default.steps} steps of {default.scheduler} = {default.steps} UNet calls"),
        (["--scheduler", "pndm"], "20 steps of pndm = 21 UNet calls"),
        (["--steps", 7], f"7 steps of {default.scheduler} = 7 UNet calls"),
    ):
        assert (
            generate.main([*map(str, ["a fox", "--backend", "onnxruntime", "-o", "a.png", "--force", *options])]) == 0
        )
        assert plan in capsys.readouterr().err


def test_a_bundle_without_one_draws_as_before(tmp_path):
    """Bundles of formats 1 and 2: the checkpoint's own sampler, 20 steps."""
    copy = Path(shutil.copytree(DEMO, tmp_path / "older"))
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["default"]
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format_version": 2}))
    new, old = (Pipeline.from_pretrained(bundle, "onnxruntime") for bundle in (DEMO, copy))
    said: dict[str, Any] = {"scheduler": "pndm", "num_inference_steps": 20}
    options: dict[str, Any] = {"seed": 3, "output_type": "latent"}
    np.testing.assert_array_equal(old(PROMPTS, **options).images, new(PROMPTS, **options, **said).images)
    assert not np.array_equal(arrays(old(PROMPTS, **options)), arrays(new(PROMPTS, **options)))


@pytest.mark.slow
def test_the_demo_comes_about_as_near_to_the_finished_picture_in_fewer_calls():
    """By more prompts than the export's, which it chose by: there it was 0.2 dB nearer, of these it is 0.9 further."""
    pipe = Pipeline.from_pretrained(backend="onnxruntime")
    assert pipe.plan("").unet_calls < pipe.plan("", num_inference_steps=20, scheduler="pndm").unet_calls
    concepts = ("otter", "cactus", "car", "owl", "pizza", "rocket", "penguin", "apple")
    prompts = [f"a {concept} on a {color} background" for concept, color in zip(concepts, COLORS * 2, strict=True)]

    def drawn(scheduler: str | None, steps: int | None) -> np.ndarray:
        halves = (
            pipe(half, seed=0, scheduler=scheduler, num_inference_steps=steps, output_type="np").images
            for half in (prompts[:4], prompts[4:])
        )
        return np.concatenate(list(halves))

    finished = drawn("euler", 40)
    best, own, few = (
        np.mean([psnr_db(picture, one, 1.0) for picture, one in zip(drawn(*sampling), finished, strict=True)])
        for sampling in ((None, None), ("pndm", 20), ("pndm", 9))
    )
    assert best > own - 1.5
    assert few < own - 5  # the measure measures


@pytest.mark.slow
def test_the_default_of_the_demo_holds_from_guidance_1_to_9():
    """The scorer does not see confetti: distances from finished pictures do."""
    pipe = Pipeline.from_pretrained(backend="onnxruntime")
    concepts = ("otter", "cactus", "tractor", "drum", "pizza", "rocket", "whale", "apple")
    prompts = [f"a {concept} on a {color} background" for concept, color in zip(concepts, COLORS * 2, strict=True)]

    def distance(guidance_scale: float, scheduler: str | None, steps: int | None) -> float:
        asked: dict[str, Any] = {"seed": 5, "guidance_scale": guidance_scale, "output_type": "np"}
        drawn = pipe(prompts, scheduler=scheduler, num_inference_steps=steps, **asked).images
        finished = pipe(prompts, scheduler="euler", num_inference_steps=40, **asked).images
        return float(np.mean([psnr_db(picture, one, 1.0) for picture, one in zip(drawn, finished, strict=True)]))

    for guidance_scale in (1.0, 2.0, 4.0, 7.5, 9.0):
        assert distance(guidance_scale, None, None) > HOLDS_DB, guidance_scale
    assert distance(9.0, "unipc_karras", 9) < HOLDS_DB - 5
