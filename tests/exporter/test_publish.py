"""A folder appears whole or not at all: errors, kills at the worst moment, two runs at once, things in the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nano_export.bundle.publish import check_target, staged
from nano_export.errors import NotReplacedError
from nano_runtime.errors import OutputError, OutputExistsError

FORMATS = Path(__file__).parents[1] / "runtime" / "formats"

# Fills a bundle and is killed by signal 9 at a place that its first argument names.
KILLED = """
import os, signal, sys
from pathlib import Path
from nano_export.bundle.publish import staged
from tests.exporter.test_publish import manifest
place, target = sys.argv[1], Path(sys.argv[2])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
rename = Path.rename
def rename_once(self, new):
    rename(self, new)
    die()
with staged(target, force=True) as folder:
    (folder / "manifest.json").write_text(manifest("new"))
    if place == "inside":
        die()
    Path.rename = rename_once
"""
# An export whose native code computes for hours in an unfinished folder.
HANGING = """
import hashlib, sys, types
from pathlib import Path
from nano_export.bundle.publish import staged
def export(options):
    with staged(options.output, force=True) as folder:
        (folder / "half").touch()
        print("begun", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
    yield
sys.modules["nano_export.exporting"] = types.SimpleNamespace(Exported=int, export=export)
from nano_export.commands import export as command
sys.exit(command())
"""
# Holds the lock until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from nano_export.bundle.publish import staged
from tests.exporter.test_publish import manifest
with staged(Path(sys.argv[1]), force=True) as folder:
    (folder / "manifest.json").write_text(manifest("holder"))
    print("held", flush=True)
    sys.stdin.read()
"""


def manifest(name: str, *files: str) -> str:
    """Return the text of a manifest with what those of all formats have, and these files."""
    document = {"format_version": 1, "name": name, "backends": [], "tokenizer": {}, "scheduler": {}, "components": {}}
    return json.dumps({**document, "files": [{"path": file, "size": 1, "sha256": "0" * 64} for file in files]})


def name_of(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_bytes())["name"])


def publish(target: Path, content: str, *, force: bool = False, error: type[BaseException] | None = None) -> None:
    with staged(target, force=force) as folder:
        (folder / "unet").mkdir()
        (folder / "unet" / "model.onnx").write_text(content)
        (folder / "manifest.json").write_text(manifest(content, "unet/model.onnx"))
        if error is not None:
            raise error


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_folder_appears_and_nothing_else(tmp_path):
    with staged(tmp_path / "bundle", force=False) as folder:
        (folder / "manifest.json").write_text(manifest("new"))
        assert not (tmp_path / "bundle").exists()
        assert folder.parent == tmp_path  # the same disk, so that a rename suffices
    assert names(tmp_path) == ["bundle"]
    assert name_of(tmp_path / "bundle") == "new"


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_inside_leaves_things_as_they_were(tmp_path, error, before):
    target = tmp_path / "bundle"
    if before is not None:
        publish(target, before)
    with pytest.raises(error):
        publish(target, "half", force=True, error=error)
    assert names(tmp_path) == ([] if before is None else ["bundle"])
    if before is not None:
        assert name_of(target) == before


def test_a_bundle_is_replaced_only_by_force(tmp_path):
    target = tmp_path / "bundle"
    publish(target, "old")
    with pytest.raises(OutputExistsError, match="exists already"):
        publish(target, "new")
    assert name_of(target) == "old"
    publish(target, "new", force=True)
    assert name_of(target) == "new"
    assert names(tmp_path) == ["bundle"]


def test_force_never_replaces_what_is_no_bundle(tmp_path):
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_text("mine")
    bundle = tmp_path / "bundle"
    publish(bundle, "old")
    link, file, dangling = tmp_path / "link", tmp_path / "file", tmp_path / "dangling"
    link.symlink_to(bundle)
    dangling.symlink_to(tmp_path / "nowhere")
    file.write_text("mine")
    before = names(tmp_path)
    for target in (foreign, link, file, dangling):
        with pytest.raises(NotReplacedError, match=target.name):
            publish(target, "new", force=True)
    assert names(tmp_path) == before
    assert (foreign / "holiday.jpg").read_text() == file.read_text() == "mine"
    assert name_of(bundle) == "old"


def put(folder: Path, name: str, text: str = "mine") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def put_instead(folder: Path, file: str, name: str) -> None:
    (folder / file).unlink()
    put(folder, f"{file}/{name}")


