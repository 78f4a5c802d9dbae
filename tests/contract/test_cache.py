"""What is kept between runs, graphs and what the UNet is told: the same pictures, and nothing damaged or older."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from tests.contract.sealed import copied, rewrite, seal
from tests.results import arrays

from nano_runtime.bundle.manifest import Backend
from nano_runtime.cli import generate
from nano_runtime.errors import TamperedFileError
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.disk_cache import DiskCache

LONG_AGO = (1000, 1000)
CONDITIONING = ("text_encoder", "unet_prompt", "unet_time")


def draw(bundle: Path, cache: Path | None, backend: Backend = "openvino", guidance: float = 7.5) -> np.ndarray:
    """A picture drawn by a fresh pipeline that keeps no prompts: float32 [1, 128, 128, 3]."""
    pipe = Pipeline.from_pretrained(bundle, backend, threads=1, keep_loaded=False, keep_prompts=False, cache=cache)
    return arrays(pipe("a red fox", seed=1, num_inference_steps=1, guidance_scale=guidance, output_type="np"))


def draw_kept(
    bundle: Path, cache: Path, backend: Backend, prompt: str = "a red fox", steps: int = 1
) -> tuple[np.ndarray, list[int]]:
    """The same by a pipeline that keeps prompts, and how often text encoder, prompt and time projections ran."""
    pipe = Pipeline.from_pretrained(bundle, backend, threads=1, cache=cache)
    result = pipe(prompt, seed=1, num_inference_steps=steps, guidance_scale=7.5, output_type="np")
    return arrays(result), [len(result.timings.run_ms.get(name, ())) for name in CONDITIONING]


def state(cache: Path) -> dict[str, tuple[int, bytes]]:
    """Every file: which it is (a replaced file is another one), and its content."""
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in cache.iterdir()}


@pytest.fixture(scope="module")
def expected(int8) -> np.ndarray:
    return draw(int8, None)


@pytest.fixture(scope="module")
def filled(int8, expected, tmp_path_factory) -> Path:
    """The cache after one picture."""
    cache = tmp_path_factory.mktemp("cache")
    np.testing.assert_array_equal(draw(int8, cache), expected)
    return cache


@pytest.fixture
def cache(filled, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(filled, tmp_path / "cache"))


def test_the_next_run_takes_all_graphs_from_the_cache_and_draws_the_same(int8, expected, cache):
    before = state(cache)
    assert len(before) == 5  # every graph that draws
    for path in cache.iterdir():
        os.utime(path, LONG_AGO)
    np.testing.assert_array_equal(draw(int8, cache), expected)
    assert state(cache) == before  # nothing was compiled again
    assert min(path.stat().st_mtime for path in cache.iterdir()) > LONG_AGO[0]  # and everything was read


def test_weights_stay_in_the_bundle(int8, filled):
    """All but biases and scales, 3 % of these small graphs; a form with weights would hold everything."""
    kept = b"".join(path.read_bytes() for path in filled.iterdir())
    weights = (int8 / "unet" / "openvino_model.bin").read_bytes()
    pieces = [weights[start : start + 64] for start in range(0, len(weights) - 64, len(weights) // 400)]
    assert sum(piece in kept for piece in pieces) < 0.1 * len(pieces)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_what_is_damaged_is_made_again(int8, expected, cache, damage):
    before = state(cache)
    for path in cache.iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: {"flipped": len(content), "cut": len(content) // 2, "empty": 0}[damage]])
    np.testing.assert_array_equal(draw(int8, cache), expected)
    assert sorted(state(cache)) == sorted(before)


@pytest.mark.slow
def test_what_the_engine_refuses_is_made_again(int8, expected, tmp_path, monkeypatch):
    """As if another build of the engine had written it under the same version: whole, and of no use."""
    put = DiskCache.put
    with monkeypatch.context() as patch:
        patch.setattr(DiskCache, "put", lambda blobs, key, content: put(blobs, key, b"?" + content))
        draw(int8, tmp_path)
    before = state(tmp_path)
    np.testing.assert_array_equal(draw(int8, tmp_path), expected)
    after = state(tmp_path)
    assert sorted(after) == sorted(before)
    assert all(after[name] != before[name] for name in before)


@pytest.mark.slow
def test_other_weights_are_another_graph(int8, expected, cache, tmp_path):
    """The same file names, sizes and layers: only the checksums tell that the cache is of no use."""
    other = Path(shutil.copytree(int8, tmp_path / "other"))
    path = other / "unet" / "openvino_model.bin"
    weights = np.fromfile(path, np.int8)
    tensors = re.findall(r'element_type="i8"[^>]*? offset="(\d+)" size="(\d+)"', path.with_suffix(".xml").read_text())
    for offset, size in tensors:
        weights[int(offset) : int(offset) + int(size)] *= -1
    weights.tofile(path)
    seal(other)

    picture = draw(other, cache)
    assert len(state(cache)) == 6  # the other graphs are the same
    assert not np.array_equal(picture, expected)
    np.testing.assert_array_equal(picture, draw(other, None))


@pytest.mark.slow
def test_another_batch_is_another_graph(int8, cache):
    np.testing.assert_array_equal(draw(int8, cache, guidance=1), draw(int8, None, guidance=1))
    assert len(state(cache)) == 6


@pytest.mark.slow
def test_another_length_of_the_prompt_is_another_graph(fp32, tmp_path):
    """Only the UNet's: the graphs before it see one chunk at a time."""

    def long(cache: Path | None) -> np.ndarray:
        pipe = Pipeline.from_pretrained(fp32, "openvino", threads=1, keep_prompts=False, cache=cache)
        return arrays(pipe("a " * 76, seed=1, num_inference_steps=1, long_prompts=True, output_type="np"))

    draw(fp32, tmp_path)
    assert len(state(tmp_path)) == 5
    np.testing.assert_array_equal(long(tmp_path), long(None))
    assert len(state(tmp_path)) == 6


