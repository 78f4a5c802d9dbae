"""The card of a bundle: made from what, changed how, and the notices that OpenRAIL-M asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nano_export.bundle.card import card_of
from nano_export.bundle.facts import Contents
from nano_export.source.card import front_matter as read_front_matter
from nano_export.source.licences import licence_of
from nano_runtime.bundle.card import front_matter
from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.bundle.manifest import Licence, Manifest, Source

COMMIT = "d29ec90" + "0" * 33
NANO = Source(model="bguisard/stable-diffusion-nano-2-1", revision=COMMIT)
OPENRAIL = ("creativeml-openrail-m", "openrail++", "openrail", "bigscience-openrail-m", "bigscience-bloom-rail-1.0")


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Bundle.open(DEMO).manifest


def contents_of(manifest: Manifest, **changes: Any) -> Contents:
    contents = Contents(
        name=manifest.name,
        source=manifest.source,
        licence=manifest.licence,
        licence_text="Free.",
        example="a fox on a teal background",
        has_card=True,
        loras=[],
        embeddings=[],
        image_size=manifest.image_size,
        latent_shape=manifest.latent_shape,
        scaling_factor=manifest.scaling_factor,
        tokenizer=manifest.tokenizer,
        scheduler=manifest.scheduler,
        guidance_scale=manifest.guidance_scale,
    )
    return replace(contents, **changes)


def test_it_says_what_was_changed_by_what(manifest):
    asked = msgspec.structs.replace(manifest, source=NANO, versions={"nano-export": "7.8.9"})
    lora = {"name": "style.safetensors", "sha256": "0" * 64, "scale": 0.5}
    text = card_of(asked, contents_of(asked, loras=[lora]))
    notice = text[text.index("> **Changed files.**") :].partition("\n\n")[0]
    for words in (NANO.model, COMMIT, "LoRAs merged", "quantized to INT8", "7.8.9", "All weight files were changed."):
        assert words in notice
    assert "LoRA merged: `style.safetensors`, scale 0.5" in text
    assert (
        "quantized" not in card_of(msgspec.structs.replace(manifest, precision="fp32"), contents_of(manifest)).lower()
    )
    assert "LoRA" not in card_of(manifest, contents_of(manifest))


def test_it_says_how_to_draw_and_how_well(manifest):
    text = card_of(manifest, contents_of(manifest, example="it's a fox"))
    assert "nano-generate 'it'\"'\"'s a fox' --bundle .\n" in text
    assert "128x128 pixels" in text
    for backend in manifest.backends:
        assert f"{backend}: {manifest.fidelity[f'{backend}.image_psnr_db']:.1f} dB" in text
    assert f"`{manifest.default.scheduler}` in {manifest.default.steps} steps" in text
    unmeasured = msgspec.structs.replace(manifest, fidelity={}, default=None)
    assert " dB" not in card_of(unmeasured, contents_of(manifest))


def test_it_names_the_pictures_that_a_bundle_needs(manifest):
    plain = card_of(manifest, contents_of(manifest))
    assert "--image" not in plain
    assert read_front_matter(plain)["pipeline_tag"] == "text-to-image"
    for task, words in (
        ("inpainting", "--image picture.png --mask mask.png"),
        ("instruct-pix2pix", "--image picture.png\n"),
    ):
        text = card_of(msgspec.structs.replace(manifest, task=task), contents_of(manifest, task=task))
        assert words in text
        assert "as a text says" in text
        assert read_front_matter(text)["pipeline_tag"] == "image-to-image"


@pytest.mark.parametrize("name", OPENRAIL)
def test_openrail_restricts_the_use_by_a_notice(name, manifest):
    text = card_of(manifest, contents_of(manifest, licence=Licence(id=name, file="LICENSE")))
    assert "> **Use restrictions.**" in text
    assert "paragraph 5" in text
    assert "Attachment A" in text


def test_the_text_of_such_a_licence_restricts_too_without_its_name(manifest, tmp_path):
    text = licence_of(tmp_path, "---\nlicense: creativeml-openrail-m\n---\n", "x").text
    other = Licence(id="other", file="LICENSE")
    assert "Use restrictions" in card_of(manifest, contents_of(manifest, licence=other, licence_text=text))


@pytest.mark.parametrize("name", ["Apache-2.0", "mit", "unknown", "other", "trailblazer-1.0"])
def test_other_licences_do_not(name, manifest):
    text = licence_of(None, None, "tiny").text
    card = card_of(manifest, contents_of(manifest, licence=Licence(id=name, file="LICENSE"), licence_text=text))
    assert "Use restrictions" not in card


def test_its_metadata_is_what_the_runtime_makes_of_the_manifest(manifest):
    asked = msgspec.structs.replace(manifest, source=NANO, licence=Licence(id="creativeml-openrail-m", file="LICENSE"))
    text = card_of(asked, contents_of(asked))
    assert text.startswith(front_matter(asked))
    assert read_front_matter(text) == {
        "license": "creativeml-openrail-m",
        "base_model": NANO.model,
        "base_model_relation": "quantized",
        "pipeline_tag": "text-to-image",
        "tags": ["stable-diffusion", "onnx", "openvino", "int8", "cpu"],
    }


def test_names_of_unknown_origin_stay_on_their_line(manifest):
    asked = msgspec.structs.replace(manifest, name="a\n# b", source=Source(model="`\n## c", revision=None))
    text = card_of(asked, contents_of(asked, example="x\n```\n"))
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# a\\n# b, INT8 for CPUs", "## Draw with it", "## Facts", "## Licence", "## The original's card",
    ]  # fmt: skip
    assert [line for line in text.splitlines() if line.startswith("```")] == ["```sh", "```"]


def test_the_demos_card_is_made_from_its_manifest(manifest):
    """And the original's card lies beside it, byte for byte."""
    checkpoint = Path(__file__).parents[2] / "models/demo/checkpoint"
    assert (DEMO / "ORIGINAL_CARD.md").read_bytes() == (checkpoint / "README.md").read_bytes()
    contents = contents_of(manifest, example="a balloon on a red background")
    assert (DEMO / "README.md").read_text() == card_of(manifest, contents)
