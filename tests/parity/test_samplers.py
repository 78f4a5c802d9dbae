"""Samplers against diffusers' schedulers: whole trajectories with a small nonlinear network, step by step."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from bench.parity import (
    CONFIG,
    REFERENCES,
    SEEDS,
    SHAPE,
    STEPS,
    distance,
    drawn,
    network,
    ours,
    reference,
    theirs,
)

from nano_runtime.errors import StepsError, StrengthError, UnknownSchedulerError, UnsupportedScheduleError
from nano_runtime.sampling.noise import noise_source, randn
from nano_runtime.sampling.samplers import SAMPLERS, SPREADABLE, first_call, make_sampler, own_sampler, split_name
from nano_runtime.sampling.samplers.ddim import DDIM
from nano_runtime.sampling.schedule import Schedule

SPREADS = {"trained": "", "karras": "_karras", "exponential": "_exponential", "beta": "_beta"}
REFUSES_PICTURES = {"pndm", "euler_a", "dpm2", "dpm2_a"}
NOISY = {name for name, of in REFERENCES.items() if of.noisy}


# Relative to the largest latent of a step. diffusers keeps its coefficients in float32 and so carries their rounding,
# 6e-8 each, through every step; 8.5e-6 is the largest distance seen here (Heun, the whole schedule in two steps).
TOLERANCE = 1e-5
# The level of almost pure noise is the root of 2^24 - 1. torch rounds it up or down, depending on the processor: a
# difference of 6e-8 in latents that Euler's first of ten steps takes from level 4096 to 18. 3e-5 was seen.
ROUNDED_NOISE = 5e-5
# Every deliberate mistake below must exceed ten times the tolerance, so that none is near it.
MISTAKE = 1e-4


# diffusers' KDPM2 lays out all levels when it is made, one by one: a second each time.
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("dpm2") else name for name in SAMPLERS]
WITH_LEVELS = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("dpm2") else name for name in SPREADABLE]


def kinds(name: str) -> list[str]:
    unknown = {"sample"} if name in REFUSES_PICTURES else set()
    return sorted({"epsilon", "v_prediction", "sample"} - unknown)


@pytest.mark.parametrize("spacing", [None, "leading", pytest.param("linspace", marks=pytest.mark.slow), "trailing"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=pytest.mark.slow if name.startswith("dpm2") else ())
        for name in SAMPLERS
        for kind in kinds(name)
    ],
)
def test_trajectories_are_diffusers(name, kind, spacing):
    config = {**CONFIG, "prediction_type": kind}
    if spacing is not None:
        config["timestep_spacing"] = spacing
    # diffusers' LMS integrates numerically, and its KDPM2 looks timesteps up one by one: a second a trajectory. In few
    # steps, the ancestral one subtracts nearly equal numbers.
    lengths = {"lms": STEPS[:-1], "dpm2": (1, 2, 5), "dpm2_a": (5, 10)}.get(name, STEPS)
    for steps in lengths:
        assert distance(drawn(name, Schedule.from_config(config), steps), theirs(name, config, steps)) < TOLERANCE, (
            steps
        )


@pytest.mark.parametrize("spread", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("name", WITH_LEVELS)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"timestep_spacing": "leading", "final_sigmas_type": "sigma_min"},
        {"timestep_spacing": "trailing", "beta_schedule": "squaredcos_cap_v2"},
    ],
    ids=str,
)
def test_spread_noise_levels_are_diffusers(name, spread, change):
    config = {**CONFIG, **change}
    schedule, full = Schedule.from_config(config), f"{name}_{spread}"
    if name == "dpm2_a" and "beta_schedule" in change:
        return  # diffusers takes the root of a difference that is zero except for rounding: NaN
    lengths = {"heun": (2, 9), "lms": (2, 9), "dpm2": (2, 9), "dpm2_a": (9,)}.get(name, (1, 2, 9, 20))
    for steps in lengths:  # diffusers lays out a thousand levels first
        if name == "dpmpp_3m" and steps == 20 and change.get("final_sigmas_type") == "sigma_min":
            # The last step has no width, and diffusers divides by it: there is nothing to compare with.
            assert np.isfinite(drawn(full, schedule, steps)[-1]).all()
            continue
        if name == "unipc" and steps == 1 and change.get("final_sigmas_type") == "sigma_min":
            continue  # diffusers takes the only level for the last, and does not move
        assert distance(drawn(full, schedule, steps), theirs(full, config, steps)) < TOLERANCE, steps


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "change",
    [
        {"set_alpha_to_one": True},
        {"clip_sample": True, "clip_sample_range": 0.7},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        {"final_sigmas_type": "sigma_min"},
        {"original_inference_steps": 25, "timestep_scaling": 3.0},
    ],
    ids=str,
)
def test_options_have_diffusers_effect(name, change):
    config = {**CONFIG, **change}
    cosine = "squaredcos_cap_v2" in change.values()
    if (name == "ddim_a" and "rescale_betas_zero_snr" in change) or (name == "dpm2_a" and cosine):
        # diffusers takes the root of a difference that is zero except for rounding: 2e-4, or NaN.
        assert np.isfinite(drawn(name, Schedule.from_config(config), 10)[-1]).all()
        return
    # If torch's root of the largest noise equals numpy's, the usual tolerance applies.
    noise = np.full(16, 2**24 - 1, np.float32)
    rounded = bool((torch.from_numpy(noise).sqrt().numpy() != np.sqrt(noise)).any())
    affected = rounded and name in {"euler", "euler_a"} and "rescale_betas_zero_snr" in change
    tolerance = ROUNDED_NOISE if affected else TOLERANCE
    for steps in (10, 20):
        assert distance(drawn(name, Schedule.from_config(config), steps), theirs(name, config, steps)) < tolerance


@pytest.mark.parametrize("name", NAMES)
def test_absent_keys_take_the_defaults_of_each_class(name):
    config = {"skip_prk_steps": True, "_class_name": REFERENCES[name].diffusers}
    assert distance(drawn(name, Schedule.from_config(config), 10), theirs(name, config, 10)) < TOLERANCE


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_adds_any_share_of_noise(eta, monkeypatch):
    monkeypatch.setitem(REFERENCES, "ddim_a", replace(REFERENCES["ddim_a"], step_options={"eta": eta}))
    noise, schedule = noise_source(SEEDS, SHAPE[1:]), Schedule.from_config(CONFIG)
    mine = ours(DDIM(schedule.settings(SAMPLERS["ddim"]), 20, noise, eta), noise)
    assert distance(mine, theirs("ddim_a", CONFIG, 20)) < TOLERANCE
    monkeypatch.setitem(REFERENCES, "ddim_a", replace(REFERENCES["ddim_a"], step_options={"eta": eta / 2 + 0.2001}))
    assert distance(mine, theirs("ddim_a", CONFIG, 20)) > MISTAKE


def test_a_batch_draws_what_diffusers_draws_for_a_list_of_generators():
    from diffusers.utils.torch_utils import randn_tensor  # noqa: PLC0415 - for this test only

    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    noise, alone = noise_source(SEEDS, SHAPE[1:]), noise_source(SEEDS[1:], SHAPE[1:])
    for _ in range(3):
        mine = noise()
        np.testing.assert_array_equal(mine, randn_tensor(SHAPE, generator=generators).numpy())
        np.testing.assert_array_equal(mine[1:], alone())  # whatever is drawn with it


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"lcm", "tcd", "dpmpp_2s"}))  # they have timesteps of their own
def test_an_offset_off_by_one_is_noticed(name):
    config = {**CONFIG, "timestep_spacing": "leading"}
    wrong = Schedule.from_config(config).but(steps_offset=0)
    assert distance(drawn(name, wrong, 20), theirs(name, config, 20)) > MISTAKE


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_the_wrong_teacher_is_noticed(name):
    wrong = Schedule.from_config(CONFIG).but(original_inference_steps=40)
    assert distance(drawn(name, wrong, 4), theirs(name, CONFIG, 4)) > MISTAKE


@pytest.mark.parametrize("name", NAMES)
def test_the_wrong_prediction_type_is_noticed(name):
    wrong = Schedule.from_config({**CONFIG, "prediction_type": "v_prediction"})
    assert distance(drawn(name, wrong, 20), theirs(name, CONFIG, 20)) > MISTAKE


@pytest.mark.parametrize("name", ["pndm", "ddim", "ddim_a"])
def test_the_wrong_end_of_the_schedule_is_noticed(name):
    wrong = Schedule.from_config(CONFIG).but(set_alpha_to_one=True)
    assert distance(drawn(name, wrong, 20), theirs(name, CONFIG, 20)) > MISTAKE


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "unipc"])
def test_the_wrong_last_noise_level_is_noticed(name):
    wrong = Schedule.from_config(CONFIG).but(final_sigmas_type="sigma_min")
    assert distance(drawn(name, wrong, 20), theirs(name, CONFIG, 20)) > MISTAKE


@pytest.mark.parametrize("name", sorted(NOISY))
def test_noise_of_another_seed_is_noticed(name):
    def other() -> np.ndarray:
        return next(draws)

    first, later = noise_source(SEEDS, SHAPE[1:]), noise_source((5, 6), SHAPE[1:])
    draws = iter([first(), *(later() for _ in range(20))])
    sampler = make_sampler(name, Schedule.from_config(CONFIG), 20, other)
    assert distance(ours(sampler, other), theirs(name, CONFIG, 20)) > MISTAKE


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - NOISY))
def test_a_sampler_that_adds_no_noise_asks_for_none(name):
    schedule, latents = Schedule.from_config(CONFIG), randn(0, SHAPE)
    make_sampler(name, schedule, 5).step(latents, 0, latents)
    with pytest.raises(TypeError, match="without a source"):
        make_sampler("euler_a", schedule, 5).step(latents, 0, latents)


def test_samplers_and_spreads_are_not_each_other():
    names = [*SAMPLERS, *(f"{name}_{spread}" for name in SPREADABLE for spread in ("karras", "exponential", "beta"))]
    schedule = Schedule.from_config(CONFIG)
    mine = {name: drawn(name, schedule, 20)[-1] for name in names}
    for name in SAMPLERS:
        reference_latents = theirs(name, CONFIG, 20)[-1]
        for other in set(names) - {name}:
            assert abs(mine[other] - reference_latents).max() > MISTAKE, (name, other)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_leaves_its_arguments_alone(name):
    noise = noise_source(SEEDS, SHAPE[1:])
    sampler, latents = make_sampler(name, Schedule.from_config(CONFIG), 5, noise), randn(1, SHAPE)
    for index, timestep in enumerate(sampler.timesteps.tolist()):
        before = latents.copy()
        output = network(sampler.mixing.scale_model_input(latents, index), timestep)
        given = output.copy()
        after = sampler.step(output, index, latents)
        assert after.dtype == np.float32
        np.testing.assert_array_equal(latents, before)
        np.testing.assert_array_equal(output, given)
        latents = after


@pytest.mark.parametrize("name", ["pndm", "heun", "lms", "dpmpp_2m", "dpmpp_3m", "unipc"])
def test_history_matters(name):
    """A sampler that forgets between calls is of first order, and is found out."""
    schedule = Schedule.from_config(CONFIG)
    noise = noise_source(SEEDS, SHAPE[1:])
    latents = noise() * np.float32(make_sampler(name, schedule, 20).mixing.init_noise_sigma)
    for index, timestep in enumerate(make_sampler(name, schedule, 20).timesteps.tolist()):
        fresh = make_sampler(name, schedule, 20)
        output = network(fresh.mixing.scale_model_input(latents, index), timestep)
        latents = fresh.step(output, index, latents)
    assert abs(latents - theirs(name, CONFIG, 20)[-1]).max() > MISTAKE


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"lms"}))
def test_a_start_in_the_middle_is_diffusers(name):
    """As in img2img, where the first call is not the schedule's first."""
    start, steps = 8, 20
    scheduler, options, _ = reference(name, CONFIG, steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    sampler = make_sampler(name, Schedule.from_config(CONFIG), steps, noise_source(SEEDS, SHAPE[1:]))
    left, right = randn(1, SHAPE), torch.from_numpy(randn(1, SHAPE))
    for index in range(start, len(sampler.timesteps)):
        timestep = scheduler.timesteps[index]
        left = sampler.step(network(sampler.mixing.scale_model_input(left, index), float(timestep)), index, left)
        output = torch.from_numpy(network(scheduler.scale_model_input(right, timestep).numpy(), float(timestep)))
        right = scheduler.step(output, timestep, right, **options).prev_sample
        assert distance([left], [right.numpy()]) < TOLERANCE, index


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_added_to_a_picture_as_diffusers_adds_it(name):
    picture, noise, index, steps = randn(1, SHAPE), randn(2, SHAPE), 8, 20
    scheduler, _, _ = reference(name, CONFIG, steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)
    tensors = torch.from_numpy(picture), torch.from_numpy(noise)
    expected = scheduler.add_noise(*tensors, scheduler.timesteps[index : index + 1]).numpy()
    sampler = make_sampler(name, Schedule.from_config(CONFIG), steps)
    assert distance([sampler.mixing.add_noise(picture, noise, index)], [expected]) < TOLERANCE
    assert distance([sampler.mixing.add_noise(picture, noise, index + 1)], [expected]) > MISTAKE


@pytest.mark.parametrize("name", NAMES)
def test_strength_leaves_out_the_calls_that_diffusers_leaves_out(name):
    for steps, strength in ((20, 0.8), (20, 0.05), (10, 1.0), (7, 0.29), (50, 0.58)):  # the last is 28.999... steps
        scheduler, _, _ = reference(name, CONFIG, steps)
        begun = SimpleNamespace(scheduler=scheduler)
        expected, _ = diffusers.StableDiffusionImg2ImgPipeline.get_timesteps(begun, steps, strength, None)
        timesteps = make_sampler(name, Schedule.from_config(CONFIG), steps).timesteps
        first = first_call(name, steps, strength)
        np.testing.assert_allclose(timesteps[first:], expected.numpy(), rtol=1e-6, atol=1e-5)
        assert len(timesteps[first + 1 :]) != len(expected)
    with pytest.raises(StrengthError):
        first_call(name, 20, 0.049)


def test_lms_starts_in_the_middle_as_euler_does():
    """diffusers' class weighs four slopes there, of which it has one."""
    schedule, latents = Schedule.from_config(CONFIG), randn(1, SHAPE) * np.float32(3)
    lms, euler = (make_sampler(name, schedule, 20) for name in ("lms", "euler"))
    np.testing.assert_allclose(lms.step(latents, 8, latents), euler.step(latents, 8, latents), rtol=0, atol=TOLERANCE)
    assert abs(lms.step(-latents, 9, latents) - euler.step(-latents, 9, latents)).max() > MISTAKE


def test_how_often_the_network_is_called():
    schedule = Schedule.from_config(CONFIG)
    calls = {name: [len(make_sampler(name, schedule, steps).timesteps) for steps in (1, 2, 20)] for name in SAMPLERS}
    assert calls.pop("pndm") == [1, 3, 21]
    assert {tuple(calls.pop(name)) for name in ("heun", "dpm2", "dpm2_a")} == {(1, 3, 39)}
    assert set(map(tuple, calls.values())) == {(1, 2, 20)}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"ddim_a", "tcd"}))  # no config says eta
