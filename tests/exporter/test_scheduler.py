"""A checkpoint's scheduler: which class and values, what is refused before anything is read, what is replaced."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.scheduler_trajectories import pipelines_scheduler

from nano_export.errors import CheckpointError, SchedulerError, UnsupportedModelError
from nano_export.source.diffusers_scheduler import diffusers_scheduler
from nano_export.source.scheduler import check_whole_timesteps, completed, config_file, scheduler_of
from nano_runtime.sampling.samplers import make_sampler
from nano_runtime.sampling.schedule import Schedule
from nano_runtime.sampling.settings import settings_of

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PNDM = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1}


@pytest.fixture
def checkpoint(tmp_path):
    """Write the two files that say which scheduler a checkpoint has, and return their folder."""

    def written(config, named=("diffusers", None)):
        (tmp_path / "scheduler").mkdir(exist_ok=True)
        (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
        index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
        if named is not None:
            index["scheduler"] = [named[0], config.get("_class_name") if named[1] is None else named[1]]
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        return tmp_path

    return written


def test_the_class_of_the_index_counts(checkpoint):
    found = scheduler_of(checkpoint(PNDM, ("diffusers", "EulerDiscreteScheduler")), "text-to-image")
    assert found["_class_name"] == "EulerDiscreteScheduler"
    assert found["timestep_spacing"] == "linspace"
    assert found["skip_prk_steps"]  # the other class's key is kept, for samplers of that class
    assert "timestep_spacing" in found["_use_default_values"]
    assert scheduler_of(checkpoint(PNDM, None), "text-to-image")["_class_name"] == "PNDMScheduler"


@pytest.mark.parametrize(
    ("task", "corrected"),
    [
        ("text-to-image", {"steps_offset": 1, "clip_sample": False, "skip_prk_steps": False}),
        ("inpainting", {"steps_offset": 1, "clip_sample": True, "skip_prk_steps": True}),
        ("instruct-pix2pix", {"steps_offset": 0, "clip_sample": True, "skip_prk_steps": False}),
    ],
)
def test_each_pipeline_corrects_what_diffusers_corrects(checkpoint, task, corrected):
    said = {**PNDM, "steps_offset": 0, "clip_sample": True, "skip_prk_steps": False}
    found = scheduler_of(checkpoint(said), task)
    assert {key: found[key] for key in corrected} == corrected


@pytest.mark.parametrize("on", [True, 1])
def test_a_number_for_a_switch_is_drawn_as_diffusers_draws_it(checkpoint, on):
    """Its pipelines correct only what "is True" or "is False"; its schedulers take 1 for on."""
    said = {"_class_name": "DDIMScheduler", **BETAS, "clip_sample": on, "clip_sample_range": 0.5, "thresholding": 0}
    found = scheduler_of(checkpoint(said), "text-to-image")
    theirs = pipelines_scheduler(said, "DDIMScheduler")
    assert found["clip_sample"] == theirs.config.clip_sample == (on is not True)
    mine = make_sampler("ddim", Schedule.from_config(found), 4)
    theirs.set_timesteps(4)
    noise = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
    expected = theirs.step(torch.from_numpy(noise[::-1].copy()), theirs.timesteps[0], torch.from_numpy(noise))
    assert np.abs(mine.step(noise[::-1], 0, noise) - expected.prev_sample.numpy()).max() < 1e-5
    assert settings_of({**found, "skip_prk_steps": 0}, "PNDMScheduler").skip_prk_steps is False
    of_pndm = {**PNDM, "skip_prk_steps": 0}
    corrected = pipelines_scheduler(of_pndm, "PNDMScheduler", "inpainting").config.skip_prk_steps
    assert completed(of_pndm, "PNDMScheduler", "inpainting")["skip_prk_steps"] == corrected == 0


@pytest.mark.parametrize("said", [None, "-Infinity", -math.inf])
def test_minus_infinity_is_read_in_all_forms_that_programs_give_it(checkpoint, said):
    """JavaScript writes null, and others a string; diffusers itself draws the third alone."""
    config = {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": said}
    assert scheduler_of(checkpoint(config), "text-to-image")["lambda_min_clipped"] == -math.inf


@pytest.mark.parametrize("key", [{"use_karras_sigmas": None}, {"use_karras_sigmas": "true"}, {"trained_betas": "x"}])
def test_what_diffusers_itself_fails_with_is_said_in_its_words(key):
    config = completed({"_class_name": "DPMSolverMultistepScheduler", **BETAS, **key}, "DPMSolverMultistepScheduler")
    with pytest.raises(SchedulerError, match="diffusers' DPMSolverMultistepScheduler fails with it"):
        diffusers_scheduler(config, Path("scheduler_config.json"))


def test_minus_infinity_survives_and_the_note_of_defaults_is_not_written(checkpoint):
    said = {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -math.inf}
    found = scheduler_of(checkpoint(said), "text-to-image")
    assert found["lambda_min_clipped"] == -math.inf
    file = config_file(found)
    assert "_use_default_values" not in file
    assert '"lambda_min_clipped": -Infinity' in json.dumps(file)


@pytest.mark.parametrize(
    ("config", "named", "words"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, None, "FlowMatchEulerDiscreteScheduler"),
        (PNDM, ("diffusers", "NoSuchScheduler"), "NoSuchScheduler"),
        (PNDM, ("my_scheduler", "MyScheduler"), "my_scheduler"),
        ({}, None, "scheduler None"),
        ({**PNDM, "prediction_type": "sample"}, None, "prediction_type='sample'"),
        ({**PNDM, "beta_schedule": "cubic"}, None, "beta_schedule='cubic'"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, None, "variance_type='learned_range'"),
        ({"_class_name": "UniPCMultistepScheduler", "lower_order_final": False}, None, "lower_order_final=False"),
        ({"_class_name": "DPMSolverSDEScheduler", "beta_schedule": "cubic"}, None, "beta_schedule='cubic'"),
        (
            {
                "_class_name": "DEISMultistepScheduler",
                "beta_schedule": "squaredcos_cap_v2",
                "use_karras_sigmas": True,
            },
            None,
            "the first two of 10 timesteps are one",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(checkpoint, config, named, words):
    with pytest.raises((UnsupportedModelError, SchedulerError), match=words):
        scheduler_of(checkpoint(config, named), "text-to-image")


def test_files_that_are_missing_or_damaged_are_named(tmp_path, checkpoint):
    with pytest.raises(CheckpointError, match="scheduler_config"):
        scheduler_of(tmp_path, "text-to-image")
    folder = checkpoint(PNDM)
    (folder / "scheduler" / "scheduler_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is not a JSON object"):
        scheduler_of(folder, "text-to-image")


@pytest.mark.parametrize("kind", ["DPMSolverSDEScheduler", "SASolverScheduler"])
def test_a_class_that_is_replaced_is_named_in_one_line(checkpoint, kind, caplog):
    with caplog.at_level(logging.WARNING):
        assert scheduler_of(checkpoint({"_class_name": kind}), "text-to-image")["_class_name"] == kind
    assert f"{kind} is not implemented; euler takes its place" in caplog.text
    caplog.clear()
    scheduler_of(checkpoint(PNDM), "text-to-image")
    assert not caplog.records


@pytest.mark.parametrize(
    ("kind", "keys", "warned"),
    [
        ("PNDMScheduler", {}, False),
        ("DDIMScheduler", {}, False),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, False),
        ("EulerDiscreteScheduler", {}, True),  # whole in 10 steps, not in 20
        ("KDPM2DiscreteScheduler", {}, None),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, None),
    ],
    ids=str,
)
def test_graphs_of_whole_timesteps_are_for_samplers_that_ask_for_no_others(kind, keys, warned, caplog):
    config = completed({"_class_name": kind, **keys}, kind)
    if warned is None:
        with pytest.raises(SchedulerError, match=f"{kind} asks for timesteps that are no whole numbers"):
            check_whole_timesteps(config)
        return
    with caplog.at_level(logging.WARNING):
        check_whole_timesteps(config)
    assert ("fractional timesteps" in caplog.text) == warned


def test_reading_a_scheduler_imports_no_torch():
    code = "import sys, nano_export.source.scheduler; print({'torch', 'diffusers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
