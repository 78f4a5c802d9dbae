"""The demo on a real engine: one seed draws the same pixels from Python, the command line, and through every API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serve.conftest import Gate, Served

from nano_runtime import Bundle, Pipeline, open_picture
from nano_runtime.cli import generate
from nano_serve.http.app import application
from nano_serve.http.guard import Access
from nano_serve.studio import Settings, Studio

PROMPT, SEED, STEPS = "an otter on a teal background", 7, 3


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the demo."""
    pictures = tmp_path_factory.mktemp("pictures")
    studio = Studio(
        Settings([Bundle.open().path], pictures), lambda folder: Pipeline.from_pretrained(folder, threads=1)
    )
    studio.start()
    yield Served(studio, application(studio, Access()), Gate(), {})
    assert studio.stop(20)


def test_one_seed_is_one_picture_everywhere(demo: Served, tmp_path: Path):
    asked = {"prompt": PROMPT, "seed": SEED}
    options = {**asked, "num_inference_steps": STEPS}
    job = demo.ended(demo.post("/api/v1/jobs", options)["id"])
    files = {
        "own": demo.ask("GET", job["pictures"][0]["url"]).content,
        "openai": base64.b64decode(demo.post("/v1/images/generations", options)["data"][0]["b64_json"]),
        "a1111": base64.b64decode(demo.post("/sdapi/v1/txt2img", {**asked, "steps": STEPS})["images"][0]),
    }
    target = tmp_path / "otter.png"
    assert generate.main([PROMPT, "--seed", str(SEED), "--steps", str(STEPS), "--threads", "1", "-o", str(target)]) == 0
    pixels = {name: open_picture(file).tobytes() for name, file in files.items()}
    pipe = Pipeline.from_pretrained(threads=1)
    pixels["python"] = pipe(PROMPT, seed=SEED, num_inference_steps=STEPS).images[0].tobytes()
    assert set(pixels.values()) == {open_picture(target).tobytes()}
    other = pipe(PROMPT, seed=SEED + 1, num_inference_steps=STEPS).images[0].tobytes()
    assert other not in pixels.values()  # negative control


def test_the_demo_says_what_it_was_taught(demo: Served):
    (bundle,) = demo.get("/api/v1/bundles")["bundles"]
    assert (bundle["width"], bundle["scheduler"], bundle["num_inference_steps"]) == (128, "euler_karras", 15)
    assert {"otter", "cactus"} <= set(bundle["words"]["things"])
    assert bundle["words"]["examples"][0] == PROMPT
    assert bundle["edits"]
    assert "teal" in json.dumps(bundle["words"]["colours"])
