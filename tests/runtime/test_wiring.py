"""The table of graphs agrees with a bundle that the exporter wrote, and its order is one in which graphs can run."""

from __future__ import annotations

import pytest

from nano_runtime.bundle.folder import DEMO
from nano_runtime.bundle.reading import read_manifest
from nano_runtime.bundle.wiring import PREVIEW_DECODER, WIRING, required_graphs, wiring_of


def test_the_demo_has_all_graphs_of_its_form_and_their_inputs():
    manifest = read_manifest(DEMO)
    components = manifest.components
    table = [wiring for wiring in WIRING[manifest.graph] if wiring.graph != PREVIEW_DECODER]  # only on request
    assert {wiring.graph for wiring in table} == set(components)
    for wiring in table:
        fed = {tensor.name for name in wiring.fed_by for tensor in components[name].outputs}
        inputs = {tensor.name for tensor in components[wiring.graph].inputs}
        assert set(wiring.given) <= inputs <= fed | set(wiring.given)


@pytest.mark.parametrize("form", WIRING)
def test_a_graph_runs_after_all_that_feed_it(form):
    before: set[str] = set()
    for wiring in WIRING[form]:
        assert wiring.graph not in before
        assert before.issuperset(wiring.fed_by)
        before.add(wiring.graph)


def test_the_graphs_that_a_picture_needs():
    standard, hoisted = ("text_encoder", "unet", "vae_decoder"), ("unet_prompt", "unet_time")
    assert required_graphs("standard", shallow=False) == standard
    assert required_graphs("hoisted", shallow=False) == (standard[0], *hoisted, *standard[1:])
    assert required_graphs("standard", shallow=True) == (*standard[:2], "unet_shallow", standard[2])


def test_the_standard_form_has_no_hoisted_graphs():
    assert wiring_of("hoisted", "unet_time").given == ("timestep",)
    with pytest.raises(KeyError):
        wiring_of("standard", "unet_time")
