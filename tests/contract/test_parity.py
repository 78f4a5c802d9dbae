"""Pictures of exported bundles against diffusers' own pipeline: every sampler, both engines, both forms of the UNet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from tests.results import arrays

from nano_export.judge.original import diffusers_pipeline
from nano_export.source import builtin
from nano_runtime.bundle.folder import Bundle
from nano_runtime.engines import BACKENDS, EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.processors import usable_cores

SCHEDULERS = {
    "pndm": "PNDMScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
}
PROMPT, NEGATIVE, SEED, STEPS, VELOCITY_STEPS = "A watercolor painting of an otter", "blurry", 7, 20, 8
# Of the largest latent. Engines sum in another order than torch, and guidance magnifies the difference 7.5 times in
# each of 20 calls.
TOLERANCE = 1e-4
# What every deliberate mistake must exceed.
MISTAKE = 100 * TOLERANCE


class Recorder:
    """Runs graphs as always and keeps what went into them first."""

    def __init__(self, runner, first: dict[str, dict[str, np.ndarray]]) -> None:
        self.runner = runner
        self.first = first

    def run(self, component, feeds, *, batch):
        self.first.setdefault(component, {name: array.copy() for name, array in feeds.items()})
        return self.runner.run(component, feeds, batch=batch)


@dataclass
class Original:
    """Diffusers' pipeline, and what it drew so far."""

    pipeline: StableDiffusionPipeline
    scheduler: dict[str, Any]

    def draw(self, scheduler: str, *, guidance: float = 7.5, steps: int = STEPS, **changes: object) -> np.ndarray:
        """Final latents [1, 4, 16, 16]; ``changes`` are of the scheduler's config."""
        kind = getattr(diffusers, SCHEDULERS[scheduler])
        self.pipeline.scheduler = kind.from_config({**self.scheduler, **changes})
        return self.pipeline(
            PROMPT,
            negative_prompt=NEGATIVE,
            height=128,
            width=128,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="latent",
        ).images.numpy()


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def draw(pipe: Pipeline, scheduler: str | None, **options: Any) -> np.ndarray:
    arguments = {"num_inference_steps": STEPS, "guidance_scale": 7.5, "seed": SEED, "negative_prompt": NEGATIVE}
    return arrays(pipe(PROMPT, scheduler=scheduler, output_type="latent", **{**arguments, **options}))


@pytest.fixture(scope="module")
def tiny_original() -> Original:
    parts = builtin.build("tiny")
    pipeline = diffusers_pipeline(parts)
    return Original(pipeline, parts.scheduler)


