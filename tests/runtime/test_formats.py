"""Every format of the manifest is read: stored manifests of 1 to 4, and what format 5 adds and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import FORMAT_VERSION, MANIFEST_NAME, Manifest
from nano_runtime.bundle.reading import parse_manifest
from nano_runtime.errors import ManifestError

FORMATS = Path(__file__).parent / "formats"  # the demo's manifests, as exporters of each format wrote them


def changed(bundle: Bundle, change: Callable[[Any], object]) -> Manifest:
    document = json.loads((bundle.path / MANIFEST_NAME).read_bytes())
    change(document)
    return parse_manifest(json.dumps(document).encode(), bundle.path / MANIFEST_NAME)


def tensor(document: Any, component: str, name: str) -> Any:
    part = document["components"][component]
    return next(spec for spec in [*part["inputs"], *part["outputs"]] if spec["name"] == name)


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_manifests_of_earlier_formats_are_read(version):
    path = FORMATS / f"manifest-{version}.json"
    manifest = parse_manifest(path.read_bytes(), path)
    assert manifest.format_version == version
    assert (manifest.default is not None) == (version >= 3)
    assert (manifest.files[0].blake3 is not None) == (version >= 4)
    prompt = next(spec for spec in manifest.components["unet"].inputs if "attn2" in spec.name)
    assert ("tokens" in prompt.shape) == (version >= 2)


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_keys_that_an_earlier_format_lacks_mean_what_was_meant_then(version):
    path = FORMATS / f"manifest-{version}.json"
    manifest = parse_manifest(path.read_bytes(), path)
    assert (manifest.task, manifest.exporter, manifest.quantization) == ("text-to-image", "nano", None)
    assert manifest.tokenizer.embeddings == {}
    assert all(g.inputs is None is g.outputs for part in manifest.components.values() for g in part.graphs.values())


@pytest.mark.parametrize(
    ("task", "channels", "right"),
    [
        ("text-to-image", 4, True),
        ("inpainting", 9, True),
        ("instruct-pix2pix", 8, True),
        ("text-to-image", 9, False),
        ("inpainting", 4, False),
        ("inpainting", 8, False),
        ("instruct-pix2pix", 9, False),
    ],
)
def test_the_task_decides_the_channels_of_the_unet(standard, task, channels, right):
    def change(document):
        document["task"] = task
        shape = tensor(document, "unet", "sample")["shape"]
        shape[1] = shape[1] - 4 + channels if shape[1] == 4 else shape[1]

    if right:
        assert changed(standard, change).task == task
    else:
        with pytest.raises(ManifestError, match=r"sample.*of unet has the shape"):
            changed(standard, change)


def test_a_unet_that_sees_a_picture_needs_the_encoder(standard):
    def change(document):
        document["task"] = "inpainting"
        tensor(document, "unet", "sample")["shape"][1] = 9
        del document["components"]["vae_encoder"]

    with pytest.raises(ManifestError, match=r"vae_encoder.*inpainting needs it"):
        changed(standard, change)


def test_an_encoder_computes_moments_or_latents_and_nothing_else(standard):
    def channels(count):
        def change(document):
            document["components"]["vae_encoder"]["outputs"][0]["shape"][1] = count

        return change

    assert changed(standard, channels(4))
    assert changed(standard, channels(8))
    with pytest.raises(ManifestError, match="of vae_encoder has the shape"):
        changed(standard, channels(5))


@pytest.mark.parametrize(
    ("own", "fault"),
    [
        ({"dtype": "float16"}, None),
        ({"name": "x"}, None),
        ({"dtype": "int64"}, "another form"),
        ({"shape": ["batch", 4, 8, 9]}, "another form"),
    ],
)
def test_an_engine_may_have_tensors_of_its_own(standard, own, fault):
    def change(document):
        part = document["components"]["vae_decoder"]
        for graph in part["graphs"].values():
            graph["inputs"] = [{**part["inputs"][0], **own}]

    if fault is None:
        manifest = changed(standard, change)
        assert all(graph.inputs for graph in manifest.components["vae_decoder"].graphs.values())
    else:
        with pytest.raises(ManifestError, match=fault):
            changed(standard, change)


def test_an_engine_has_as_many_tensors_as_the_component(standard):
    def change(document):
        part = document["components"]["vae_decoder"]
        for graph in part["graphs"].values():
            graph["outputs"] = [part["outputs"][0], {**part["outputs"][0], "name": "more"}]

    with pytest.raises(ManifestError, match=r"2 tensors for .* where there are 1"):
        changed(standard, change)


def test_the_runtime_feeds_no_half_precision_itself(standard):
    with pytest.raises(ManifestError, match="only an engine's own"):
        changed(standard, lambda document: tensor(document, "unet", "sample").update(dtype="float16"))


@pytest.mark.parametrize("fixture", ["hoisted", "standard"])
def test_guidance_may_be_an_input(request, fixture):
    bundle: Bundle = request.getfixturevalue(fixture)
    graph = "unet_time" if fixture == "hoisted" else "unet"
    extra = {"name": "timestep_cond", "dtype": "float32", "shape": ["batch", 256]}

    def change(document):
        document["components"][graph]["inputs"].append(extra)

    assert bundle.guidance_width is None
    assert Bundle(bundle.path, changed(bundle, change), "").guidance_width == 256
    extra["shape"] = [256]
    with pytest.raises(ManifestError, match=r"timestep_cond.*is no vector"):
        changed(bundle, change)
    extra.update(name="class_labels", shape=["batch", 256])
    with pytest.raises(ManifestError, match=r"class_labels.*joins no two graphs"):
        changed(bundle, change)


def test_words_of_embeddings_have_ids_of_their_own(standard):
    def words(**embeddings):
        return lambda document: document["tokenizer"].update(embeddings=embeddings)

    assert changed(standard, words(cat=[7, 8], dog=[9])).tokenizer.embeddings == {"cat": [7, 8], "dog": [9]}
    for wrong, why in (
        (words(cat=[7, 8], dog=[7]), "have one id"),
        (words(cat=[]), "embeddings"),
        (words(cat=[-1]), "embeddings"),
    ):
        with pytest.raises(ManifestError, match=why):
            changed(standard, wrong)
