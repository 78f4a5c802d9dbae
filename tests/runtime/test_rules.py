"""Every rule of a manifest finds what it is for, and the first rule that is broken is the one that is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from nano_runtime.bundle.folder import DEMO
from nano_runtime.bundle.manifest import MANIFEST_NAME, Manifest
from nano_runtime.bundle.reading import read_manifest
from nano_runtime.bundle.rules import RULES, first_contradiction


def with_preset(begin: float, end: float) -> dict[str, Any]:
    return {"fast": {"cache_interval": 1, "guidance_interval": [begin, end], "work": 1.0, "fidelity": {}}}


def see_pictures(manifest: dict[str, Any]) -> None:
    """Make it a manifest for inpainting, whose UNet has the channels and whose encoder is missing."""
    manifest["task"] = "inpainting"
    manifest["components"]["unet"]["inputs"][0]["shape"][1] = 9


# Rule to a change of the manifest that breaks it, and no rule before it.
BREAKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "files_are_listed_once": lambda manifest: manifest["files"].append(manifest["files"][0]),
    "paths_are_safe": lambda manifest: manifest["files"][0].update(path="../LICENSE"),
    "files_have_checksums": lambda manifest: manifest["files"].pop(0),
    "names_differ_on_all_systems": lambda manifest: manifest["files"].append(
        {**manifest["files"][0], "path": "Manifest.JSON"}
    ),
    "graphs_are_there": lambda manifest: manifest["components"].pop("vae_decoder"),
    "graphs_serve_all_engines": lambda manifest: manifest["components"]["unet"]["graphs"].pop("openvino"),
    "files_are_where_engines_look": lambda manifest: manifest["components"]["unet"]["graphs"]["onnxruntime"].update(
        model="LICENSE"
    ),
    "tensors_are_believable": lambda manifest: manifest["components"]["unet"]["outputs"][0].update(
        shape=["batch", 1 << 20, 1 << 20]
    ),
    "own_tensors_match": lambda manifest: manifest["components"]["unet"]["inputs"][0].update(dtype="float16"),
    "tensors_join_graphs": lambda manifest: manifest["components"]["unet"]["inputs"].pop(),
    "graphs_take_and_give_what_is_used": lambda manifest: manifest["components"]["vae_decoder"]["inputs"].append(
        {"name": "x", "dtype": "float32", "shape": ["batch"]}
    ),
    "pictures_are_multiples_of_latents": lambda manifest: manifest.update(image_size=[64, 128]),
    "shapes_fit_the_picture": lambda manifest: manifest.update(image_size=[64, 64]),
    "guidance_is_a_vector": lambda manifest: manifest["components"]["unet_time"]["inputs"].append(
        {"name": "timestep_cond", "dtype": "float32", "shape": ["batch"]}
    ),
    "rows_are_free": lambda manifest: manifest["components"]["unet_time"]["outputs"][0].update(shape=[1, 4]),
    "shapes_join_graphs": lambda manifest: manifest["components"]["unet_prompt"]["outputs"][0].update(
        shape=["batch", 5]
    ),
    "pictures_can_be_encoded": see_pictures,
    "embeddings_have_their_own_ids": lambda manifest: manifest["tokenizer"].update(embeddings={"cat": [5], "dog": [5]}),
    "preview_fits_the_latents": lambda manifest: manifest.update(preview=[[0, 0, 0]]),
    "intervals_are_in_order": lambda manifest: manifest.update(presets=with_preset(0.9, 0.1)),
    "quantization_is_of_these_graphs": lambda manifest: manifest.update(
        precision="int8", quantization={"plan": "w8a8", "goal_db": {"unet_2": 38.0}}
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_is_the_first_to_find_its_case(folder, rule):
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    BREAKS[rule.__name__](document)
    manifest = msgspec.convert(document, Manifest)
    found = [other for other in RULES[: RULES.index(rule) + 1] if other(manifest) is not None]
    assert found == [rule]
    assert first_contradiction(manifest) == rule(manifest)


CHANGE = {"component": "unet", "layer": "conv_in/Conv", "scheme": "float", "reason": "31 dB alone", "share": 0.004}


@pytest.mark.parametrize(
    ("precision", "quantization", "why"),
    [
        ("int8", {"plan": "w8a8"}, None),  # as format 5 began
        ("int8", {"plan": "w8a8", "quantizer": "nano", "goal_db": {"unet": 38.0}, "changes": [CHANGE]}, None),
        ("int8", {"plan": "w8a8", "equalized": 12, "search_s": 40.5}, None),
        ("fp32", {"plan": "w8a8"}, "the precision is fp32"),
        ("int8", {"plan": "w8a8", "changes": [{**CHANGE, "component": "u"}]}, "the component 'u', which is not there"),
        ("int8", {"plan": "w8a8", "quantizer": "nncf"}, "nncf quantizes for openvino alone"),
    ],
)
def test_a_quantization_fits_the_graphs(folder, precision, quantization, why):
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    document.update(precision=precision, quantization=quantization)
    found = first_contradiction(msgspec.convert(document, Manifest))
    assert found is None if why is None else why in (found or "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantizer": "awq"},
        {"goal_db": {"unet": 0.0}},
        {"goal_db": {"unet": "38"}},
        {"changes": [{**CHANGE, "layer": ""}]},
        {"changes": [{**CHANGE, "share": 1.1}]},
        {"changes": [{**CHANGE, "gain": 1}]},
        {"equalized": -1},
        {"search_s": -1.0},
    ],
)
def test_a_quantization_of_other_types_is_refused(folder, wrong):
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    document.update(precision="int8", quantization={"plan": "w8a8", **wrong})
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, Manifest)


def test_a_good_manifest_breaks_no_rule(folder):
    for bundle in (folder, DEMO):
        manifest = read_manifest(bundle)
        assert [rule.__name__ for rule in RULES if rule(manifest) is not None] == []
        assert first_contradiction(manifest) is None


def test_a_preset_that_caches_steps_needs_the_shallow_unet(folder):
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    document.update(presets=with_preset(0, 1))
    assert first_contradiction(msgspec.convert(document, Manifest)) is None
    document["presets"]["fast"]["cache_interval"] = 2
    assert "unet_shallow" in (first_contradiction(msgspec.convert(document, Manifest)) or "")


SHAPES = {
    "a scalar for the time": ("unet_time", "outputs", 0, []),
    "one row for the time": ("unet_time", "outputs", 0, [1, 4]),
    "timesteps in two axes": ("unet_time", "inputs", 0, ["batch", 1]),
    "a scalar for the prompt": ("unet_prompt", "outputs", 0, []),
    "one axis more": ("unet_prompt", "outputs", 1, ["batch", 4, 1]),
    "hidden states without a width": ("text_encoder", "outputs", 0, ["batch", 77]),
    "hidden states of fewer tokens": ("text_encoder", "outputs", 0, ["batch", 76, 4]),
    "another width": ("unet_prompt", "inputs", 0, ["batch", 77, 5]),
    "one picture": ("vae_decoder", "outputs", 0, [1, 3, 128, 128]),
    "a prediction for one sample": ("unet", "outputs", 0, [1, 4, 16, 16]),
    "ids for one sample": ("text_encoder", "inputs", 0, [1, 77]),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_that_do_not_fit_together_are_refused(folder, case):
    name, side, index, shape = SHAPES[case]
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    document["components"][name][side][index]["shape"] = shape
    found = first_contradiction(msgspec.convert(document, Manifest))
    assert found is not None
    assert name in found or name == "unet_prompt"  # or the graph beside it


def test_only_a_graph_that_computes_float32_is_taken(folder):
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    document["components"]["unet"]["outputs"][0]["dtype"] = "int64"
    assert first_contradiction(msgspec.convert(document, Manifest)) is not None
