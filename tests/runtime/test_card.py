"""The metadata of a model card: the Hub's keys, from the manifest, and no text of a checkpoint leaves its quotes."""

from __future__ import annotations

import msgspec
import pytest

from nano_runtime.bundle.card import front_matter
from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.bundle.manifest import Licence, Manifest, Source

HUB = Source(model="someone/model", revision="0" * 40)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Bundle.open(DEMO).manifest


def test_a_quantized_model_of_the_hub_names_its_base(manifest):
    asked = msgspec.structs.replace(
        manifest, source=HUB, licence=Licence(id="creativeml-openrail-m", file="LICENSE"), backends=["openvino"]
    )
    assert front_matter(asked) == (
        "---\n"
        'license: "creativeml-openrail-m"\n'
        'base_model: "someone/model"\n'
        'base_model_relation: "quantized"\n'
        'pipeline_tag: "text-to-image"\n'
        'tags: ["stable-diffusion", "openvino", "int8", "cpu"]\n'
        "---\n"
    )


def test_a_conversion_states_no_relation(manifest):
    text = front_matter(msgspec.structs.replace(manifest, source=HUB, precision="fp32"))
    assert 'base_model: "someone/model"\n' in text
    assert "base_model_relation" not in text
    assert '"fp32"' in text


def test_a_model_that_is_not_on_the_hub_has_no_base(manifest):
    assert manifest.source.revision is None
    text = front_matter(manifest)
    assert text.startswith('---\nlicense: "apache-2.0"\npipeline_tag: ')
    assert "base_model" not in text


def test_a_licence_that_the_hub_does_not_know_is_linked(manifest):
    text = front_matter(msgspec.structs.replace(manifest, licence=Licence(id="house-rules", file="LICENSE")))
    assert 'license: "other"\nlicense_name: "house-rules"\nlicense_link: "LICENSE"\n' in text


@pytest.mark.parametrize("name", ['a"\nlicense: "mit', "a\x1b]0;\u2028\u202e\x85", "a\\", "狐\U0001f98a"])
def test_no_text_leaves_its_quotes(manifest, name):
    asked = msgspec.structs.replace(manifest, source=Source(model=name, revision="0" * 40))
    lines = front_matter(asked).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "---", "license", "base_model", "base_model_relation", "pipeline_tag", "tags", "---",
    ]  # fmt: skip
    assert all(line.isascii() and line.isprintable() for line in lines)
