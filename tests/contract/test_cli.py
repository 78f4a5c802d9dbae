"""The commands as users run them, on real bundles: what they print, how they end, what they leave behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def run(command: str, *arguments: object, cwd: Path, text: str | None = None) -> Done:
    done = subprocess.run(
        [SCRIPTS / command, *map(str, arguments)], cwd=cwd, input=text, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def without(bundle: Path, target: Path, backend: str) -> Path:
    """A bundle that was exported without an engine, as far as its manifest goes."""
    copy = Path(shutil.copytree(bundle, target))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["backends"].remove(backend)
    for component in manifest["components"].values():
        del component["graphs"][backend]
    (copy / "manifest.json").unlink()  # it is a link
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def flipped(bundle: Path, target: Path, name: str) -> Path:
    """A bundle with one bit of one file changed, in the middle."""
    copy = Path(shutil.copytree(bundle, target))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    return copy


@pytest.fixture
def place(tmp_path) -> Path:
    """An empty folder to work in."""
    place = tmp_path / "place"
    place.mkdir()
    return place


def test_the_exporter_reports_what_it_made(fp32, int8):
    for bundle, least_db in ((fp32, 70), (int8, 20)):
        report = json.loads(bundle.with_suffix(".json").read_text())
        assert report["path"] == str(bundle)
        assert report["size_bytes"] == sum(
            path.stat().st_size for path in bundle.rglob("*") if path.is_file() and path.name != "manifest.json"
        )
        for scores in report["fidelity"].values():
            assert min(scores["component_psnr_db"].values()) > least_db
        quantization = json.loads((bundle / "manifest.json").read_text())["quantization"]
        assert report["changes"] == ([] if quantization is None else quantization["changes"])
        # Of this export: beside it, another process of the test run may be exporting something else.
        assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(f".{bundle.name}")] == []


@pytest.mark.parametrize("bundle", ["fp32", "int8", "sd1"])
def test_a_fresh_bundle_verifies(bundle, place, request):
    done = run("nano-bundle", "verify", request.getfixturevalue(bundle), cwd=place)
    assert (done.code, done.err) == (0, "")
    assert "are as the manifest says" in done.out


def test_a_bundle_says_nothing_of_the_machine_that_made_it(sd1, sd1_checkpoint):
    home = str(sd1_checkpoint.parent).encode()
    assert [path for path in sd1.rglob("*") if path.is_file() and home in path.read_bytes()] == []
    assert b"cross_attention_dim" in (sd1 / "unet" / "config.json").read_bytes()  # the config that could have


def test_info_tells_fidelity_per_graph_and_engine(int8, place):
    done = run("nano-bundle", "info", int8, cwd=place)
    assert (done.code, done.err) == (0, "")
    for words in (
        "hoisted",
        "int8",
        "128 x 128",
        "unet_prompt",
        "whole pictures",
        "onnxruntime",
        "openvino",
        " dB, SSIM ",
    ):
        assert words in done.out


def test_a_prompt_becomes_a_png_that_its_own_metadata_draws_again(int8, place):
    few = ["--steps", 2, "--scheduler", "pndm"]
    done = run("nano-generate", "a red fox", "--bundle", int8, *few, "--seed", 5, "--json", cwd=place)
    assert done.code == 0
    assert "2 steps of pndm = 3 UNet calls" in done.err
    report = json.loads(done.out)
    assert report["images"][0]["path"] == "nano-5.png"
    assert report["unet_calls"] == 3  # PNDM makes one more
    with Image.open(place / "nano-5.png") as image:
        first = np.asarray(image.convert("RGB"))
    assert first.shape == (128, 128, 3)

    two = ["--seed", 4, "-n", 2, "-o", "."]
    done = run("nano-generate", "-", "--bundle", int8, *few, *two, cwd=place, text="a red fox\n")
    assert (done.code, done.out.split()) == (0, ["nano-4.png", "nano-5-2.png"])
    with Image.open(place / "nano-5-2.png") as image:
        again = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(again - first).max() <= 2  # another batch size rounds its sums elsewhere
    with Image.open(place / "nano-4.png") as image:
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - first).max() > 50


def test_an_empty_prompt_is_a_prompt(fp32, place):
    done = run(
        "nano-generate", "", "--bundle", fp32, "--steps", 1, "-o", "nothing.png", "--scheduler", "ddim", cwd=place
    )
    assert (done.code, done.out) == (0, "nothing.png\n")
    assert [path.name for path in place.iterdir()] == ["nothing.png"]


@pytest.mark.slow
def test_bench_times_every_engine_and_says_what_it_could_do(fp32, int8, place):
    done = run(
        "nano-bench", fp32, int8, "--runs", 1, "--starts", 1, "--steps", 2, "--scheduler", "pndm", "--profile",
        "--json", "t.json", cwd=place,
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert "Least: what" in done.out
    assert done.out.count("| 16x16 conv") == 8  # in the UNet and the decoder of four cases
    assert [path.name for path in place.iterdir()] == ["t.json"]
    results = json.loads((place / "t.json").read_text())["results"]
    assert {(one["weights"], one["case"]["backend"]) for one in results} == {
        (weights, backend) for weights in ("fp32", "int8") for backend in ("onnxruntime", "openvino")
    }
    for one in results:
        assert_every_call_was_timed(one)
        assert_starts_were_measured(one)
        for component, limit in one["limit_ms"].items():
            assert_products_are_accounted_for(one["profile"][component], limit)


def assert_every_call_was_timed(one):
    """Two steps of PNDM are three UNet calls of two rows; a picture takes as long as them, its limit as theirs."""
    assert {name: len(samples) for name, samples in one["run_ms"].items()} == {
        "text_encoder": 1, "unet_prompt": 1, "unet": 3, "vae_decoder": 1,
    }  # fmt: skip
    assert one["rows"] == {"text_encoder": 1, "unet_prompt": 1, "unet": 2, "vae_decoder": 1}
    assert one["image_ms"][0] > sum(one["run_ms"]["unet"])
    assert one["image_limit_ms"] == pytest.approx(
        sum(one["limit_ms"][name] * len(samples) for name, samples in one["run_ms"].items())
    )


def assert_starts_were_measured(one):
    """A start with a new prompt and one with a prompt drawn before; memory is more than what is not files."""
    assert one["starts"][0]["first_png_ms"] > 0
    assert one["again"]["first_png_ms"] > 0
    assert one["starts"][0]["peak_rss_bytes"] > one["starts"][0]["peak_anonymous_bytes"] > 10e6


def assert_products_are_accounted_for(groups, limit_ms):
    """Every group of products in a component's profile was found and timed, and no product fell beside them."""
    matrix = [group for group in groups if group["limit_ms"] is not None]
    assert all(group["operators"] > 0 and group["ms"] > 0 for group in matrix)
    assert sum(group["limit_ms"] for group in matrix) == pytest.approx(limit_ms)
    kinds = {group["name"].rpartition(" ")[2] for group in matrix}
    others = {group["name"] for group in groups} - {group["name"] for group in matrix}
    assert not others & {"conv", "matmul", "attention"}
    assert kinds <= {"conv", "matmul", "attention"}


