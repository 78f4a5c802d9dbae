"""Samplers against diffusers' schedulers: whole trajectories with a small nonlinear network, step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from nano_runtime.errors import UnknownSchedulerError, UnsupportedScheduleError
from nano_runtime.noise import randn
from nano_runtime.samplers import SAMPLERS, Sampler, make_sampler
from nano_runtime.schedule import Schedule

CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
REFERENCES = {
    "pndm": PNDMScheduler,
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
}
STEPS = [1, 2, 5, 20, 50]
SHAPE = (2, 4, 8, 8)
# Of the largest latent of a step. diffusers keeps its coefficients in float32 and so carries their rounding, 6e-8 each,
# through every step; 4.5e-6 is the largest distance seen here.
TOLERANCE = 1e-5
# What every deliberate mistake below must exceed: ten times as much, so that none is near the border.
MISTAKE = 1e-4


def network(latents: np.ndarray, timestep: float) -> np.ndarray:
    """Mix channels and squash, differently at each timestep: smooth, nonlinear, of unit scale."""
    mixed = np.roll(latents, 1, axis=1) * np.float32(0.4) + latents * np.float32(0.8)
    return np.tanh(mixed + np.float32(np.sin(timestep / 150))) * np.float32(0.9)


def ours(sampler: Sampler) -> list[np.ndarray]:
    latents = randn(0, SHAPE) * np.float32(sampler.init_noise_sigma)
    trajectory = [latents]
    for index, timestep in enumerate(sampler.timesteps.tolist()):
        before = latents.copy()
        output = network(sampler.scale_model_input(latents, index), timestep)
        given = output.copy()
        after = sampler.step(output, index, latents)
        assert after.dtype == np.float32
        np.testing.assert_array_equal(latents, before)  # arguments are left alone
        np.testing.assert_array_equal(output, given)
        latents = after
        trajectory.append(latents)
    return trajectory


def theirs(name: str, config: dict, steps: int) -> list[np.ndarray]:
    scheduler = REFERENCES[name].from_config(config)
    scheduler.set_timesteps(steps)
    latents = torch.from_numpy(randn(0, SHAPE)) * scheduler.init_noise_sigma
    trajectory = [latents.numpy()]
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        output = torch.from_numpy(network(scaled.numpy(), float(timestep)))
        latents = scheduler.step(output, timestep, latents).prev_sample
        trajectory.append(latents.numpy())
    return trajectory


def distance(left: list[np.ndarray], right: list[np.ndarray]) -> float:
    """Largest difference at any step, relative to the step's largest latent."""
    assert len(left) == len(right)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(left, right, strict=True))


def kinds(name: str) -> list[str]:
    return ["epsilon", "v_prediction"] if name == "pndm" else ["epsilon", "v_prediction", "sample"]


@pytest.mark.parametrize("spacing", [None, "leading", "linspace", "trailing"])
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in SAMPLERS for kind in kinds(name)])
def test_trajectories_are_diffusers(name, kind, spacing):
    config = {**CONFIG, "prediction_type": kind}
    if spacing is not None:
        config["timestep_spacing"] = spacing
    schedule = Schedule.from_config(config)
    for steps in STEPS:
        assert distance(ours(make_sampler(name, schedule, steps)), theirs(name, config, steps)) < TOLERANCE, steps


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "change",
    [
        {"set_alpha_to_one": True},
        {"clip_sample": True, "clip_sample_range": 0.7},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    ],
    ids=str,
)
def test_options_have_diffusers_effect(name, change):
    config = {**CONFIG, **change}
    sampler = make_sampler(name, Schedule.from_config(config), 10)
    assert distance(ours(sampler), theirs(name, config, 10)) < TOLERANCE


