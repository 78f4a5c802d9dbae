"""Schedules and timesteps against diffusers': the same float32 values, the same defaults for keys a config lacks."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import scipy.stats
from diffusers import DDIMScheduler, LCMScheduler, PNDMScheduler

from nano_runtime.errors import StepsError, UnsupportedScheduleError
from nano_runtime.sampling.samplers import SAMPLERS, SPREADABLE, make_sampler
from nano_runtime.sampling.samplers.quantile import beta_quantile
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.scheduler_classes import CLASSES

# The scheduler config of Stable Diffusion 2.1: written by an old diffusers, so without timestep_spacing.
SD21 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.16.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
# One for each way of laying out timesteps; the others share its code, and are checked at fewer numbers of steps.
EVERY_NUMBER_OF_STEPS = {"pndm", "ddim", "euler", "dpmpp_2m", "lcm"}
TEACHERS_STEPS = 50
SCHEDULES = {
    "sd21": SD21,
    "linear": {"beta_schedule": "linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "short": {"num_train_timesteps": 37, "beta_schedule": "scaled_linear", "beta_start": 0.01, "beta_end": 0.2},
    "single": {"num_train_timesteps": 1},
    "given": {"trained_betas": [0.01, 0.02, 0.05, 0.3], "num_train_timesteps": 4},
}


# diffusers' KDPM2 lays out all levels when it is made, one by one: a second each time.
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("dpm2") else name for name in SAMPLERS]
WITH_LEVELS = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("dpm2") else name for name in SPREADABLE]


def assert_timesteps(name: str, mine: np.ndarray, expected: np.ndarray) -> None:
    """Equal, but for timesteps in the middle of a step, of which diffusers computes a logarithm in torch."""
    if name.startswith("dpm2"):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-4)
    else:
        np.testing.assert_array_equal(mine, expected)


def reference(name: str, config: dict[str, object]):
    return getattr(diffusers, SAMPLERS[name].diffusers).from_config(config)


def steps_diffusers_can_do(name: str, most: int, spacing: str) -> range:
    """Steps up to ``most`` for which diffusers' timesteps stay in the schedule and are distinct."""
    stride = 1 if name in EVERY_NUMBER_OF_STEPS else 199 if name.startswith("dpm2") else 19  # a second in diffusers
    if name in {"lcm", "tcd"}:
        return range(1, TEACHERS_STEPS + 1, stride)
    if "Multistep" in SAMPLERS[name].diffusers and spacing != "trailing":
        return range(1, most - 1, stride)
    return range(1, most, stride)


@pytest.mark.parametrize("config", SCHEDULES.values(), ids=SCHEDULES)
def test_alphas_cumprod_are_equal(config):
    theirs = DDIMScheduler.from_config(config).alphas_cumprod.numpy()
    ours = Schedule.from_config(config).alphas_cumprod
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)