def test_the_name_of_a_config_is_the_sampler_it_describes(name, spread):
    if spread != "trained" and name not in SPREADABLE:
        return
    of = REFERENCES[name]
    change = {} if spread == "trained" else {f"use_{spread}_sigmas": True}
    config = dict(getattr(diffusers, of.diffusers).from_config({**CONFIG, **of.config, **change}).config)
    full = name + SPREADS[spread]
    assert own_sampler({**config, "_class_name": of.diffusers}) == full
    assert split_name(full) == (name, spread)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - set(SPREADABLE) - {"ddim_a", "tcd"}))
def test_a_class_without_spreads_ignores_the_keys_for_them(name):
    """A config that was converted from another class keeps such keys."""
    kind = REFERENCES[name].diffusers
    config = getattr(diffusers, kind).from_config({**CONFIG, "use_karras_sigmas": True}).config
    assert config["use_karras_sigmas"]
    assert own_sampler({**config, "_class_name": kind}) == name


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}, "_class_name"),
        (None, {}, "_class_name"),
        (["PNDMScheduler"], {}, "_class_name"),
        # diffusers refuses these, divides by zero, or takes the logarithm of a negative number.
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, "final_sigmas_type"),
        (
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3},
            "solver_order=3",
        ),
        ("DPMSolverSinglestepScheduler", {"solver_order": 4}, "solver_order"),
        ("UniPCMultistepScheduler", {"lower_order_final": False}, "lower_order_final"),
        ("UniPCMultistepScheduler", {"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ("EulerDiscreteScheduler", {"sigma_max": "high"}, "sigma_max"),
        ("DDPMScheduler", {"variance_type": "fixed_large_log"}, "variance_type"),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "prediction_type"),
    ],
)
def test_a_config_for_no_sampler_here_is_named(kind, change, named):
    with pytest.raises(UnsupportedScheduleError, match=named):
        own_sampler({**CONFIG, "_class_name": kind, **change})


