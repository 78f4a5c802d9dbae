"""The manifest survives a round trip and refuses what it should."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nano_runtime.bundle.checksums import blake3_of, sha256_of
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import MANIFEST_NAME, FileEntry
from nano_runtime.bundle.reading import read_manifest, write_manifest
from nano_runtime.errors import ManifestError, NotABundleError, TamperedFileError


def edit(folder: Path, change) -> None:
    """Change the manifest as JSON."""
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    change(document)
    (folder / MANIFEST_NAME).write_text(json.dumps(document))


def test_round_trip_keeps_every_byte(folder):
    before = (folder / MANIFEST_NAME).read_bytes()
    write_manifest(folder, read_manifest(folder))
    assert (folder / MANIFEST_NAME).read_bytes() == before


def test_what_no_reader_takes_is_not_written(folder):
    """Names of files and licences, and keys that a scheduler's config has beside its own, may hold anything."""
    manifest = read_manifest(folder)
    odd = {"size": 10**30, "loras": [{"name": "a\nb\x1b\u202ec.safetensors"}], "\x07": -(10**30), "note": float("nan")}
    write_manifest(folder, msgspec.structs.replace(manifest, name="my\nmodel 狐", options=odd))
    found = read_manifest(folder)
    assert found.name == "my_model 狐"
    assert found.options == {
        "size": str(10**30),
        "loras": [{"name": "a_b__c.safetensors"}],
        "_": str(-(10**30)),
        "note": "NaN",
    }


def test_records_cannot_be_changed(folder):
    manifest: Any = read_manifest(folder)
    with pytest.raises(AttributeError):
        manifest.name = "other"


def test_a_missing_folder_is_not_a_bundle(tmp_path):
    with pytest.raises(NotABundleError, match="no such folder"):
        read_manifest(tmp_path / "nowhere")


def test_what_was_perhaps_meant_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "model_index.json").touch()
    (tmp_path / "README.md").touch()
    for name, words in {
        "checkpoint": "it is a checkpoint\nExport it first: nano-export checkpoint --int8",
        "README.md": "it is no folder\n",
        "demo": "no such folder\nName no bundle",
        "someone/some-model": "exported first: nano-export someone/some-model",
        "checkpoint/nothing": "no such folder\nGive a folder that nano-export wrote.",
    }.items():
        with pytest.raises(NotABundleError) as caught:
            read_manifest(Path(name))
        assert words in f"{caught.value.what}\n{caught.value.hint}\n"
        assert ("exported first" in caught.value.hint) == (name == "someone/some-model")


def test_a_folder_without_manifest_is_not_a_bundle(tmp_path):
    with pytest.raises(NotABundleError, match=r"manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe{}", b"[" * 100_000, b'{"format_version": 1}', b"{}"],
    ids=["empty", "half", "list", "null", "text", "utf16", "deep", "bare", "no-version"],
)
def test_other_content_is_refused(folder, content):
    (folder / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ManifestError):
        read_manifest(folder)


def test_a_huge_manifest_is_refused_unread(folder):
    (folder / MANIFEST_NAME).write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(ManifestError, match="1048578 bytes"):
        read_manifest(folder)


def test_another_format_version_is_named(folder):
    edit(folder, lambda document: document.update(format_version=99))
    with pytest.raises(ManifestError, match="format_version 99, this runtime reads 1 to 5"):
        read_manifest(folder)


def test_the_format_before_this_one_is_read(folder):
    edit(folder, lambda document: document.update(format_version=1))
    assert read_manifest(folder).format_version == 1
    edit(folder, lambda document: document.update(format_version=0))
    with pytest.raises(ManifestError):
        read_manifest(folder)


@pytest.mark.parametrize("shape", [["tokens", 4], [2, "batch"], ["batch", "tokens", "tokens"], ["batch", "length"]])
def test_a_free_dimension_has_its_place(folder, shape):
    def change(shape):
        return lambda document: document["components"]["unet"]["inputs"][1].update(shape=shape)

    made = {"shape": ["batch", 4, 77]}
    edit(folder, lambda document: document["components"]["unet_prompt"]["outputs"][0].update(made))
    edit(folder, change(["batch", 4, "tokens"]))
    assert read_manifest(folder).components["unet"].inputs[1].shape == ["batch", 4, "tokens"]
    edit(folder, change(shape))
    with pytest.raises(ManifestError, match=r"out of place|Invalid enum value"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(surprise=1),
        lambda document: document.pop("scaling_factor"),
        lambda document: document.update(scaling_factor="0.18"),
        lambda document: document["components"]["unet"].update(precision="int3"),
        lambda document: document["components"].pop("vae_decoder"),
        lambda document: document["components"]["unet"]["graphs"].pop("openvino"),
        lambda document: document["components"]["unet"]["inputs"].pop(),
        lambda document: document["components"]["unet_time"]["outputs"][0].update(name="time_1"),
        lambda document: document["files"].append(document["files"][0]),
        lambda document: document["files"].pop(),
        lambda document: document.update(graph="standard"),
    ],
    ids=[
        "unknown-key", "missing-key", "wrong-type", "wrong-choice", "missing-component", "missing-graph", "idle-output",
        "unfed-input", "listed-twice", "no-checksum", "wrong-wiring",
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(folder, change):
    edit(folder, change)
    with pytest.raises(ManifestError):
        read_manifest(folder)


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a\\b", "C:x", "", "a\0b", ".."],
)
def test_paths_cannot_leave_the_bundle(folder, name):
    edit(folder, lambda document: document["files"][0].update(path=name))
    with pytest.raises(ManifestError):
        read_manifest(folder)


def test_an_innocent_path_is_not_refused_for_its_dots(folder):
    extra = folder / "a..b" / "..c"
    extra.parent.mkdir()
    extra.write_bytes(b"fine")
    entry = {"path": "a..b/..c", "size": 4, "sha256": sha256_of(extra)}
    edit(folder, lambda document: document["files"].append(entry))
    assert read_manifest(folder).files[-1].path == "a..b/..c"


def test_sha256_is_that_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-4's first example
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_blake3_is_that_of_its_authors(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # as ``b3sum`` prints it
    assert blake3_of(tmp_path / "abc") == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"


@pytest.mark.parametrize("checksum", ["sha256", "blake3"])
def test_loading_compares_the_quick_checksum_and_verifying_both(folder, checksum):
    edit(folder, lambda document: document["files"][0].update({checksum: "0" * 64}))
    bundle = Bundle.open(folder)
    (fault,) = bundle.faults()
    assert checksum in fault.what
    with nullcontext() if checksum == "sha256" else pytest.raises(TamperedFileError, match="blake3"):
        bundle.verified_file(bundle.manifest.files[0].path)


@pytest.mark.parametrize("right", [True, False])
def test_formats_without_the_quick_checksum_are_compared_by_the_other(folder, right):
    def older(document):
        document["format_version"] = 3
        for entry in document["files"]:
            del entry["blake3"]
            entry["sha256"] = entry["sha256"] if right else "0" * 64

    edit(folder, older)
    with nullcontext() if right else pytest.raises(TamperedFileError, match="sha256"):
        Bundle.open(folder).content("unet/model.onnx")


def test_the_schema_is_strict_about_numbers():
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"path": "a", "size": "4", "sha256": ""}', type=FileEntry)