@pytest.mark.parametrize("name", SAMPLERS)
def test_absent_keys_take_the_defaults_of_each_class(name):
    config = {"skip_prk_steps": True}
    sampler = make_sampler(name, Schedule.from_config(config), 10)
    assert distance(ours(sampler), theirs(name, config, 10)) < TOLERANCE


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_offset_off_by_one_is_noticed(name):
    config = {**CONFIG, "timestep_spacing": "leading"}
    wrong = replace(Schedule.from_config(config), steps_offset=0)
    assert distance(ours(make_sampler(name, wrong, 20)), theirs(name, config, 20)) > MISTAKE


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_wrong_prediction_type_is_noticed(name):
    wrong = Schedule.from_config({**CONFIG, "prediction_type": "v_prediction"})
    assert distance(ours(make_sampler(name, wrong, 20)), theirs(name, CONFIG, 20)) > MISTAKE


@pytest.mark.parametrize(("name", "value"), [("pndm", True), ("ddim", True)])
def test_the_wrong_end_of_the_schedule_is_noticed(name, value):
    wrong = replace(Schedule.from_config(CONFIG), set_alpha_to_one=value)
    assert distance(ours(make_sampler(name, wrong, 20)), theirs(name, CONFIG, 20)) > MISTAKE


def test_samplers_are_not_each_other():
    for name in SAMPLERS:
        for other in set(SAMPLERS) - {name}:
            sampler = make_sampler(name, Schedule.from_config(CONFIG), 20)
            reference = theirs(other, CONFIG, 20)
            assert abs(ours(sampler)[-1] - reference[-1]).max() > MISTAKE, (name, other)


@pytest.mark.parametrize("name", ["pndm", "dpmpp_2m"])
def test_history_matters(name):
    """A sampler that forgets between calls is of first order, and is found out."""
    schedule = Schedule.from_config(CONFIG)
    latents = randn(0, SHAPE)
    for index, timestep in enumerate(make_sampler(name, schedule, 20).timesteps.tolist()):
        latents = make_sampler(name, schedule, 20).step(network(latents, timestep), index, latents)
    assert abs(latents - theirs(name, CONFIG, 20)[-1]).max() > MISTAKE


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_start_in_the_middle_is_diffusers(name):
    """As in img2img, where the first call is not the schedule's first."""
    start, steps = 8, 20
    scheduler = REFERENCES[name].from_config(CONFIG)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    sampler = make_sampler(name, Schedule.from_config(CONFIG), steps)
    left, right = randn(1, SHAPE), torch.from_numpy(randn(1, SHAPE))
    for index in range(start, len(sampler.timesteps)):
        timestep = scheduler.timesteps[index]
        left = sampler.step(network(sampler.scale_model_input(left, index), float(timestep)), index, left)
        output = torch.from_numpy(network(scheduler.scale_model_input(right, timestep).numpy(), float(timestep)))
        right = scheduler.step(output, timestep, right).prev_sample
        assert distance([left], [right.numpy()]) < TOLERANCE, index


def test_pndm_calls_the_network_once_more_than_steps():
    schedule = Schedule.from_config(CONFIG)
    assert [len(make_sampler("pndm", schedule, steps).timesteps) for steps in (1, 2, 20)] == [1, 3, 21]


def test_what_a_sampler_cannot_follow_is_refused():
    schedule = Schedule.from_config(CONFIG)
    with pytest.raises(UnknownSchedulerError, match="pndm, ddim, euler, dpmpp_2m"):
        make_sampler("plms", schedule, 20)
    with pytest.raises(UnsupportedScheduleError, match="skip_prk_steps"):
        make_sampler("pndm", replace(schedule, skip_prk_steps=False), 20)
    with pytest.raises(UnsupportedScheduleError, match="prediction_type"):
        make_sampler("pndm", replace(schedule, prediction_type="sample"), 20)
    with pytest.raises(UnsupportedScheduleError, match="prediction_type"):  # noise predicted from nothing but noise
        make_sampler("ddim", replace(schedule, rescale_betas_zero_snr=True, timestep_spacing="trailing"), 20)
