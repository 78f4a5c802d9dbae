"""Guidance and the denoising loop, with real samplers and networks that can be worked out by hand."""

from __future__ import annotations

import sys
from itertools import islice
from subprocess import run

import numpy as np
import pytest

from nano_runtime.errors import NonFiniteError
from nano_runtime.sampling.denoise import Step, denoise, guide
from nano_runtime.sampling.noise import noise_source, randn
from nano_runtime.sampling.samplers import SAMPLERS, make_sampler
from nano_runtime.sampling.schedule import Schedule

SCHEDULE = Schedule.from_config(
    {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "set_alpha_to_one": True,
        "clip_sample": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }
)
SHAPE = (2, 4, 8, 8)
PICTURE = np.linspace(-2, 2, 512, dtype=np.float32).reshape(SHAPE)


def first_latents(sampler):
    return randn(0, SHAPE) * np.float32(sampler.mixing.init_noise_sigma)


def knows_the_picture(sampler, picture):
    """The ideal network for a world with one picture: the noise is whatever is left when the picture is taken away."""
    share = np.interp(sampler.timesteps, np.arange(1000), SCHEDULE.alphas_cumprod)

    def predict(latents, index):
        return ((latents - np.sqrt(share[index]) * picture) / np.sqrt(1 - share[index])).astype(np.float32)

    return predict


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_network_that_knows_the_picture_draws_it(name):
    sampler = make_sampler(name, SCHEDULE, 20, noise_source((1, 2), SHAPE[1:]))
    steps = list(denoise(knows_the_picture(sampler, PICTURE), sampler, first_latents(sampler)))
    # Every method is exact where all calls agree on the picture; 1e-6 is what float32 leaves. TCD stays at timestep 0,
    # and LCM keeps 7e-6 of the last call's latents.
    assert np.abs(steps[-1].latents - PICTURE).max() < {"tcd": 0.1, "lcm": 1e-4, "deis": 0.2}.get(name, 1e-5)
    assert np.abs(steps[0].latents - PICTURE).max() > 0.5  # and not at once


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_call_is_one_step(name):
    sampler = make_sampler(name, SCHEDULE, 7, noise_source((1, 2), SHAPE[1:]))
    seen = []

    def predict(latents, index):
        seen.append((index, latents.copy()))
        return np.tanh(latents)

    latents = first_latents(sampler)
    before = latents.copy()
    steps = list(denoise(predict, sampler, latents))
    np.testing.assert_array_equal(latents, before)
    assert [step.index for step in steps] == [index for index, _ in seen] == list(range(len(sampler.timesteps)))
    assert [step.timestep for step in steps] == sampler.timesteps.tolist()
    assert all(step.latents.dtype == np.float32 and step.latents.shape == SHAPE for step in steps)
    # The network sees unit variance at first, whatever the sampler's own scale.
    assert seen[0][1].std() == pytest.approx(randn(0, SHAPE).std(), rel=1e-2)
    again = make_sampler(name, SCHEDULE, 7)
    for (index, given), step in zip(seen[1:], steps, strict=False):
        np.testing.assert_array_equal(given, again.mixing.scale_model_input(step.latents, index))


def test_stopping_early_calls_no_further():
    calls = []

    def predict(latents, index):
        calls.append(index)
        return latents

    steps = list(islice(denoise(predict, make_sampler("ddim", SCHEDULE, 20), randn(0, SHAPE)), 3))
    assert calls == [0, 1, 2]
    assert [step.index for step in steps] == calls


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_stop_the_loop(poison):
    def predict(latents, index):
        output = np.zeros_like(latents)
        output[1, 2, 3, 4] = poison if index == 4 else 0
        return output

    seen: list[Step] = []
    with pytest.raises(NonFiniteError, match=r"unet.*call 5 of 20, timestep 751"):
        seen.extend(denoise(predict, make_sampler("ddim", SCHEDULE, 20), randn(0, SHAPE)))


def test_a_graph_that_computes_nan_is_named_with_the_call():
    def predict(latents, index):
        if index == 4:
            raise NonFiniteError("unet", "output 'out_sample'")
        return latents

    with pytest.raises(NonFiniteError, match=r"unet.*call 5 of 20, timestep 751"):
        list(denoise(predict, make_sampler("ddim", SCHEDULE, 20), randn(0, SHAPE)))


def test_a_sampler_that_overflows_is_not_taken_for_the_network():
    def predict(latents, index):
        return np.full_like(latents, 3e38 if index == 2 else 0)

    with np.errstate(over="ignore"), pytest.raises(NonFiniteError, match=r"the sampler .*call 3 of 20"):
        list(denoise(predict, make_sampler("ddim", SCHEDULE, 20), -randn(0, SHAPE)))


def test_a_start_in_the_middle_leaves_out_the_calls_before():
    sampler = make_sampler("ddim", SCHEDULE, 20)
    noised = sampler.mixing.add_noise(PICTURE, randn(0, SHAPE), 12)
    steps = list(denoise(knows_the_picture(sampler, PICTURE), sampler, noised, 12))
    assert [step.index for step in steps] == list(range(12, 20))
    assert np.abs(steps[-1].latents - PICTURE).max() < 1e-5
    assert np.abs(noised - PICTURE).max() > 0.5


def test_guidance_extrapolates_from_the_unconditional_prediction():
    uncond, cond = np.array([1, 2, -3], np.float32), np.array([2, 2, 1], np.float32)
    np.testing.assert_array_equal(guide(uncond, cond, 0), uncond)
    np.testing.assert_array_equal(guide(uncond, cond, 1), cond)
    np.testing.assert_array_equal(guide(uncond, cond, 7.5), np.array([8.5, 2, 27], np.float32))
    assert guide(uncond, cond, np.float64(7.5)).dtype == np.float32


def test_the_numerics_import_numpy_and_nothing_heavier():
    heavy = ["onnxruntime", "openvino", "tokenizers", "PIL", "torch", "diffusers", "transformers", "huggingface_hub"]
    code = f"""
import sys
from nano_runtime.networks import tokenizer
from nano_runtime.sampling import denoise, noise, samplers, schedule
print(*[name for name in {heavy!r} if name in sys.modules])
"""
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
