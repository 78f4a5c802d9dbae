"""Publishing a folder while operations fail, processes are killed, and others publish into the same place."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from hashlib import sha256
from itertools import product
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
from tests.faults import ERRORS, SHORT, failing

from nano_export.bundle.publish import staged
from nano_runtime.errors import OutputError, OutputExistsError

FORK = multiprocessing.get_context("fork")  # a child that has imported everything starts in a millisecond
SEED = 20


def publish(target: Path, content: str, *, bytes_each: int = 1000) -> None:
    """Publish a folder of which every part is known from its manifest."""
    with staged(target, force=True) as folder:
        sums = {}
        for name in ("LICENSE", "unet/model.onnx", "unet/model.onnx.data"):
            data = (content * bytes_each)[:bytes_each].encode()
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            sums[name] = sha256(data).hexdigest()
        files = [{"path": name, "size": bytes_each, "sha256": digest} for name, digest in sums.items()]
        ours: dict[str, object] = {key: {} for key in ("tokenizer", "scheduler", "components")}
        manifest = {"format_version": 1, "content": content, "backends": [], **ours, "files": files}
        (folder / "manifest.json").write_text(json.dumps(manifest))


def content_of(target: Path) -> str | None:
    """Return which folder is at the target, None for none; fail if it is not all there."""
    if not target.exists():
        return None
    manifest = json.loads((target / "manifest.json").read_bytes())
    found = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
    assert {*found} == {*(entry["path"] for entry in manifest["files"]), "manifest.json"}
    for entry in manifest["files"]:
        assert sha256(found[entry["path"]].read_bytes()).hexdigest() == entry["sha256"]
    return manifest["content"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cases() -> Iterator[object]:
    """Every kind of fault, with and without a bundle to replace; those that differ by a number alone are slow tests."""
    for error, before, lasting in product((*ERRORS, SHORT), ("old", None), (True, False)):
        quick = error not in {errno.EIO, errno.EACCES} or (before == "old" and lasting)
        name = f"{errno.errorcode.get(error, 'short')}, {'new' if before is None else 'replaced'}"
        yield pytest.param(
            *(error, before, lasting),
            id=f"{name}, {'lasting' if lasting else 'once'}",
            marks=() if quick else pytest.mark.slow,
        )


def test_half_a_folder_is_recognized_as_one(tmp_path):
    """The control for everything below."""
    publish(tmp_path / "bundle", "old")
    data = tmp_path / "bundle" / "unet" / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(AssertionError):
        content_of(tmp_path / "bundle")
    data.unlink()
    with pytest.raises(AssertionError):
        content_of(tmp_path / "bundle")


@pytest.mark.parametrize(("error", "before", "lasting"), list(cases()))
def test_every_operation_may_fail(tmp_path, error, before, lasting):
    parent = tmp_path / "place"
    parent.mkdir()
    target = parent / "bundle"
    first, struck = 0, 1
    while struck:
        first += 1
        if before is not None:
            publish(target, before)
        told = None
        with failing(parent, first, error, lasting=lasting) as faults:
            try:
                publish(target, "new")
            except OutputError as raised:
                told = raised.what
        assert told is None or (os.strerror(error) in told and str(target) in told)
        struck = faults.struck
        assert content_of(target) in ({before, "new", None} if lasting else {before, "new"})
        assert told is not None or content_of(target) == "new"
        publish(target, "next")
        assert content_of(target) == "next"
        assert names(parent) == ["bundle"]
        if before is None:
            target.rename(tmp_path / f"done-{first}")
    assert first > (3 if error == SHORT else 10)


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_what_is_wrong_elsewhere_is_not_blamed_on_the_target(tmp_path, error):
    with pytest.raises(OSError, match="elsewhere") as caught, staged(tmp_path / "bundle", force=False):
        raise OSError(error, os.strerror(error), "/elsewhere")
    assert not isinstance(caught.value, OutputError)
    assert names(tmp_path) == []


def publish_for_ever(target: Path, bytes_each: int) -> None:
    number = 0
    while True:
        number += 1
        publish(target, f"{os.getpid()}-{number} ", bytes_each=bytes_each)


@pytest.mark.parametrize("kills", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_killed_at_any_moment(tmp_path, kills):
    """A child publishes one folder after the other; a kill finds it filling, syncing, renaming or removing."""
    target = tmp_path / "bundle"
    dice = np.random.default_rng(SEED)
    seen = set()
    for _ in range(kills):
        child = FORK.Process(target=publish_for_ever, args=(target, 300_000))
        child.start()
        time.sleep(dice.uniform(0.0, 0.1))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        content_of(target)  # whole, or not there
        seen.add(tuple(sorted({name.split("-")[0] for name in names(tmp_path)})))
        if dice.random() < 0.5:  # the other half: kills upon kills
            publish(target, "next")
            assert content_of(target) == "next"
            assert names(tmp_path) == ["bundle"]
    assert any(".bundle.staging" in names for names in seen), "no kill found anything unfinished"
    publish(target, "last")
    assert names(tmp_path) == ["bundle"]


def take_part(target: Path, rounds: int, barrier: Barrier, answers: Queue[str], *, locks: bool) -> None:
    """Publish in step with others, and say how each round went."""
    if not locks:
        fcntl.flock = lambda *_: None  # as on some network file systems: every lock is granted to everyone
    for number in range(rounds):
        barrier.wait(60)
        try:
            publish(target, f"{os.getpid()}-{number} ", bytes_each=100_000)
        except OutputError as error:
            answers.put(error.what)
        except BaseException as error:  # noqa: BLE001 - reported to the parent
            answers.put(f"unexpected {error!r}")
        else:
            answers.put("published")
        barrier.wait(60)
        barrier.wait(60)  # the parent looks meanwhile


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_eight_exports_into_one_place(tmp_path, rounds, locks):
    processes, target = 8, tmp_path / "bundle"
    barrier, answers = FORK.Barrier(processes + 1), FORK.Queue()
    children = [
        FORK.Process(target=take_part, args=(target, rounds, barrier, answers), kwargs={"locks": locks}, daemon=True)
        for _ in range(processes)
    ]
    for child in children:
        child.start()
    said = []
    for _ in range(rounds):
        barrier.wait(60)
        barrier.wait(60)
        assert content_of(target) is not None
        assert names(tmp_path) == ["bundle"]
        said += [answers.get(timeout=60) for _ in range(processes)]
        barrier.wait(60)
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    published = said.count("published")
    refused = sum("another export into this folder is running" in answer for answer in said)
    assert published + refused == len(said), set(said)
    assert published >= rounds
    # A lock that everyone gets refuses only whoever finds its file just being removed.
    assert refused > 0 if locks else published > 0.8 * len(said), "the locks were not what was tested"


def test_without_force_the_second_of_two_is_refused_at_the_last_moment(tmp_path, monkeypatch):
    """No lock kept the other out, and it was quicker."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    target = tmp_path / "bundle"
    with pytest.raises(OutputExistsError), staged(target, force=False):
        publish(target, "other")
    assert content_of(target) == "other"
    assert names(tmp_path) == ["bundle"]


def test_names_that_look_like_patterns_are_names_and_other_peoples_folders_stay(tmp_path):
    others = [tmp_path / name for name in (".other.staging-0123456789ab", ".*.old-photos", ".a[b].staging-new")]
    for other in others:
        other.mkdir()
    for name in ("*", "a[b]", "é" * 120, "x" * 250):
        publish(tmp_path / name, "new")
        publish(tmp_path / name, "newer")
        assert content_of(tmp_path / name) == "newer"
    assert all(other.exists() for other in others)
