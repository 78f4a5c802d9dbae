"""Schedules whose values are each within their range: drawn with, or refused, whatever they come to together."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from nano_runtime.errors import BundleError, NoNumbersError, UsageError
from nano_runtime.sampling.arithmetic import arithmetic
from nano_runtime.sampling.denoise import denoise
from nano_runtime.sampling.samplers import RECORDS, make_sampler, own_sampler, split_name
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.scheduler_classes import CLASSES

FEW, FULL = 300, 6000
SHARES = (1e-300, 1e-45, 1e-12, 1e-9, 1e-4, 0.00085, 0.012, 0.02, 0.5, 0.999, 1 - 1e-9, 1 - 1e-16)
NUMBERS = (5e-324, 1e-300, 1e-9, 0.002, 0.5, 1.0, 3.0, 7.0, 80.0, 1e9, 1e39, 1e160, 1e300, 1.7e308)
SWITCHES = (True, False)
COUNTS = (1, 2, 3, 10, 50, 999, 1000)
VALUES: Mapping[str, tuple[Any, ...]] = {
    "num_train_timesteps": COUNTS,
    "beta_start": SHARES,
    "beta_end": SHARES,
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "exp", "sigmoid", "laplace"),
    "prediction_type": ("epsilon", "v_prediction", "sample", "flow_prediction"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "steps_offset": (0, 1, 2, 999, 1 << 31, 1 << 62),
    "clip_sample_range": NUMBERS,
    "dynamic_thresholding_ratio": (0, 1e-300, 0.5, 0.995, 1),
    "sample_max_value": NUMBERS,
    "final_sigmas_type": ("zero", "sigma_min"),
    "original_inference_steps": COUNTS,
    "timestep_scaling": NUMBERS,
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large"),
    "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis"),
    "solver_type": ("midpoint", "heun", "bh1", "bh2", "logrho"),
    "solver_order": (1, 2, 3, 4, 1000, 1 << 62),
    "disable_corrector": ([], [0], [-1, 1 << 62]),
    "lambda_min_clipped": (-1e308, -5.1, 0, 5, 1e308),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "sigma_min": (None, *NUMBERS),
    "sigma_max": (None, *NUMBERS),
    "sigma_data": NUMBERS,
    "sigma_schedule": ("karras", "exponential"),
    "rho": NUMBERS,
    "snr_shift_scale": NUMBERS,
    "flow_shift": NUMBERS,
    "shift_terminal": (None, *SHARES),
    "_noisiest_level": (None, *NUMBERS),
}
CASES = {
    "exponential levels": {
        "_class_name": "EulerDiscreteScheduler",
        "use_exponential_sigmas": True,
        "beta_start": 1e-12,
    },
    "tiny betas": {"_class_name": "DDPMScheduler", "beta_start": 1e-12, "beta_end": 1e-12},
    "rising noise": {
        "_class_name": "DPMSolverMultistepScheduler",
        "beta_start": 1e-9,
        "beta_end": 1e-12,
        "timestep_spacing": "trailing",
    },
    "huge scaling": {"_class_name": "LCMScheduler", "timestep_scaling": 1e300, "original_inference_steps": 50},
}


def random_schedule(dice: random.Random) -> dict[str, Any]:
    kind = dice.choice(sorted({record.diffusers for record in RECORDS.values()}))
    config: dict[str, Any] = {"_class_name": kind}
    for key, default in CLASSES[kind].items():
        if dice.random() < 0.4:
            choice = VALUES.get(key, SWITCHES if isinstance(default, bool) else (default,))
            config[key] = dice.choice(choice)
    return config


def outcome(config: dict[str, Any], dice: random.Random) -> str:
    """Draw four numbers with a schedule, by its own sampler or another one; anything but an error of ours is raised."""
    try:
        schedule = Schedule.from_config(config)
        name = own_sampler(config) if dice.random() < 0.7 else dice.choice(sorted(RECORDS))
        latents = np.full((1, 1, 2, 2), 0.5, np.float32)
        sampler = make_sampler(name, schedule, dice.choice((1, 2, 3, 20)), latents.copy)
        first = dice.randrange(0, len(sampler.timesteps), RECORDS[split_name(name)[0]].calls_per_step)
        with arithmetic(name):
            if first:
                latents = sampler.mixing.add_noise(latents, latents, first)
            latents = latents * np.float32(sampler.mixing.init_noise_sigma)
        for step in denoise(lambda given, _: given * np.float32(0.5), sampler, latents, first):
            assert step.latents.shape == (1, 1, 2, 2)
    except BundleError as error:
        return "none" if isinstance(error, NoNumbersError) else "refused"
    except UsageError:
        return "usage"
    return "drawn"


def test_random_schedules_are_drawn_with_or_refused(full):
    dice = random.Random(21)  # noqa: S311 - to be repeated, not to be secret
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(FULL if full else FEW):
            config = random_schedule(dice)
            try:
                found.append(outcome(config, dice))
            except BaseException as error:
                error.add_note(str(config)) if hasattr(error, "add_note") else None
                raise
    assert {"none", "refused", "drawn"} <= {*found}
    assert found.count("drawn") > 0.1 * len(found)


@pytest.mark.parametrize("case", CASES)
def test_numbers_that_lead_to_none_are_refused(case):
    with pytest.raises(BundleError, match=r"schedule|sampler"):
        _draw(CASES[case])


def _draw(config: dict[str, Any]) -> None:
    schedule = Schedule.from_config({"num_train_timesteps": 1000, **config})
    latents = np.full((1, 1, 2, 2), 0.5, np.float32)
    sampler = make_sampler(own_sampler(dict(schedule.config)), schedule, 20, latents.copy)
    for _ in denoise(lambda given, _: given, sampler, latents):
        pass


@pytest.mark.parametrize("betas", [[0.5], [1e-9] * 10, [0.999] * 1000])
def test_odd_schedules_that_can_be_drawn_with_are(betas):
    """Reference: the product of what each step leaves. It may fall to 0 in float32, and diffusers draws with it."""
    schedule = Schedule.from_config(
        {"_class_name": "DDIMScheduler", "trained_betas": betas, "num_train_timesteps": len(betas)}
    )
    expected = [math.prod(1 - beta for beta in betas[: index + 1]) for index in range(len(betas))]
    np.testing.assert_allclose(schedule.alphas_cumprod, expected, rtol=1e-3, atol=1e-40)  # 1 - beta is rounded
