"""Cheaper steps on real graphs: what they compute, against torch, and that without them nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from tests.results import arrays

from nano_export.judge.metrics import psnr_db
from nano_export.judge.original import diffusers_pipeline
from nano_export.source import builtin
from nano_runtime.bundle.folder import Bundle
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.pictures.png import read_parameters, save_png
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.noise import randn
from nano_runtime.system.timing import Stopwatch

PROMPT, NEGATIVE, SEED, GUIDANCE, STEPS = "A watercolor painting of an otter", "blurry", 7, 7.5, 10
# Of the largest latent: engines sum in another order than torch, and guidance magnifies the difference in each call.
TOLERANCE = 1e-4
# What every deliberate mistake must exceed.
MISTAKE = 30 * TOLERANCE
# One call: rounding of another order of summation, of the largest value. Both graphs have the same layers, but the
# engine may fuse them differently.
ONE_CALL = 1e-5
# Between one INT8 graph on two sets of kernels, as in test_int8.py.
LEAST_DB = 35.0
# Written out by hand: PNDM's 11 calls with an interval of 3 and guidance between 0.2 and 0.7.
INTERVALS: dict[str, Any] = {"cache_interval": 3, "guidance_interval": (0.2, 0.7)}
WHOLE, GUIDED = {0, 2, 3, 6, 9}, {2, 3, 4, 5, 6}


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


ENGINES = ("onnxruntime", pytest.param("openvino", marks=pytest.mark.slow))  # it compiles each graph for seconds


@pytest.fixture(scope="module", params=ENGINES)
def pipe(request, fp32) -> Iterator[Pipeline]:
    pipe = Pipeline.from_pretrained(fp32, request.param, threads=1)
    yield pipe
    pipe.close()


@pytest.fixture(scope="module", params=ENGINES)
def pipe_int8(request, int8) -> Iterator[Pipeline]:
    pipe = Pipeline.from_pretrained(int8, request.param, threads=1)
    yield pipe
    pipe.close()


def draw(pipe: Pipeline, prompt: str | list[str] = PROMPT, **options: Any) -> np.ndarray:
    arguments = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "seed": SEED, "negative_prompt": NEGATIVE}
    return arrays(pipe(prompt, output_type="latent", scheduler="pndm", **{**arguments, **options}))


class Original:
    """The tiny checkpoint in torch, with DeepCache and the forecast written over diffusers' own modules."""

    def __init__(self) -> None:
        parts = builtin.build("tiny")
        pipeline = diffusers_pipeline(parts)
        self.unet: UNet2DConditionModel = parts.unet
        self.scheduler = diffusers.PNDMScheduler.from_config(parts.scheduler)
        prompt, negative = pipeline.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE)  # noqa: FBT003 (diffusers' own)
        self.hidden = torch.cat([negative, prompt])

    def whole(self, sample: torch.Tensor, timestep: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The prediction, and what enters the last residual block besides the first layer's output."""
        entering = []
        last = self.unet.up_blocks[-1].resnets[-1]
        hook = last.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
        prediction = self.unet(sample, timestep, hidden).sample
        hook.remove()
        return prediction, entering[0][:, : -self.unet.conv_in.out_channels]

    def shallow(self, sample: torch.Tensor, timestep: torch.Tensor, hidden: torch.Tensor, feature: torch.Tensor):
        """The prediction from a feature."""
        unet, block = self.unet, self.unet.up_blocks[-1]
        embedding = unet.time_embedding(unet.time_proj(timestep[None]))
        joined = torch.cat([feature, unet.conv_in(sample)], 1)
        mixed = block.attentions[-1](block.resnets[-1](joined, embedding), hidden).sample
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(mixed)))

    @torch.no_grad()
    def draw(self, whole: set[int], guided: set[int], *, forecast: bool = True) -> np.ndarray:
        self.scheduler.set_timesteps(STEPS)
        latents = torch.from_numpy(randn(SEED, (1, 4, 16, 16)))
        seen: list[tuple[float, torch.Tensor]] = []
        for index, timestep in enumerate(self.scheduler.timesteps):
            rows = 2 if index in guided else 1
            sample, hidden = latents.expand(rows, -1, -1, -1), self.hidden[-rows:]
            if index in whole:
                noise, feature = self.whole(sample, timestep, hidden)
                seen.append((float(timestep), feature))
            else:
                (now, latest), (before, earlier) = seen[-1], seen[-2] if len(seen) > 1 else seen[-1]
                feature = latest[-rows:]
                if forecast and now != before and len(earlier) >= rows:
                    feature = feature + (float(timestep) - now) / (now - before) * (feature - earlier[-rows:])
                noise = self.shallow(sample, timestep, hidden, feature)
            if rows == 2:
                noise = noise[:1] + GUIDANCE * (noise[1:] - noise[:1])
            latents = self.scheduler.step(noise, timestep, latents).prev_sample
        return latents.numpy()


@pytest.fixture(scope="module")
def original() -> Original:
    return Original()


def test_a_picture_equals_the_one_that_torch_draws_with_both_shortcuts(pipe, original):
    expected = original.draw(WHOLE, GUIDED)
    assert distance(draw(pipe, **INTERVALS), expected) < TOLERANCE
    mistakes = {
        "no forecast": original.draw(WHOLE, GUIDED, forecast=False),
        "one more whole call": original.draw(WHOLE | {4}, GUIDED),
        "one more guided call": original.draw(WHOLE, GUIDED | {7}),
        "no shortcut": draw(pipe),
    }
    assert min(distance(wrong, expected) for wrong in mistakes.values()) > MISTAKE