def test_bench_sweeps_and_does_without_limits(int8, tmp_path, place):
    old = Path(shutil.copytree(int8, tmp_path / "old"))
    manifest = json.loads((old / "manifest.json").read_text())
    for component in manifest["components"].values():
        del component["work"]  # as earlier exporters wrote it
    (old / "manifest.json").write_text(json.dumps(manifest))
    sweep = ["--count", "1,5", "--threads", "1", "--guidance", "1", "--backend", "onnxruntime"]
    few = ["--runs", "1", "--starts", "0", "--steps", "1"]
    done = run("nano-bench", old, *sweep, *few, "--json", "t.json", cwd=place)
    assert (done.code, done.err) == (0, "")
    assert "export it again" in done.out
    assert "Least: what" not in done.out
    assert "f32, 1 thread, n=5" in done.out
    one, five = json.loads((place / "t.json").read_text())["results"]
    assert (one["case"]["pictures"], five["case"]["pictures"]) == (1, 5)
    assert (one["rates"], one["image_limit_ms"], one["limit_ms"]) == (None, None, {})
    assert (one["starts"], one["again"]) == ([], None)
    assert (one["rows"]["unet"], len(one["run_ms"]["unet"])) == (1, 1)
    assert five["rows"]["unet"] * len(five["run_ms"]["unet"]) == 5  # however they were grouped
    assert five["rows"]["vae_decoder"] * len(five["run_ms"]["vae_decoder"]) == 5