def test_onnxruntime_keeps_no_graphs(int8, tmp_path):
    draw(int8, tmp_path / "cache", backend="onnxruntime")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_prompt_that_was_drawn_is_drawn_with_nothing_but_unet_and_decoder(int8, backend, tmp_path):
    picture, ran = draw_kept(int8, tmp_path, backend)
    assert ran == [2, 2, 1]  # the prompt, and the empty one
    np.testing.assert_array_equal(picture, draw(int8, None, backend))
    again, ran = draw_kept(int8, tmp_path, backend)
    assert ran == [0, 0, 0]
    np.testing.assert_array_equal(again, picture)
    other, ran = draw_kept(int8, tmp_path, backend, "a blue fox")
    assert ran == [1, 1, 0]
    assert not np.array_equal(other, picture)
    other, ran = draw_kept(int8, tmp_path, backend, steps=2)
    assert ran == [0, 0, 1]
    assert not np.array_equal(other, picture)


@pytest.mark.parametrize(("component", "again"), [*zip(CONDITIONING, ([2, 0, 0], [0, 2, 0], [0, 0, 1]), strict=True)])
def test_what_another_graph_made_is_not_taken(int8, tmp_path, component, again):
    """The same files but for a byte that no engine reads: only the manifest says that they are others."""
    draw_kept(int8, tmp_path / "cache", "onnxruntime")
    other = Path(shutil.copytree(int8, tmp_path / "other"))
    with (other / component / "model.onnx.data").open("ab") as file:
        file.write(bytes(1))
    seal(other)
    assert draw_kept(other, tmp_path / "cache", "onnxruntime")[1] == again


@pytest.mark.slow
def test_what_another_engine_made_is_not_taken(int8, tmp_path):
    draw_kept(int8, tmp_path, "onnxruntime")
    assert draw_kept(int8, tmp_path, "openvino")[1] == [2, 2, 1]


@pytest.mark.parametrize("claimed", ["sha256", "blake3"])
def test_a_bundle_that_claims_anothers_checksum_leaves_nothing_in_its_name(int8, tmp_path, claimed):
    """Loading compares one of the two only: with the other, what it keeps would be taken for the real one's."""
    other = copied(int8, tmp_path / "other")
    path = other / "text_encoder" / "model.onnx.data"
    rewrite(path, path.read_bytes() + bytes(1))
    real = {entry["path"]: entry[claimed] for entry in json.loads((int8 / "manifest.json").read_bytes())["files"]}

    document = json.loads((seal(other) / "manifest.json").read_bytes())
    for entry in document["files"]:
        entry[claimed] = real[entry["path"]]
    rewrite(other / "manifest.json", json.dumps(document).encode())
    with nullcontext() if claimed == "sha256" else pytest.raises(TamperedFileError):
        draw_kept(other, tmp_path / "cache", "onnxruntime")
    assert draw_kept(int8, tmp_path / "cache", "onnxruntime")[1][0] == 2


def test_damaged_conditioning_is_made_again(int8, tmp_path):
    picture, _ = draw_kept(int8, tmp_path, "onnxruntime")
    for path in (tmp_path / "conditioning").iterdir():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    again, ran = draw_kept(int8, tmp_path, "onnxruntime")
    assert ran == [2, 2, 1]
    np.testing.assert_array_equal(again, picture)


def test_a_picture_without_metadata_leaves_no_prompt_behind(int8, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["a red fox", "--bundle", str(int8), "--backend", "onnxruntime", "--steps", "1", "-o", "fox.png"]
    assert generate.main([*command, "--cache", "cache", "--no-metadata"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["fox.png"]
    assert generate.main([*command, "--cache", "cache", "--force"]) == 0
    assert len(list((tmp_path / "cache" / "conditioning").iterdir())) == 5


@pytest.mark.slow
def test_a_full_cache_still_draws(int8, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(DiskCache.__init__, "__defaults__", (1_000_000,))
    np.testing.assert_array_equal(draw(int8, tmp_path), expected)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
def test_the_command_keeps_something_unless_told_not_to(int8, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    command = ["a red fox", "--bundle", str(int8), "--backend", "openvino", "--steps", "1", "-o", "fox.png", "--force"]
    assert generate.main([*command, "--no-cache"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["fox.png"]
    assert generate.main(command) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "fox.png"]
    assert len(list((tmp_path / "cache" / "nano-runtime").glob("*.blob"))) == 5
