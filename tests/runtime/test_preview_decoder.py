"""Previews by the quick decoder of bundles that have one, and by the matrix where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tests.runtime.fakes import FORMULAS, IMAGE, FakeGraphs, make_bundle, pipeline_of

from nano_runtime.bundle.checksums import entry_of
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Graph
from nano_runtime.bundle.reading import write_manifest
from nano_runtime.drawing.events import Progress

ASKED: dict[str, Any] = {"seed": 5, "num_inference_steps": 2, "output_type": "latent"}


def bundle_of(folder: Path) -> Bundle:
    """Make a bundle whose decoder for previews is a copy of its decoder."""
    manifest = make_bundle(folder).manifest
    model = folder / "preview.onnx"
    model.write_text("a formula", encoding="utf-8")
    graph = Graph(model=model.name, weights=None)
    graphs = {"onnxruntime": graph, "openvino": graph}
    decoder = msgspec.structs.replace(manifest.components["vae_decoder"], graphs=graphs)
    components, files = {**manifest.components, "preview_decoder": decoder}, [*manifest.files, entry_of(folder, model)]
    write_manifest(folder, msgspec.structs.replace(manifest, components=components, files=files))
    return Bundle.open(folder)


def events_of(graphs: FakeGraphs) -> list[Progress]:
    return [event for event in pipeline_of(graphs).stream(["a fox", "an owl"], **ASKED) if isinstance(event, Progress)]


def test_a_preview_has_all_pixels_of_the_predicted_picture(tmp_path):
    decoder = FORMULAS["hoisted"]["vae_decoder"]
    graphs = FakeGraphs(bundle_of(tmp_path), instead={"preview_decoder": decoder})
    for event in pipeline_of(graphs).stream(["a fox", "an owl"], **ASKED):
        if isinstance(event, Progress):
            expected = np.clip(decoder(event.predicted)["sample"] / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)
            for image, pixels in zip(event.preview(), expected, strict=True):
                assert image.size == (IMAGE, IMAGE)
                np.testing.assert_allclose(np.asarray(image) / 255, pixels, atol=0.5 / 255 + 1e-6)
    assert len(graphs.ran("preview_decoder")) == 4


def test_a_decoder_that_nobody_asks_does_not_run(tmp_path):
    graphs = FakeGraphs(bundle_of(tmp_path), instead={"preview_decoder": FORMULAS["hoisted"]["vae_decoder"]})
    assert len(events_of(graphs)) == 2
    assert not graphs.ran("preview_decoder")


def test_other_bundles_enlarge_a_colour_for_each_latent(hoisted):
    (first, _) = events_of(FakeGraphs(hoisted))
    assert {image.size for image in first.preview()} == {(IMAGE, IMAGE)}
