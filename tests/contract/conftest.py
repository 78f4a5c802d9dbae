"""What the contract tests share: three small bundles, exported once, and the checkpoint that one of them came from."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from filelock import FileLock
from tests.kept_work import COMPILED, work_kept
from transformers import CLIPTextConfig, CLIPTextModel

from nano_export import cli
from nano_export.source import builtin
from nano_runtime.pipeline import Pipeline


def export(model: str, target: Path, *options: str) -> Path:
    """Run ``nano-export`` in this process, which has imported torch already; its report goes beside the bundle."""
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        code = cli.main([model, "-o", str(target), "--json", *options])
    assert code == 0
    target.with_suffix(".json").write_text(report.getvalue())
    return target


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder for all processes of a test run."""
    here = tmp_path_factory.getbasetemp()
    folder: Path = (here if os.environ.get("PYTEST_XDIST_WORKER") is None else here.parent) / "bundles"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def compiled(shared) -> Path:
    """OpenVINO's cache of the exports: for tests that load their graphs again, and are not about that."""
    return shared / "work" / COMPILED


@pytest.fixture(scope="session")
def exported(shared) -> Callable[..., Path]:
    """Export a model once for all processes of a test run: the first that needs a bundle makes it, others wait.

    Networks that several models have in common are traced once.
    """

    def once(name: str, model: str, *options: str) -> Path:
        with FileLock(shared / f"{name}.lock"), work_kept(shared / "work"):
            return shared / name if (shared / name).is_dir() else export(model, shared / name, *options)

    return once


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """Keep the commands' compiled graphs out of the cache folder of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def fp32(exported) -> Path:
    """``tiny``, hoisted, for both engines."""
    return exported("fp32", "tiny")


@pytest.fixture(scope="module")
def pipe(fp32) -> Iterator[Pipeline]:
    """The bundle in fp32 on onnxruntime, for a module."""
    pipe = Pipeline.from_pretrained(fp32, "onnxruntime")
    yield pipe
    pipe.close()


@pytest.fixture(scope="session")
def int8(exported) -> Path:
    """The same in INT8."""
    return exported("int8", "tiny", "--int8")


@pytest.fixture(scope="session")
def sd1_checkpoint(tmp_path_factory) -> Path:
    """A small diffusers folder with everything in which Stable Diffusion 1 differs from 2.

    One number of heads for all blocks, convolutions around the attention blocks, another width of the text encoder, its
    quick GELU, and end-of-text as padding. Timesteps are spaced so that every sampler's are whole: in the standard form
    the timestep is an integer, and Euler's own spacing (946.4, ...) would be cut, by which a picture moves 1e-3.
    """
    folder = tmp_path_factory.mktemp("checkpoint") / "sd1"
    tiny = builtin.build("tiny")
    text = {**tiny.text_encoder.config.to_dict(), "hidden_size": 40, "num_attention_heads": 4, "intermediate_size": 80}
    text |= {"hidden_act": "quick_gelu"}
    unet = {**tiny.unet.config, "attention_head_dim": 8, "use_linear_projection": False, "cross_attention_dim": 40}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        parts = replace(
            tiny,
            text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
            unet=UNet2DConditionModel.from_config(unet),
            vae=AutoencoderKL.from_config(tiny.vae.config),
            scheduler={**tiny.scheduler, "timestep_spacing": "leading"},
        )
        # A norm that was never trained leaves no mean, and A1111's weights restore the mean.
        torch.nn.init.normal_(parts.text_encoder.final_layer_norm.bias, 0.1, 0.1)
    builtin.write_checkpoint(parts, folder)
    special = folder / "tokenizer" / "special_tokens_map.json"
    special.write_text(json.dumps({**json.loads(special.read_text()), "pad_token": "<|endoftext|>"}))
    return folder


@pytest.fixture(scope="session")
def sd1(sd1_checkpoint, exported) -> Path:
    """That folder, exported with diffusers' inputs, for both engines."""
    return exported("sd1", str(sd1_checkpoint), "--graph", "standard")