@pytest.mark.parametrize(
    ("option", "value"), [("--count", "0"), ("--threads", "1,0"), ("--starts", "-1"), ("-n", "two")]
)
def test_bench_refuses_what_is_no_number_of_things(option, value, int8, place):
    done = run("nano-bench", int8, option, value, cwd=place)
    assert (done.code, done.out) == (2, "")
    assert "cannot be used" in done.err or "invalid" in done.err


BAD = {
    "an engine the bundle lacks": ("without", ["--backend", "openvino"], 2, "has no graphs for openvino"),
    "a changed graph": ("flipped graph", [], 3, "unet/model.onnx.data is not the file the manifest describes: blake3"),
    "a changed tokenizer": ("flipped tokenizer", [], 3, "tokenizer.json is not the file the manifest describes"),
    "no bundle": ("empty", [], 3, "is not a bundle"),
    "no steps": ("good", ["--steps", "0"], 2, "0 steps cannot be run"),
    "more steps than the schedule has": ("good", ["--steps", "1001"], 2, "1001 steps cannot be run"),
    "a negative seed": ("good", ["--seed", "-2"], 2, "the seed -2 is out of range"),
    "a seed of 65 bits": ("good", ["--seed", str(2**64)], 2, f"the seed {2**64} is out of range"),
    "an unknown scheduler": ("good", ["--scheduler", "DPM fast"], 2, "there is no scheduler 'DPM fast'"),
    "a guidance that is no number": ("good", ["--guidance", "nan"], 2, "the guidance scale nan cannot be used"),
    "no threads": ("good", ["--threads", "0"], 2, "--threads 0 cannot be used"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_two_lines_and_leaves_nothing(case, fp32, tmp_path, place):
    bundle, arguments, code, words = BAD[case]
    folder = tmp_path / "bundle"
    if bundle == "without":
        without(fp32, folder, "openvino")
    elif bundle == "empty":
        folder.mkdir()
    else:
        names = {"flipped graph": "unet/model.onnx.data", "flipped tokenizer": "tokenizer/tokenizer.json"}
        shutil.copytree(fp32, folder) if bundle == "good" else flipped(fp32, folder, names[bundle])
    engine = [] if "--backend" in arguments else ["--backend", "onnxruntime"]
    done = run("nano-generate", "a fox", "--bundle", folder, "--steps", 1, *engine, *arguments, cwd=place)
    assert done.code == code
    assert done.out == ""
    error = [line for line in done.err.splitlines() if "UNet calls" not in line]  # the plan, told before
    assert error[0].startswith("nano-generate: ")
    assert words in error[0]
    assert 2 <= len(error) <= 3
    assert list(place.iterdir()) == []


def test_a_megabyte_of_prompt_is_refused(fp32, place):
    done = run("nano-generate", "-", "--bundle", fp32, "--backend", "onnxruntime", cwd=place, text="fox " * 250_000)
    assert done.code == 2
    assert "the prompt cannot be used: it has 999999 bytes" in done.err
    assert len(done.err) < 500  # it is not repeated
    assert list(place.iterdir()) == []


def test_verify_finds_one_flipped_bit(fp32, tmp_path, place):
    bundle = flipped(fp32, tmp_path / "bundle", "vae_decoder/openvino_model.bin")
    done = run("nano-bundle", "verify", bundle, cwd=place)
    assert (done.code, done.out) == (3, "")
    assert "vae_decoder/openvino_model.bin is not the file the manifest describes" in done.err
