"""The metadata of a model card: the Hub's keys, from the manifest, and no text of a checkpoint leaves its quotes."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from nano_runtime.bundle.card import front_matter
from nano_runtime.bundle.checksums import entry_of
from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.bundle.manifest import Licence, Manifest, Source
from nano_runtime.bundle.reading import read_manifest, write_manifest
from nano_runtime.cli import bundle as command

HUB = Source(model="someone/model", revision="0" * 40)
NAMES = ['a"\nlicense: "mit', "a\x1b]0;\u2028\u202e\x85", "a\\", "狐\U0001f98a"]  # hostile, but for the last


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


@pytest.mark.parametrize("name", NAMES)
def test_no_text_leaves_its_quotes(manifest, name):
    asked = msgspec.structs.replace(manifest, source=Source(model=name, revision="0" * 40))
    lines = front_matter(asked).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "---", "license", "base_model", "base_model_relation", "pipeline_tag", "tags", "---",
    ]  # fmt: skip
    assert all(line.isascii() and line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "name", ['a"\nlicense: "mit', "a\x1b]0;\u2028\u202e\x85", "a\\", "---\n", "狐\U0001f98a", "no", "1e3"]
)
def test_the_metadata_is_yaml_that_says_what_the_manifest_says(manifest, name):
    asked = msgspec.structs.replace(
        manifest, source=Source(model=name, revision="0" * 40), licence=Licence(id=name, file=name)
    )
    first, *between, last = front_matter(asked).splitlines()
    assert (first, last) == ("---", "---")
    assert yaml.safe_load("\n".join(between)) == {
        "license": "other",
        "license_name": name,
        "license_link": name,
        "base_model": name,
        "base_model_relation": "quantized",
        "pipeline_tag": "text-to-image",
        "tags": ["stable-diffusion", "onnx", "openvino", "int8", "cpu"],
    }


def with_card(folder: Path, text: bytes) -> Path:
    """A bundle whose manifest lists a card."""
    (folder / "README.md").write_bytes(text)
    manifest = read_manifest(folder)
    files = [*manifest.files, entry_of(folder, folder / "README.md")]
    write_manifest(folder, msgspec.structs.replace(manifest, files=files))
    return folder


def test_the_command_prints_the_card_of_the_demo(capsys):
    assert command.main(["card", str(DEMO)]) == 0
    assert capsys.readouterr().out == (DEMO / "README.md").read_text(encoding="utf-8")


def test_the_command_prints_the_metadata(folder, capsys):
    text = front_matter(read_manifest(folder))
    assert command.main(["card", str(folder), "--hub"]) == 0
    assert capsys.readouterr().out == text
    assert command.main(["card", str(folder), "--hub", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"bundle": str(folder), "digest": Bundle.open(folder).digest, "card": text}


def test_no_card_does_anything_to_a_terminal(folder, capsys):
    text = "\ufeff# Fox\r\n\ttabs stay\x1b[2J\u202e\x85" + "long " * 1000
    assert command.main(["card", str(with_card(folder, text.encode() + b"\xff"))]) == 0
    assert capsys.readouterr().out == "# Fox\n\ttabs stay\\x1b[2J\\u202e\\x85" + "long " * 1000 + "\\xff\n"


@pytest.mark.parametrize("text", [None, b"x" * 1_000_001], ids=["none", "huge"])
def test_a_bundle_without_a_card_says_so(folder, capsys, text):
    if text is not None:
        with_card(folder, text)
    assert command.main(["card", str(folder)]) == 2
    assert "has no README.md" in capsys.readouterr().err


def test_a_changed_card_is_not_printed(folder, capsys):
    with_card(folder, b"# Fox")
    (folder / "README.md").write_bytes(b"# Cat")
    assert command.main(["card", str(folder)]) == 3
    assert capsys.readouterr().out == ""
