"""Scheduler configs of every class and key: completed, drawn and refused as diffusers' own pipelines do it."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from pathlib import Path
from typing import get_args

import diffusers
import numpy as np
import pytest
from bench.parity import CONFIG, distance
from tests.parity.scheduler_configs import IMPLEMENTED, random_config
from tests.parity.scheduler_trajectories import drawn_by, is_finite, pipelines_scheduler, theirs

from nano_export.source.rounding import with_torchs_rounding
from nano_export.source.scheduler import completed, config_file
from nano_runtime.bundle.wiring import Task
from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.samplers import FALLBACK, RECORDS, make_sampler, own_sampler
from nano_runtime.sampling.samplers.levels import trained_levels
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.scheduler_classes import CLASSES

TOLERANCE = 1e-5  # of the largest latent, at every step; see test_samplers.py
MISTAKE = 1e-4
STEPS = (10, 20, 4, 25)
SDE = "DPMSolverSDEScheduler"  # needs torchsde, and is a dummy without


def outcome(seed: int) -> str:
    """Draw a random config both ways, and say in a word how that went."""
    said = random_config(seed)
    kind, steps = said["_class_name"], STEPS[seed % len(STEPS)]
    steps = min(steps, 10) if kind == "LMSDiscreteScheduler" else steps  # whose integrals take diffusers a second
    try:
        mine, why = drawn_by(with_torchs_rounding(completed(said, kind)), steps), ""
    except UnsupportedScheduleError as error:
        mine, why = [], str(error)
    try:
        expected = theirs(pipelines_scheduler(said, kind), steps)
    except Exception:  # noqa: BLE001 - diffusers' schedulers fail in many ways
        return "diffusers fails"
    if not is_finite(expected):
        return "diffusers draws no picture"
    if not mine:
        return f"refused: {why}"
    return "equal" if distance(mine, expected) < TOLERANCE else "other"


@pytest.mark.parametrize("kind", CLASSES)
def test_keys_and_defaults_are_those_of_the_class(kind):
    if kind == SDE:
        folder = Path(diffusers.__file__).parent / "schedulers"
        tree = ast.parse((folder / "scheduling_dpmsolver_sde.py").read_text())
        body = next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == kind).body
        made = next(one for one in body if isinstance(one, ast.FunctionDef) and one.name == "__init__").args
        known = {arg.arg: ast.literal_eval(value) for arg, value in zip(made.args[1:], made.defaults, strict=True)}
    else:
        parameters = list(inspect.signature(getattr(diffusers, kind).__init__).parameters.items())[1:]
        known = {name: parameter.default for name, parameter in parameters}
    assert CLASSES[kind] == known


@pytest.mark.parametrize("task", get_args(Task))
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow if "KDPM2" in kind else ()) for kind in sorted(set(CLASSES) - {SDE})],
)
def test_a_config_ends_up_as_in_diffusers_pipeline(kind, task):
    """The class's own file, an empty one, one of another class, and one that says all that is corrected."""
    corrected = {"steps_offset": 0, "clip_sample": True, "skip_prk_steps": False}
    full = {key: value for key, value in CLASSES[kind].items() if value is not None}
    of_pndm = {"_class_name": "PNDMScheduler", **CONFIG, "_note": 1, "colour": "teal"}
    noted = {**of_pndm, "timestep_spacing": "leading", "_use_default_values": ["timestep_spacing", "beta_end"]}
    dpm = {"_class_name": "DPMSolverMultistepScheduler", "solver_type": "midpoint", "solver_order": 3}
    for said in ({"_class_name": kind}, full, of_pndm, noted, {**CONFIG, **corrected}, dpm):
        if kind == "SASolverScheduler" and "solver_order" in said:
            continue
        expected = dict(pipelines_scheduler(said, kind, task).config)
        mine = completed(said, kind, task)
        assert mine.pop("_class_name") == kind
        assert expected.pop("_class_name", kind) == kind
        if "_diffusers_version" not in said:
            expected.pop("_diffusers_version", None)  # which a warning about the config leaves in it
        assert set(mine.pop("_use_default_values", ())) == set(expected.pop("_use_default_values", ()))
        assert mine == expected


def test_random_configs_are_drawn_as_diffusers_draws_them():
    found = Counter(outcome(seed) for seed in range(16))
    assert found.keys() <= {"equal", "diffusers fails", "diffusers draws no picture"}, found
    assert found["equal"] > 12


