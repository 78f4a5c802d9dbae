"""The licence that travels with the weights."""

from __future__ import annotations

import hashlib

import pytest

from nano_export.source.licences import licence_of

# SHA-256 of the texts as their authors published them: license.txt, which the Hub shows for creativeml-openrail-m, and
# LICENSE-MODEL of Stability AI's repository for Stable Diffusion 2.
PUBLISHED = {
    "creativeml-openrail-m": "be351ebe7ac01bcdbb018639aadcfd38f136b7dc3f2a3d4d3a24db51d1b210ef",
    "openrail++": "e514164be7f2ca2c0fb39e7283b01ab4a06d802837eaf171aa4645cfd7ee1157",
}


def card(metadata: str) -> str:
    return f"---\n{metadata}\n---\n# A model\nlicense: in the text is no metadata\n"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_texts_we_keep_are_the_published_ones(name, tmp_path):
    found = licence_of(tmp_path, card(f"language: en\nlicense: {name}"), "someone/model")
    assert found.id == name
    assert hashlib.sha256(found.text.encode()).hexdigest() == PUBLISHED[name]
    assert "You agree not to use the Model or Derivatives of the Model:" in found.text


def test_the_checkpoints_own_file_wins_word_for_word(tmp_path):
    text = "Ours, with a Windows line end\r\nand no other.\n"
    (tmp_path / "LICENSE.md").write_bytes(text.encode())
    found = licence_of(tmp_path, card("license: creativeml-openrail-m"), "someone/model")
    assert (found.id, found.text) == ("creativeml-openrail-m", text)


def test_a_file_without_a_card_is_a_licence_without_a_name(tmp_path):
    (tmp_path / "LICENSE").write_text("Ours.\n")
    assert licence_of(tmp_path, None, "someone/model").id == "other"


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ("license: mit", "mit"),
        ("license: MIT", "mit"),
        ("license: other\nlicense_name: house-rules\nlicense_link: https://example.org/rules", "house-rules"),
        ("license: other", "other"),
        ("license: [mit, apache-2.0]", "mit and apache-2.0"),
        ('license: "my\\nown  licence"', "my own licence"),
        (f"license: {'x' * 500}", "x" * 200),
    ],
)
def test_a_licence_we_have_no_text_of_is_named_and_pointed_to(metadata, name, tmp_path):
    found = licence_of(tmp_path, card(metadata), "someone/model")
    assert found.id == name
    assert "someone/model" in found.text
    assert repr(name) in found.text
    assert ("https://example.org/rules" in found.text) == ("license_link" in metadata)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "# A model\nlicense: mit\n",
        card("language: en"),
        card("license:"),
        card("license: [mit"),
        card("- license: mit"),
        "---\nlicense: mit\n",
    ],
)
def test_what_nothing_says_is_unknown(text, tmp_path):
    found = licence_of(tmp_path, text, "someone/model")
    assert found.id == "unknown"
    assert "someone/model" in found.text


@pytest.mark.parametrize("model", ["bguisard/stable-diffusion-nano-2-1", "stable-diffusion-nano-2-1"])
def test_nano_without_a_card_is_still_under_its_licence(model, tmp_path):
    assert licence_of(tmp_path, None, model).id == "creativeml-openrail-m"


def test_nanos_card_is_believed_where_there_is_one(tmp_path):
    assert licence_of(tmp_path, card("license: mit"), "bguisard/stable-diffusion-nano-2-1").id == "mit"


def test_random_weights_are_free():
    found = licence_of(None, None, "tiny")
    assert found.id == "Apache-2.0"
    assert "random" in found.text
