"""The table of checks: its order, what runs after a fault, and that the command prints whatever the table has."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Generator
from typing import Any

import pytest

from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.cli import bundle as command
from nano_runtime.errors import (
    DigestError,
    ExtraFileError,
    ManifestError,
    MissingArgumentError,
    NotABundleError,
    TamperedFileError,
    UnsafeGraphError,
)
from nano_runtime.system.machine import memory_available_bytes
from nano_runtime.verify import checks
from nano_runtime.verify.checks import Check, Checking, Request, Verification, verify_bundle, verify_stream
from nano_runtime.verify.trial import Limits


def add_check(monkeypatch, check: Check) -> None:
    monkeypatch.setattr(checks, "CHECKS", (*checks.CHECKS, check))


def no_haiku(_bundle, _request):
    yield ExtraFileError(DEMO / "haiku.txt")


@pytest.mark.parametrize("given", [str, lambda path: path, Bundle.open], ids=["text", "path", "bundle"])
def test_a_good_bundle_is_ok(folder, given):
    result = verify_bundle(given(folder))
    assert result.ok
    assert result.bundle.path == folder
    assert result.faults == ()
    (line,) = result.passed
    assert line == f"all {len(result.bundle.manifest.files)} files (0.0 MB) are as the manifest says; digest " + (
        result.bundle.digest
    )


def test_all_faults_of_a_check_are_told_and_no_later_check_runs(folder, monkeypatch):
    add_check(monkeypatch, Check("never", lambda *_: pytest.fail("it ran")))
    (folder / "unet/model.onnx").write_bytes(b"other")
    (folder / "notes.txt").write_bytes(b"mine")
    result = verify_bundle(folder)
    assert [type(fault) for fault in result.faults] == [TamperedFileError, ExtraFileError]
    assert (result.ok, result.passed) == (False, ())


def test_graphs_are_looked_into_once_their_checksums_are_right(folder, monkeypatch):
    monkeypatch.setattr("nano_runtime.bundle.unsafe_graphs.fault_of_onnx", lambda *_: "it is a haiku")
    result = verify_bundle(folder, deep=True)
    assert {type(fault) for fault in result.faults} == {UnsafeGraphError}
    assert len(result.faults) == len(result.bundle.manifest.components)
    assert len(result.passed) == 1  # the files; the engines were not started


def test_a_stream_tells_each_check_before_it_runs(folder):
    *told, result = verify_stream(Bundle.open(folder), Request())
    assert isinstance(result, Verification)
    events = [event for event in told if isinstance(event, Checking)]
    assert len(events) == len(told)
    asked = [check for check in checks.CHECKS if check.asked(Request())]
    assert [event.doing for event in events[:2]] == ["comparing files with their checksums", "looking into the graphs"]
    assert events == [Checking(check.doing, index, len(asked)) for index, check in enumerate(asked)]


def test_closing_a_stream_runs_no_further_check(folder, monkeypatch):
    monkeypatch.setattr(checks, "unsafe_graphs", lambda _: pytest.fail("it ran"))
    stream = verify_stream(Bundle.open(folder), Request())
    next(stream)
    next(stream)
    assert isinstance(stream, Generator)
    stream.close()


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_command_prints_a_check_that_it_does_not_know(folder, monkeypatch, capsys, spoilt):
    check = Check("reading it aloud", no_haiku if spoilt else lambda *_: iter(()), lambda *_: "no file is a haiku")
    add_check(monkeypatch, check)
    assert command.main(["verify", str(folder)]) == (3 if spoilt else 0)
    out, err = capsys.readouterr()
    assert out.endswith("" if spoilt else "\nno file is a haiku\n")
    assert ("haiku.txt is not listed" in err) == spoilt
    assert command.main(["verify", str(folder), "--json"]) == (3 if spoilt else 0)
    assert len(json.loads(capsys.readouterr().out)["faults"]) == spoilt


def test_the_digest_is_compared_for_paths_and_open_bundles(folder):
    bundle = Bundle.open(folder)
    for given in (folder, bundle):
        assert verify_bundle(given, expect_digest=bundle.digest.upper()).ok
        with pytest.raises(DigestError):
            verify_bundle(given, expect_digest="0" * 64)


def test_what_cannot_be_opened_raises(folder, tmp_path):
    with pytest.raises(NotABundleError):
        verify_bundle(tmp_path / "nowhere")
    (folder / "manifest.json").write_bytes(b"{}")
    with pytest.raises(ManifestError):
        verify_bundle(folder)


@pytest.mark.parametrize("half", ["signature", "public_key"])
def test_half_of_a_signature_is_refused(folder, half):
    with pytest.raises(MissingArgumentError, match=f"^{half} means nothing without"):
        verify_bundle(folder, **dict[str, Any]({half: "x"}))


def test_folders_1200_deep_end_no_command(folder, capsys):
    """Python's own walk of a folder recursed in 3.11."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=at)
        at, above = os.open("d", os.O_RDONLY, dir_fd=at), at
        os.close(above)
    os.close(at)
    try:
        assert command.main(["verify", str(folder)]) in {0, 3}
    finally:
        subprocess.run(["/bin/rm", "-rf", str(folder)], check=True)  # Python's own removal recurses, too
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_that_is_one_hole_does_not_lift_the_limits_of_a_trial(folder):
    """A terabyte that takes no space on the disk: what the machine has is the bound."""
    os.truncate(folder / Bundle.open(folder).component("unet").graphs["onnxruntime"].model, 1 << 40)
    path = folder / "manifest.json"
    document = json.loads(path.read_bytes())
    for entry in document["files"]:
        entry["size"] = (folder / entry["path"]).stat().st_size
    path.write_text(json.dumps(document))
    available = memory_available_bytes()
    assert available is not None
    limits = Limits.of(Bundle.open(folder), "onnxruntime")
    assert limits.memory_bytes < 1.5 * max(available, 3 << 30)
    assert limits.seconds < 90 + limits.memory_bytes / 8e6 + 1