def pipe_instead(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


STRANGERS = {
    "a note": lambda folder: put(folder, "notes.txt"),
    "a thesis": lambda folder: put(folder, "src/thesis.txt"),
    "beside a listed file": lambda folder: put(folder, "unet/model.onnx.bak"),
    "a hidden folder": lambda folder: (folder / ".git").mkdir(),
    "a link": lambda folder: (folder / "photos").symlink_to(folder.parent),
    "a folder that is a link": lambda folder: (
        (folder / "unet").rename(folder.parent / "elsewhere"),
        (folder / "unet").symlink_to(folder.parent / "elsewhere"),
    ),
    "a folder named as a file": lambda folder: put_instead(folder, "unet/model.onnx", "thesis.txt"),
    "an extension": lambda folder: put(folder, "manifest.json", '{"manifest_version": 3, "name": "my extension"}'),
    "a web app": lambda folder: put(folder, "manifest.json", '{"format_version": 1, "files": []}'),
    "a later format": lambda folder: put(
        folder, "manifest.json", manifest("x", "unet/model.onnx").replace('version": 1', 'version": 999')
    ),
    "no JSON": lambda folder: put(folder, "manifest.json", "[" * 100_000),
    "a manifest elsewhere": lambda folder: (
        (folder / "manifest.json").rename(folder.parent / "m.json"),
        (folder / "manifest.json").symlink_to(folder.parent / "m.json"),
    ),
    "a pipe": lambda folder: pipe_instead(folder / "manifest.json"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_force_keeps_what_no_manifest_of_ours_lists(tmp_path, stranger):
    target = tmp_path / "bundle"
    publish(target, "old")
    STRANGERS[stranger](target)
    before = sorted((path, path.lstat().st_ino) for path in tmp_path.rglob("*"))
    with pytest.raises(NotReplacedError, match=r"is not replaced: its? ") as caught:
        publish(target, "new", force=True)
    assert sorted((path, path.lstat().st_ino) for path in tmp_path.rglob("*")) == before
    assert str(target) in caught.value.what


def test_the_first_stranger_is_named(tmp_path):
    publish(tmp_path / "bundle", "old")
    put(tmp_path / "bundle", "src/thesis.txt")
    put(tmp_path / "bundle", "zebra.txt")
    with pytest.raises(NotReplacedError, match=r"it has src/thesis\.txt, which its manifest\.json does not list"):
        check_target(tmp_path / "bundle", force=True)


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_text("other"), lambda path: (path.unlink(), path.symlink_to("nowhere"))],
    ids=["missing", "changed", "a link"],
)
def test_a_damaged_bundle_may_be_replaced(tmp_path, damage):
    publish(tmp_path / "bundle", "old")
    damage(tmp_path / "bundle" / "unet" / "model.onnx")
    publish(tmp_path / "bundle", "new", force=True)
    assert name_of(tmp_path / "bundle") == "new"


@pytest.mark.parametrize("form", sorted(FORMATS.iterdir()), ids=lambda path: path.stem)
def test_bundles_of_all_formats_may_be_replaced(tmp_path, form):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_bytes(form.read_bytes())
    publish(tmp_path / "bundle", "new", force=True)
    assert name_of(tmp_path / "bundle") == "new"


def test_a_file_that_comes_during_the_export_stays(tmp_path):
    publish(tmp_path / "bundle", "old")

    def publish_meanwhile() -> None:
        with staged(tmp_path / "bundle", force=True) as folder:
            put(folder, "manifest.json", manifest("new"))
            put(tmp_path / "bundle", "thesis.txt")

    with pytest.raises(NotReplacedError, match="thesis"):
        publish_meanwhile()
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["manifest.json", "thesis.txt", "unet"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "bundle").mkdir()
    publish(tmp_path / "bundle", "new")
    assert names(tmp_path) == ["bundle"]
    assert (tmp_path / "bundle" / "unet" / "model.onnx").read_text() == "new"


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        check_target(tmp_path / "nowhere" / "bundle", force=False)
    if os.geteuid() != 0:  # root may write anywhere
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError, match="no permission"):
            check_target(tmp_path / "bundle", force=False)


def test_staging_of_a_killed_run_is_removed_and_others_kept(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, "inside", str(tmp_path / "bundle")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [name for name in names(tmp_path) if name.startswith(".bundle.staging-")]
    (tmp_path / ".other.staging-1").mkdir()
    publish(tmp_path / "bundle", "new")
    assert names(tmp_path) == [".other.staging-1", "bundle"]


def test_a_run_killed_between_the_two_renames_is_undone(tmp_path):
    target = tmp_path / "bundle"
    publish(target, "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, "renames", str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()  # the moment it is about: the old bundle has gone, the new one has not come
    with pytest.raises(ZeroDivisionError):
        publish(target, "new", force=True, error=ZeroDivisionError)
    assert names(tmp_path) == ["bundle"]
    assert name_of(target) == "old"


def test_a_second_export_into_the_same_place_is_refused(tmp_path):
    target = tmp_path / "bundle"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another export into this folder is running"):
            publish(target, "second", force=True)
        publish(tmp_path / "elsewhere", "second")  # the lock is the target's, not the folder's
        holder.stdin.close()
        assert holder.wait(timeout=60) == 0
    assert name_of(target) == "holder"
    assert names(tmp_path) == ["bundle", "elsewhere"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_native_code_that_does_not_end_is_ended_and_leaves_the_old_folder(number, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "manifest.json").write_text(manifest("old"))
    words = [sys.executable, "-c", HANGING, "tiny", "--force", "-o", str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]  # of hours
    assert (process.returncode, said.splitlines()[-1]) == (130, "nano-export: interrupted")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (target / "manifest.json").read_text() == manifest("old")