def test_the_longest_intervals_are_exact(pipe_int8):
    exact = draw(pipe_int8)
    np.testing.assert_array_equal(draw(pipe_int8, quality="exact"), exact)
    np.testing.assert_array_equal(draw(pipe_int8, cache_interval=1, guidance_interval=(0.0, 1.0)), exact)
    assert not np.array_equal(draw(pipe_int8, quality="balanced"), exact)


def test_guidance_over_an_empty_interval_is_no_guidance(pipe):
    unguided = draw(pipe, guidance_scale=1.0)
    np.testing.assert_array_equal(draw(pipe, guidance_interval=(0.5, 0.5)), unguided)
    assert distance(draw(pipe, guidance_interval=(0.5, 0.7)), unguided) > MISTAKE


def test_presets_draw_what_the_manifest_says_they_mean(pipe_int8):
    presets = pipe_int8.bundle.manifest.presets
    assert set(presets) == {"balanced", "fast"}
    assert 1 > presets["balanced"].work > presets["fast"].work > 0
    for name, preset in presets.items():
        parts = {"cache_interval": preset.cache_interval, "guidance_interval": preset.guidance_interval}
        np.testing.assert_array_equal(draw(pipe_int8, quality=name), draw(pipe_int8, **parts))


def test_a_picture_does_not_depend_on_those_drawn_with_it(pipe):
    """Within rounding: engines choose other blockings for other batches."""
    together = draw(pipe, [PROMPT, "a red fox"], **INTERVALS)
    alone = draw(pipe, "a red fox", seed=SEED + 1, **INTERVALS)
    assert distance(together[1:], alone) < TOLERANCE
    assert distance(together[:1], alone) > MISTAKE


def feeds_of(stages: LoadedGraphs, component: str, rows: int, **given: np.ndarray) -> dict[str, np.ndarray]:
    """The same random values for inputs of one name."""
    feeds = {}
    for spec in stages.bundle.component(component).inputs:
        rng = np.random.default_rng(list(spec.name.encode()))
        free = {"batch": rows, "tokens": stages.bundle.manifest.tokenizer.length}
        shape = [free[size] if isinstance(size, str) else size for size in spec.shape]
        feeds[spec.name] = given.get(spec.name, rng.standard_normal(shape).astype(np.float32))
    return feeds


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_shallow_graph_goes_on_where_the_whole_one_was_cut(precision, backend, request):
    bundle = Bundle.open(request.getfixturevalue(precision))
    stages = LoadedGraphs(bundle, backend, EngineOptions(threads=1, precision="f32"))
    whole = stages.run("unet", feeds_of(stages, "unet", 2), batch=2)
    stale = stages.run("unet", feeds_of(stages, "unet", 2, sample=np.zeros((2, 4, 16, 16), np.float32)), batch=2)
    predictions = [
        stages.run("unet_shallow", feeds_of(stages, "unet_shallow", 2, deep_feature=feature), batch=2)
        for feature in (whole["deep_feature"], stale["deep_feature"])
    ]
    stages.close()
    assert distance(predictions[0]["out_sample"], whole["out_sample"]) < ONE_CALL
    assert distance(predictions[1]["out_sample"], whole["out_sample"]) > 100 * ONE_CALL


@pytest.mark.parametrize("backend", ENGINES)
def test_one_loaded_graph_serves_both_batches_and_computes_what_fixed_ones_do(int8, backend):
    """Where OpenVINO chooses other kernels, a sum near the middle of two steps of a grid may go the other way."""
    stages, watch = LoadedGraphs(Bundle.open(int8), backend, EngineOptions(threads=1, precision="f32")), Stopwatch()
    runner = stages.timed(watch)
    feeds = {rows: feeds_of(stages, "unet", rows) for rows in (1, 2)}
    fixed = runner.run("unet", feeds[2], batch=2)["out_sample"]
    free = {rows: runner.run("unet", feeds[rows], batch=(1, 2))["out_sample"] for rows in (1, 2)}
    stages.close()
    assert len(watch.timings().load_ms["unet"]) == 2  # the fixed batch, and once for both
    assert free[1].shape == (1, 4, 16, 16)
    peak = float(fixed.max() - fixed.min())
    assert psnr_db(free[2], fixed, peak) > LEAST_DB
    assert psnr_db(free[2][::-1], fixed, peak) < LEAST_DB  # negative control: the other sample's


def test_both_graphs_share_one_file_of_weights(int8, fp32):
    for bundle in (int8, fp32):
        components = Bundle.open(bundle).manifest.components
        whole, shallow = (components[name].graphs["onnxruntime"] for name in ("unet", "unet_shallow"))
        assert whole.weights == shallow.weights == "unet/model.onnx.data"
        own = components["unet_shallow"].graphs["openvino"].weights
        assert (bundle / own).stat().st_size < 0.2 * (bundle / "unet/openvino_model.bin").stat().st_size


def test_a_bundle_with_diffusers_inputs_has_no_shallow_graph(sd1):
    manifest = Bundle.open(sd1).manifest
    assert "unet_shallow" not in manifest.components
    assert manifest.presets == {}
    assert len(manifest.components["unet"].outputs) == 1


def test_the_picture_remembers_its_shortcuts(pipe_int8, tmp_path):
    result = pipe_int8(PROMPT, num_inference_steps=4, seed=1, cache_interval=2, guidance_interval=(0, 0.5))
    save_png(result.images[0], tmp_path / "x.png", result.parameters[0])
    kept = read_parameters(tmp_path / "x.png")
    assert (kept.options.cache_interval, kept.options.guidance_interval) == (2, (0.0, 0.5))
    assert {name: len(ms) for name, ms in result.timings.run_ms.items() if "unet_" in name}["unet_shallow"] == 2