@pytest.fixture(scope="module")
def sd1_original(sd1_checkpoint) -> Original:
    """Loaded by diffusers itself from the folder."""
    pipeline = StableDiffusionPipeline.from_pretrained(sd1_checkpoint, safety_checker=None, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return Original(pipeline, json.loads((sd1_checkpoint / "scheduler" / "scheduler_config.json").read_text()))


@pytest.fixture(scope="module", params=["tiny", "sd1"])
def model(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def original(model, request) -> Original:
    return request.getfixturevalue(f"{model}_original")


@pytest.fixture(scope="module")
def bundle(model, request) -> Path:
    return request.getfixturevalue({"tiny": "fp32", "sd1": "sd1"}[model])


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request, model, full) -> str:
    """The engine; OpenVINO, which compiles for long, draws one of the two networks, and both at full counts."""
    if request.param == "openvino" and model == "sd1" and not full:
        pytest.skip("needs --counts full")
    return request.param


@pytest.fixture(scope="module")
def opened(backend, compiled) -> Callable[[Path], Pipeline]:
    return lambda bundle: Pipeline.from_pretrained(bundle, backend, keep_prompts=False, cache=compiled)


@pytest.fixture(scope="module")
def pipe(bundle, opened) -> Iterator[Pipeline]:
    pipe = opened(bundle)
    yield pipe
    pipe.close()


@pytest.fixture(scope="module")
def expected(original) -> dict[tuple[str, float], np.ndarray]:
    """What diffusers draws with every sampler, with and without guidance."""
    return {(name, scale): original.draw(name, guidance=scale) for scale in (7.5, 1.0) for name in SCHEDULERS}


@pytest.fixture(scope="module")
def velocity(original) -> dict[str, np.ndarray]:
    """The same network taken for one that predicts velocity; few steps, as it was not trained for that."""
    changes = {"prediction_type": "v_prediction", "steps": VELOCITY_STEPS}
    return {name: original.draw(name, **changes) for name in SCHEDULERS}


@pytest.mark.parametrize("guidance", [7.5, 1.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_latents_are_those_of_diffusers(pipe, expected, scheduler, guidance):
    assert distance(draw(pipe, scheduler, guidance_scale=guidance), expected[scheduler, guidance]) < TOLERANCE


def test_other_settings_are_far_away(pipe, expected):
    """Negative controls: what the test above compares depends on each setting."""
    reference = expected["pndm", 7.5]
    assert distance(draw(pipe, "pndm", seed=SEED + 1), reference) > MISTAKE
    assert distance(draw(pipe, "pndm", guidance_scale=7.0), reference) > MISTAKE
    assert distance(draw(pipe, "pndm", negative_prompt="sharp"), reference) > MISTAKE
    assert distance(draw(pipe, "pndm", num_inference_steps=STEPS + 1), reference) > MISTAKE
    for scheduler in ("ddim", "euler", "dpmpp_2m"):
        assert distance(draw(pipe, scheduler), reference) > MISTAKE


def test_the_bundles_own_sampler_is_the_checkpoints(pipe, expected):
    assert distance(draw(pipe, pipe.own_scheduler), expected["pndm", 7.5]) < TOLERANCE


def test_tokens_and_first_noise_are_bit_for_bit_those_of_diffusers(bundle, backend, compiled, original):
    texts: list[np.ndarray] = []
    samples: list[np.ndarray] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0].numpy().copy()))
        for module, kept in ((original.pipeline.text_encoder, texts), (original.pipeline.unet, samples))
    ]
    try:
        original.draw("pndm", steps=1)
    finally:
        for hook in hooks:
            hook.remove()
    first: dict[str, dict[str, np.ndarray]] = {}
    options = EngineOptions(threads=usable_cores(), precision="f32", cache=compiled)
    graphs = LoadedGraphs(Bundle.open(bundle), backend, options)
    recording = Pipeline(graphs, keep_loaded=True, keep_prompts=False, around=lambda runner: Recorder(runner, first))
    draw(recording, "pndm", num_inference_steps=1)
    graphs.close()
    np.testing.assert_array_equal(first["unet"]["sample"], samples[0])
    ours = first["text_encoder"]["input_ids"]  # the negative prompt comes first here
    assert [np.array_equal(ours, ids) for ids in texts] == [False, True]  # diffusers begins with the other one


def test_a_network_that_predicts_velocity_is_read_from_the_manifest(bundle, opened, pipe, velocity, tmp_path):
    """The same graphs under another manifest: diffusers is told the same."""
    copy = Path(shutil.copytree(bundle, tmp_path / "velocity"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["scheduler"]["prediction_type"] = "v_prediction"
    (copy / "manifest.json").unlink()  # it is a link
    (copy / "manifest.json").write_text(json.dumps(manifest))
    told = opened(copy)
    for scheduler, expected in velocity.items():
        assert distance(draw(told, scheduler, num_inference_steps=VELOCITY_STEPS), expected) < TOLERANCE
        assert distance(draw(pipe, scheduler, num_inference_steps=VELOCITY_STEPS), expected) > MISTAKE
    told.close()


def test_pictures_drawn_together_are_those_drawn_alone(pipe):
    together = draw(pipe, "pndm", num_images_per_prompt=3)
    for index in range(3):
        alone = draw(pipe, "pndm", seed=SEED + index)
        assert distance(together[index : index + 1], alone) < TOLERANCE
        assert distance(together[index - 1 : index or None], alone) > MISTAKE


def test_several_prompts_in_one_call_are_several_calls(pipe):
    prompts = ["a red fox", "a lighthouse", "a red fox"]
    options = {"num_inference_steps": 4, "output_type": "latent"}
    together = pipe(prompts, seed=SEED, **options).images
    for index, prompt in enumerate(prompts):
        alone = pipe(prompt, seed=SEED + index, **options).images
        assert distance(together[index : index + 1], alone) < TOLERANCE
    assert distance(together[:1], together[2:]) > MISTAKE  # the same prompt, another seed


def test_the_picture_is_the_decoded_one(pipe, original):
    """What a user gets at the end, in [0, 1], against diffusers' own post-processing of the same latents."""
    ours = pipe(PROMPT, seed=SEED, num_inference_steps=2, output_type="np").images
    latents = pipe(PROMPT, seed=SEED, num_inference_steps=2, output_type="latent").images
    vae = original.pipeline.vae
    with torch.no_grad():
        decoded = vae.decode(torch.from_numpy(latents) / vae.config.scaling_factor, return_dict=False)[0]
    theirs = original.pipeline.image_processor.postprocess(decoded, output_type="np")
    assert ours.shape == theirs.shape == (1, 128, 128, 3)
    assert distance(ours, theirs) < TOLERANCE
    assert distance(ours[:, ::-1], theirs) > MISTAKE