def test_alphas_cumprod_of_zero_terminal_snr_are_close():
    # Not equal: numpy's float32 square root is correctly rounded, torch's is not everywhere. It makes up to 3.6e-7.
    config = {**SD21, "_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}
    theirs = DDIMScheduler.from_config(config).alphas_cumprod.numpy()
    ours = Schedule.from_config(config).alphas_cumprod
    assert ours[-1] == theirs[-1] == 0
    assert np.abs(ours - theirs).max() < 1e-6
    assert np.abs(Schedule.from_config(SD21).alphas_cumprod - theirs).max() > 1e-3


def test_alphas_cumprod_notice_a_small_change():
    ours = Schedule.from_config(SD21)
    theirs = DDIMScheduler.from_config(SD21).alphas_cumprod.numpy()
    for changed in (ours.but(beta_end=0.012001), ours.but(beta_schedule="linear")):
        assert not np.array_equal(changed.alphas_cumprod, theirs)


@pytest.mark.parametrize("spacing", [None, "leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", NAMES)
def test_timesteps_are_equal_for_every_number_of_steps(name, spacing):
    config = SD21 if spacing is None else {**SD21, "timestep_spacing": spacing}
    theirs = reference(name, config)
    schedule = Schedule.from_config(config)
    for steps in steps_diffusers_can_do(name, 1000, spacing):
        theirs.set_timesteps(steps)
        expected = theirs.timesteps.numpy()
        expected = expected[expected >= 0]  # diffusers' trailing spacing overshoots; see spaced_timesteps
        assert_timesteps(name, make_sampler(name, schedule, steps).timesteps, expected.astype(np.float32))


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("spread", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("name", WITH_LEVELS)
def test_timesteps_of_spread_noise_levels_are_equal(name, spread, beta_schedule):
    """Equal, not close: some are cut to whole numbers, where the least difference would be one."""
    if name == "dpm2_a" and beta_schedule == "squaredcos_cap_v2":
        return  # diffusers takes the root of a difference that is zero except for rounding: NaN
    config = {**SD21, "beta_schedule": beta_schedule}
    theirs = reference(name, {**config, f"use_{spread}_sigmas": True})
    schedule = Schedule.from_config(config)
    for steps in (3, 7) if name == "dpm2_a" else (1, 2, 3, 7, 20) if name == "dpm2" else (1, 2, 3, 7, 20, 50):
        theirs.set_timesteps(steps)
        expected = theirs.timesteps.numpy().astype(np.float32)
        mine = make_sampler(f"{name}_{spread}", schedule, steps).timesteps
        if name in {"euler", "heun", "lms"}:
            np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=1e-6)
        else:
            assert_timesteps(name, mine, expected)
        if steps > 2:
            assert not np.array_equal(make_sampler(name, schedule, steps).timesteps, expected)


def test_quantiles_of_the_beta_distribution_are_scipys():
    shares = np.concatenate([np.linspace(0, 1, 401), 1e-12 * np.arange(5), 1 - 1e-12 * np.arange(5)])
    for shape in (0.2, 0.6, 1.0):
        mine, theirs = beta_quantile(shares, shape), scipy.stats.beta.ppf(shares, shape, shape)
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-15)
        assert abs(mine - scipy.stats.beta.ppf(shares, shape + 1e-6, shape + 1e-6)).max() > 1e-8
    assert beta_quantile(np.array([0.0, 1.0]), 0.6).tolist() == [0, 1]  # exactly: whole timesteps depend on it


def test_timesteps_notice_an_offset():
    theirs = DDIMScheduler.from_config(SD21)
    theirs.set_timesteps(20)
    schedule = Schedule.from_config(SD21).but(steps_offset=0)
    assert not np.array_equal(make_sampler("ddim", schedule, 20).timesteps, theirs.timesteps.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_defaults_filled_in_by_another_class_do_not_count(name):
    """A live config carries all of its class's defaults and a note of which they are."""
    live = PNDMScheduler.from_config(SD21).config
    assert live["timestep_spacing"] == "leading"
    theirs = reference(name, live)
    theirs.set_timesteps(20)
    ours = make_sampler(name, Schedule.from_config(live), 20)
    assert_timesteps(name, ours.timesteps, theirs.timesteps.numpy().astype(np.float32))
    # Without the note the default counts, here as in diffusers.
    plain = {key: value for key, value in live.items() if key != "_use_default_values"}
    expected = make_sampler(name, Schedule.from_config({**SD21, "timestep_spacing": "leading"}), 20)
    np.testing.assert_array_equal(make_sampler(name, Schedule.from_config(plain), 20).timesteps, expected.timesteps)


def test_betas_are_those_of_the_class_that_wrote_the_config():
    said = {"_class_name": "LCMScheduler"}
    mine = Schedule.from_config(said).alphas_cumprod
    np.testing.assert_array_equal(mine, LCMScheduler.from_config(said).alphas_cumprod.numpy())
    assert not np.array_equal(mine, Schedule.from_config({}).alphas_cumprod)


def test_unknown_keys_are_ignored():
    assert Schedule.from_config({**SD21, "_note": 1, "sample_max_value": -1.0}).own == Schedule.from_config(SD21).own


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta_schedule", "cubic"),
        ("beta_schedule", ["linear"]),
        ("beta_start", 0),
        ("beta_end", float("nan")),
        ("beta_end", "0.012"),
        ("prediction_type", "flow"),
        ("timestep_spacing", None),
        ("steps_offset", -1),
        ("steps_offset", 1.0),
        ("set_alpha_to_one", [1]),
        ("clip_sample_range", float("inf")),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", True),
        ("num_train_timesteps", 10**9),
        ("trained_betas", [0.1] * 999),
        ("trained_betas", [0.1, None]),
        ("final_sigmas_type", "sigma_max"),
        ("original_inference_steps", 0),
        ("timestep_scaling", -10.0),
        ("variance_type", "learned_range"),
    ],
)
def test_unsupported_values_are_named(key, value):
    implemented = {record.diffusers for record in SAMPLERS.values()}
    for kind in (kind for kind in CLASSES if kind in implemented and key in CLASSES[kind]):
        with pytest.raises(UnsupportedScheduleError, match=key):
            Schedule.from_config({**SD21, "_class_name": kind, key: value})


@pytest.mark.parametrize(
    ("name", "steps", "most"),
    [
        ("pndm", 0, 1000),
        ("ddim", -1, 1000),
        ("euler", 1001, 1000),
        ("pndm", 1000, 999),  # steps_offset pushes the first timestep out of the schedule
        ("dpmpp_2m", 1000, 998),  # and DPM-Solver++ lays out one timestep more
    ],
)
def test_steps_outside_the_schedule_name_the_most(name, steps, most):
    schedule = Schedule.from_config(SD21).but(timestep_spacing="leading")
    with pytest.raises(StepsError, match=f"1 to {most};"):
        make_sampler(name, schedule, steps)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_most_steps_can_be_run(name):
    schedule = Schedule.from_config(SD21).but(timestep_spacing="leading")
    make_sampler(name, schedule, TEACHERS_STEPS if name in {"lcm", "tcd"} else 998)