def test_what_a_sampler_cannot_follow_is_refused():
    schedule = Schedule.from_config(CONFIG)
    for name in ("plms", "pndm_karras", "euler_trained", "_karras", "euler_karras_beta"):
        with pytest.raises(UnknownSchedulerError, match=r"pndm, ddim, .* The names euler, .* _karras"):
            make_sampler(name, schedule, 20)
    with pytest.raises(StepsError, match="from 4 to"):
        make_sampler("pndm", schedule.but(skip_prk_steps=False), 3)
    for name in REFUSES_PICTURES:
        with pytest.raises(UnsupportedScheduleError, match="prediction_type"):
            make_sampler(name, schedule.but(prediction_type="sample"), 20)
    nothing_but_noise = schedule.but(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    for name in ("ddim", "ddim_a", "ddpm", "lcm", "tcd"):
        with pytest.raises(UnsupportedScheduleError, match="prediction_type"):
            make_sampler(name, nothing_but_noise, 20)
    for name in ("lcm", "tcd"):
        with pytest.raises(StepsError, match="1 to 50;"):
            make_sampler(name, schedule, 51)


@pytest.mark.parametrize("name", ["deis", "unipc", "dpmpp_2m"])
def test_the_classes_that_read_a_flows_velocity_read_it_as_diffusers(name):
    config = {**CONFIG, "_class_name": SAMPLERS[name].diffusers, "prediction_type": "flow_prediction"}
    assert distance(drawn(name, Schedule.from_config(config), 8), theirs(name, config, 8)) < TOLERANCE
    assert distance(drawn(name, Schedule.from_config(CONFIG), 8), theirs(name, config, 8)) > MISTAKE
