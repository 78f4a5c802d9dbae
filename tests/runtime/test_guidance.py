"""UNets that take the guidance scale as an input: one row a picture, and the scale as a vector beside the timestep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.runtime.fakes import FORMULAS, FakeGraphs, make_bundle, pipeline_of

from nano_runtime.bundle.manifest import TensorSpec
from nano_runtime.bundle.wiring import TIMESTEP_COND, GraphForm
from nano_runtime.networks.guidance import embed_guidance, embedding_width

WIDTH = 8
ASKED: dict[str, Any] = {"seed": 5, "num_inference_steps": 3, "output_type": "latent"}
PLACES: dict[GraphForm, str] = {"hoisted": "unet_time", "standard": "unet"}


def graphs_of(folder: Path, form: GraphForm) -> FakeGraphs:
    """Make a bundle whose UNet takes the guidance scale, which its formula adds to the timestep."""
    place = PLACES[form]
    components = dict(make_bundle(folder / "plain", form).manifest.components)
    embedded = TensorSpec(name=TIMESTEP_COND, dtype="float32", shape=["batch", WIDTH])
    components[place] = msgspec.structs.replace(components[place], inputs=[*components[place].inputs, embedded])
    plain = FORMULAS[form][place]

    def formula(timestep_cond: Any, timestep: Any, **others: Any) -> dict[str, Any]:
        return plain(timestep=timestep + 100 * timestep_cond[0, 1], **others)

    return FakeGraphs(make_bundle(folder / "guided", form, components=components), instead={place: formula})


@pytest.mark.parametrize("form", PLACES)
def test_the_scale_is_an_input_and_there_is_no_negative_prompt(form, tmp_path):
    graphs = graphs_of(tmp_path, form)
    pipe = pipeline_of(graphs)
    pictures = [pipe(["a fox", "a blue owl"], guidance_scale=scale, **ASKED).images for scale in (8.5, 4.0, 8.5)]
    assert {len(run.feeds["sample"]) for run in graphs.ran("unet")} == {2}
    given = [run.feeds[TIMESTEP_COND] for run in graphs.ran(PLACES[form])]
    expected = embed_guidance(8.5, WIDTH)
    np.testing.assert_array_equal(given[0], np.repeat(expected, len(given[0]), axis=0))
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert np.abs(np.asarray(pictures[0]) - np.asarray(pictures[1])).max() > 1e-3


def test_other_bundles_have_no_such_input(tmp_path):
    assert embedding_width(make_bundle(tmp_path / "other").manifest) is None
    assert embedding_width(graphs_of(tmp_path, "standard").bundle.manifest) == WIDTH
