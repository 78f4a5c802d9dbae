"""Previews of the demo model: near the picture at the end, and on the way nearer to it than the noisy latents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.results import arrays, run_through

from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.bundle.reading import read_manifest
from nano_runtime.errors import NoPreviewError
from nano_runtime.pictures.preview import colours
from nano_runtime.pipeline import Pipeline, Progress

PROMPTS = ["an otter on a teal background", "a cactus on an orange background", "a car on a purple background"]
# Of a linear map with a decoder that is none; 0.9 leaves what it cannot follow: edges within a latent's 8 x 8 pixels
# are averaged away on both sides, so what is left is texture and saturation.
LEAST = 0.9


def correlation(small: np.ndarray, picture: np.ndarray) -> float:
    """Of a preview with the mean colours of the picture's blocks, both [h, w, 3]; 1 is the same but for contrast."""
    height, width, _ = small.shape
    blocks = picture.reshape(height, picture.shape[0] // height, width, -1, 3).mean((1, 3))
    return float(np.corrcoef(small.ravel(), blocks.ravel())[0, 1])


@pytest.fixture(scope="module")
def drawing() -> tuple[list[Progress], np.ndarray]:
    pipe = Pipeline.from_pretrained(DEMO, "onnxruntime")
    steps, result = run_through(
        pipe.stream(PROMPTS, seed=1, num_inference_steps=12, scheduler="ddim", output_type="np")
    )
    pipe.close()
    return steps, arrays(result)


def test_the_last_preview_is_nearly_the_picture(drawing):
    steps, pictures = drawing
    previews = [np.asarray(image, np.float32) for image in steps[-1].preview()]
    size = Bundle.open(DEMO).manifest.image_size
    assert [preview.shape for preview in previews] == [(*size, 3)] * len(PROMPTS)
    side = size[0] // Bundle.open(DEMO).manifest.latent_shape[1]
    small = [preview.reshape(-1, side, size[1] // side, side, 3).mean((1, 3)) for preview in previews]
    found = [correlation(*pair) for pair in zip(small, pictures, strict=True)]
    assert min(found) > LEAST, found
    for index in range(len(PROMPTS)):
        assert correlation(small[index], pictures[index - 1]) < LEAST  # another picture


def test_another_matrix_shows_another_picture(drawing):
    steps, pictures = drawing
    weights = steps[-1].preview_weights
    for order in ([1, 0, 2, 3, 4], [3, 2, 1, 0, 4], [0, 2, 1, 3, 4]):
        found = [
            correlation(small, picture)
            for small, picture in zip(colours(steps[-1].predicted, weights[order]), pictures, strict=True)
        ]
        assert min(found) < LEAST, (order, found)


def test_halfway_a_preview_shows_more_than_the_latents_do(drawing):
    steps, pictures = drawing
    middle = steps[len(steps) // 3]
    noisy, clean = (colours(latents, middle.preview_weights) for latents in (middle.latents, middle.predicted))
    for index, picture in enumerate(pictures):
        assert correlation(clean[index], picture) > correlation(noisy[index], picture) + 0.05


def test_every_export_has_the_matrix(fp32, int8, sd1):
    for bundle in (fp32, int8, sd1):
        manifest = read_manifest(bundle)
        assert np.array(manifest.preview).shape == (manifest.latent_shape[0] + 1, 3)
    assert read_manifest(fp32).preview == read_manifest(int8).preview  # it comes from the original


def test_a_bundle_of_an_earlier_exporter_draws_without(fp32, tmp_path: Path):
    manifest = json.loads((fp32 / "manifest.json").read_text())
    old = tmp_path / "old"
    shutil.copytree(fp32, old)
    del manifest["preview"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    pipe = Pipeline.from_pretrained(old, "onnxruntime")
    step = next(pipe.stream("a fox", num_inference_steps=1))
    assert isinstance(step, Progress)
    with pytest.raises(NoPreviewError, match="no matrix for previews"):
        step.preview()
    pipe.close()
