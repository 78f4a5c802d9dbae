"""Noise schedules from diffusers' configs, against their formulas; what is malformed is named."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nano_runtime.errors import StepsError, UnsupportedScheduleError
from nano_runtime.sampling.sampler_table import RECORDS
from nano_runtime.sampling.samplers import make_sampler
from nano_runtime.sampling.schedule import Schedule, spaced_timesteps, whole_timesteps
from nano_runtime.sampling.scheduler_classes import CLASSES
from nano_runtime.sampling.settings import settings_of


def shares_of(**config) -> np.ndarray:
    return Schedule.from_config({"_class_name": "DDIMScheduler", **config}).alphas_cumprod


@pytest.mark.parametrize(
    ("config", "betas"),
    [
        ({}, np.linspace(0.0001, 0.02, 1000)),
        ({"beta_start": 0.01, "beta_end": 0.3, "num_train_timesteps": 7}, np.linspace(0.01, 0.3, 7)),
        ({"beta_schedule": "scaled_linear"}, np.linspace(0.0001**0.5, 0.02**0.5, 1000) ** 2),
        ({"trained_betas": [0.1, 0.2, 0.4], "num_train_timesteps": 3}, np.array([0.1, 0.2, 0.4])),
        ({"trained_betas": None}, np.linspace(0.0001, 0.02, 1000)),
        ({"_class_name": "LCMScheduler"}, np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
        ({"num_train_timesteps": 1}, np.array([0.0001])),
    ],
    ids=str,
)
def test_shares_of_the_picture_are_what_the_betas_leave(config, betas):
    shares = shares_of(**config)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares, np.cumprod(1 - betas), rtol=1e-4)
    assert not np.allclose(shares, np.cumprod(1 - 1.01 * betas), rtol=1e-4, atol=0) or len(betas) == 1


def test_a_cosine_schedule_falls_like_a_squared_cosine():
    time = (np.arange(1, 1001) / 1000 + 0.008) / 1.008 * math.pi / 2
    expected = np.cos(time) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    np.testing.assert_allclose(shares_of(beta_schedule="squaredcos_cap_v2")[:998], expected[:998], rtol=1e-3)


def test_a_rescaled_schedule_ends_at_pure_noise_and_begins_where_it_did():
    plain, rescaled = shares_of(), shares_of(rescale_betas_zero_snr=True)
    assert rescaled[-1] == 0 < plain[-1]
    assert rescaled[0] == pytest.approx(plain[0], rel=1e-6)
    root, last = np.sqrt(plain.astype(np.float64)), math.sqrt(plain[-1])
    expected = ((root - last) * root[0] / (root[0] - last)) ** 2
    np.testing.assert_allclose(rescaled, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("spacing", "offset", "expected"),
    [
        ("leading", 0, [750, 500, 250, 0]),
        ("leading", 1, [751, 501, 251, 1]),
        ("linspace", 0, [999, 666, 333, 0]),
        ("trailing", 0, [999, 749, 499, 249]),
        ("trailing", 1, [999, 749, 499, 249]),  # an offset concerns the leading spacing only
    ],
)
def test_timesteps_are_spaced_as_the_table_of_lin_says(spacing, offset, expected):
    settings = settings_of({"timestep_spacing": spacing, "steps_offset": offset}, "DDIMScheduler")
    assert whole_timesteps(settings, 4).tolist() == expected
    assert spaced_timesteps(settings, 4, 4).tolist() == expected


def test_timesteps_that_are_not_whole_are_rounded_or_kept():
    settings = settings_of({"timestep_spacing": "linspace"}, "DDIMScheduler")
    assert whole_timesteps(settings, 3).tolist() == [999, 500, 0]  # 499.5, to even
    assert make_sampler("euler", Schedule.from_config({}), 3).timesteps.tolist() == [999, 499.5, 0]


@pytest.mark.parametrize(("steps", "most"), [(0, 1000), (-3, 1000), (1001, 1000), (999, None)])
def test_steps_that_do_not_fit_name_the_most_that_do(steps, most):
    settings = settings_of({"timestep_spacing": "leading", "steps_offset": 1}, "DDIMScheduler")
    if most is None:
        assert len(whole_timesteps(settings, steps)) == steps
        with pytest.raises(StepsError, match="from 1 to 999"):
            whole_timesteps(settings, 1000)  # the first timestep would be 1000
    else:
        with pytest.raises(StepsError, match=f"from 1 to {most}"):
            whole_timesteps(settings, steps)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"num_train_timesteps": 0}, "num_train_timesteps"),
        ({"num_train_timesteps": 1000.0}, "num_train_timesteps"),
        ({"beta_start": 1}, "beta_start"),
        ({"beta_end": "0.02"}, "beta_end"),
        ({"beta_schedule": "cubic"}, "beta_schedule"),
        ({"prediction_type": "flow"}, "prediction_type"),
        ({"timestep_spacing": 1}, "timestep_spacing"),
        ({"steps_offset": -1}, "steps_offset"),
        ({"clip_sample": [True]}, "clip_sample"),
        ({"clip_sample_range": 0}, "clip_sample_range"),
        ({"trained_betas": [0.1, 2]}, "trained_betas"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"solver_order": 0}, "solver_order"),
        ({"lambda_min_clipped": "low"}, "lambda_min_clipped"),
        ({"final_sigmas_type": None}, "final_sigmas_type"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "use_beta_sigmas"),
        ({"shift_terminal": 0.1}, "shift_terminal"),
        ({"variance_type": "learned_range"}, "variance_type"),
        ({"_use_default_values": "beta_end"}, "_use_default_values"),
    ],
    ids=str,
)
def test_what_a_schedule_cannot_be_is_named_by_every_class_that_has_the_key(config, key):
    classes = {record.diffusers for record in RECORDS.values()}
    known = {kind for kind in classes if key in CLASSES[kind] or key.startswith("_")}
    assert known
    for kind in known:
        with pytest.raises(UnsupportedScheduleError, match=f"{key}="):
            settings_of(config, kind)
    for kind in classes - known:
        settings_of({name: value for name, value in config.items() if name == key}, kind)  # which it does not look at


def test_keys_that_a_class_filled_in_by_itself_count_as_absent():
    config = {"beta_end": 0.5, "timestep_spacing": "trailing", "_use_default_values": ["beta_end", "timestep_spacing"]}
    plain = settings_of({}, "DDIMScheduler")
    assert settings_of(config, "DDIMScheduler") == plain
    assert settings_of({**config, "_class_name": "PNDMScheduler"}, "DDIMScheduler") == plain
    own = settings_of({**config, "_class_name": "DDIMScheduler"}, "DDIMScheduler")  # the class itself keeps them
    assert (own.beta_end, own.timestep_spacing) == (0.5, "trailing")
    assert settings_of({"beta_end": 0.5}, "DDIMScheduler") == replace(plain, beta_end=0.5)
    assert settings_of({"colour": "teal", "_note": 1}, "DDIMScheduler") == plain


@pytest.mark.parametrize("said", [True, 1, 1.0, "true", "false", False, 0, "", None])
def test_a_switch_is_on_where_python_takes_it_for_true(said):
    """As diffusers' ``if self.config.thresholding`` does."""
    settings = settings_of({"thresholding": said, "clip_sample": said}, "DDIMScheduler")
    assert (settings.thresholding, settings.clip_sample) == (bool(said), bool(said))


def test_strings_stand_for_numbers_that_json_has_not():
    for said in (-math.inf, "-Infinity", None):  # as Python has it, as manifests have it, as older exporters lost it
        settings = settings_of({"lambda_min_clipped": said}, "DPMSolverMultistepScheduler")
        assert settings.lambda_min_clipped == -math.inf
    for said in ("Infinity", "NaN"):
        with pytest.raises(UnsupportedScheduleError, match="lambda_min_clipped"):
            settings_of({"lambda_min_clipped": said}, "DPMSolverMultistepScheduler")