@pytest.mark.slow
def test_thousands_of_configs_are_drawn_as_diffusers_draws_them():
    """A few dozen differ: where noise levels are in the thousands, rounding is magnified as much."""
    found = Counter(outcome(seed) for seed in range(16, 3000))
    refused = {key: count for key, count in found.items() if key.startswith("refused")}
    assert found["other"] < 0.03 * found.total(), found
    assert sum(refused.values()) < 0.005 * found.total(), refused
    assert found["equal"] > 0.85 * found.total(), found


@pytest.mark.parametrize("spread", ["exponential", "beta"])
@pytest.mark.parametrize("kind", ["DPMSolverSinglestepScheduler", "DEISMultistepScheduler"])
def test_timesteps_that_are_cut_are_those_of_torchs_roots(kind, spread):
    """The first is the last that was trained or the one before, as the last bit of its level decides."""
    moved = 0
    for count in (200, 400, 500, 1000):
        said = {"_class_name": kind, **CONFIG, "num_train_timesteps": count, f"use_{spread}_sigmas": True}
        expected = pipelines_scheduler(said, kind)
        expected.set_timesteps(10)
        config = with_torchs_rounding(completed(said, kind))
        assert timesteps(config) == expected.timesteps.tolist()
        level = trained_levels(Schedule.from_config(completed(said, kind)).own)[-1]
        around = [{**config, "_noisiest_level": float(np.nextafter(level, to))} for to in (np.inf, np.float32(0))]
        moved += timesteps(around[0]) != timesteps(around[1])
    assert moved > 0


def timesteps(config):
    return make_sampler(own_sampler(config), Schedule.from_config(config), 10).timesteps.tolist()


def test_a_level_that_is_noted_is_for_its_own_class_alone():
    said = {"_class_name": "UniPCMultistepScheduler", **CONFIG, "_noisiest_level": 9.0}
    schedule = Schedule.from_config(said)
    assert schedule.settings(RECORDS["unipc"]).noisiest_level == 9.0
    assert schedule.settings(RECORDS["dpmpp_2m"]).noisiest_level is None
    assert "_noisiest_level" not in config_file(said)
    with pytest.raises(UnsupportedScheduleError, match="_noisiest_level"):
        Schedule.from_config({**said, "_noisiest_level": -1.0})


def test_leftovers_of_other_classes_do_not_stop_a_class_without_them():
    kind = "EDMDPMSolverMultistepScheduler"
    said = {"_class_name": kind, "trained_betas": [0.1] * 7, "beta_schedule": "sigmoid"}
    expected = theirs(pipelines_scheduler(said, kind), 4)
    assert distance(drawn_by(completed(said, kind), 4), expected) < TOLERANCE


def test_configs_of_all_classes_are_made():
    kinds = Counter(random_config(seed)["_class_name"] for seed in range(400))
    assert set(kinds) == set(IMPLEMENTED)


@pytest.mark.parametrize("kind", ["DDIMScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler"])
def test_a_correction_that_is_left_out_is_noticed(kind):
    said = {**CONFIG, "_class_name": kind, "timestep_spacing": "leading", "steps_offset": 0, "clip_sample": True}
    expected = theirs(pipelines_scheduler(said, kind), 10)
    assert distance(drawn_by(completed(said, kind), 10), expected) < TOLERANCE
    assert distance(drawn_by(said, 10), expected) > MISTAKE


@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m", "unipc", "pndm"])
def test_another_class_takes_a_completed_config_as_diffusers_does(name):
    """Defaults that the own class filled in do not count for it, but corrections of what the file said do."""
    said = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "steps_offset": 0, "skip_prk_steps": True}
    live = pipelines_scheduler(said, "DDIMScheduler").config
    expected = getattr(diffusers, RECORDS[name].diffusers).from_config(live)
    expected.set_timesteps(10)
    mine = make_sampler(name, Schedule.from_config(completed(said, "DDIMScheduler")), 10).timesteps
    assert mine.tolist() == pytest.approx(expected.timesteps.tolist())
    assert Schedule.from_config(completed(said, "DDIMScheduler")).settings(RECORDS["heun"]).beta_end == 0.012


def test_what_replaces_a_class_follows_its_config_as_diffusers_does():
    said = {"_class_name": SDE, **CONFIG, "timestep_spacing": "trailing", "use_karras_sigmas": True}
    expected = getattr(diffusers, RECORDS[FALLBACK].diffusers).from_config(completed(said, SDE))
    mine = Schedule.from_config(completed(said, SDE)).settings(RECORDS[FALLBACK])
    assert mine.timestep_spacing == expected.config.timestep_spacing == "trailing"
    assert mine.beta_start == expected.config.beta_start
