"""What an export is said to need: arithmetic as torch counts it, and only the files that are read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nano_export.options import Options
from nano_export.source import builtin
from nano_export.source.hub import Remote
from nano_export.source.layout import Choice
from nano_export.source.needs import check_resources
from nano_export.source.place import Place, find_model
from nano_export.source.workload import Network, Workload, workload_of
from nano_runtime.bundle.manifest import Source

FP16 = ".fp16.safetensors"


@pytest.fixture(scope="module")
def parts() -> builtin.Parts:
    return builtin.build("tiny")


@pytest.fixture(scope="module")
def original(parts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "nano"
    builtin.write_checkpoint(parts, folder)
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "nano"))


def workload(parts: builtin.Parts, size: int) -> Workload:
    modules = {"text_encoder": parts.text_encoder, "unet": parts.unet, "vae": parts.vae}
    return workload_of(
        {
            name: Network({key: tuple(value.shape) for key, value in module.state_dict().items()}, module.config, 0)
            if name != "text_encoder"
            else Network({}, {}, 0)
            for name, module in modules.items()
        },
        size,
    )


def counted(call) -> float:
    """Multiply-accumulates as torch counts them: half of its operations."""
    with (
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
    ):  # others: not counted
        call()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("size", [64, 128])
def test_arithmetic_is_what_torch_counts(size, parts):
    side = size // 8
    latents, hidden = torch.zeros(1, 4, side, side), torch.zeros(1, 77, 48)
    found = workload(parts, size)
    assert found.unet_macs == pytest.approx(counted(lambda: parts.unet(latents, 1, hidden)), rel=0.01)
    assert found.decoder_macs == pytest.approx(counted(lambda: parts.vae.decode(latents)), rel=0.01)
    assert workload(parts, 2 * size).unet_macs > 3 * found.unet_macs


def needs_of(model: Path | str, **options):
    asked = Options(model=str(model), output=Path("bundle"), **options)
    return check_resources(find_model(str(model), None, None), asked)


def as_fp16(path: Path, to: Path) -> None:
    save_file({name: value.half() for name, value in load_file(path).items()}, to, {"format": "pt"})


def test_files_that_are_not_read_do_not_count(folder):
    alone = needs_of(folder)
    for path in [*folder.glob("*/*.safetensors")]:
        as_fp16(path, path.with_suffix(FP16))
        shutil.copy(path, path.with_suffix(".non_ema.safetensors"))
    shutil.copytree(folder / "unet", folder / "safety_checker")
    assert needs_of(folder).memory_bytes == alone.memory_bytes
    assert needs_of(folder).disk_bytes == alone.disk_bytes


def test_weights_count_in_the_precision_in_which_they_are_loaded(folder, tmp_path):
    half = shutil.copytree(folder, tmp_path / "half")
    for path in [*half.glob("*/*.safetensors")]:
        as_fp16(path, path)
    assert needs_of(half).disk_bytes == needs_of(folder).disk_bytes
    assert needs_of(half).memory_bytes == pytest.approx(needs_of(folder).memory_bytes, rel=0.05)


def test_a_larger_picture_needs_more_memory_and_time(folder):
    small, large = needs_of(folder, size=64), needs_of(folder, size=512)
    assert large.memory_bytes > small.memory_bytes
    assert large.seconds is not None
    assert small.seconds is not None
    assert large.seconds > small.seconds
    assert large.text.startswith("needs about 0.1 GB of disk and ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "about a minute"),
        (60, "up to 2 minutes"),
        (240, "3 to 10 minutes"),
        (3600, "45 to 120 minutes"),
        (3e4, "8 hours or more"),
    ],
)
def test_a_time_is_a_range(folder, seconds, words):
    assert replace(needs_of(folder), seconds=seconds).text.endswith(f" of memory, and {words}")


@pytest.mark.parametrize(("variant", "factor"), [(None, 1), ("fp16", 2)])
def test_a_model_on_the_hub_is_estimated_before_it_is_fetched(variant, factor, tmp_path):
    names = {"text_encoder": 500_000_000, "unet": 3_000_000_000, "vae": 300_000_000}
    weights = {name: Choice(variant, "weights", None, ("leftover",)) for name in names}
    sizes = {f"{name}/weights": size // factor for name, size in names.items()}
    place = Place(Source(model="a/b", revision=None), remote=Remote("a/b", None, variant, weights, sizes))
    needs = check_resources(place, Options(model="a/b", output=tmp_path / "bundle", backends=("onnxruntime",)))
    assert needs.disk_bytes == pytest.approx(3.9e9, rel=0.01)
    assert needs.seconds is None


def test_a_picture_that_may_be_too_large_is_said_and_not_refused(folder):
    needs = replace(needs_of(folder), free_bytes=10**8)
    assert "(0.1 GB are free: it may run out, a smaller --size takes less)" in needs.text
    assert "may run out" not in replace(needs, free_bytes=10**12).text
