"""Whatever fails, and whenever, a file is the old one or the new one, and the next try works."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from tests.faults import ERRORS, SHORT, failing

from nano_runtime.errors import OutputError
from nano_runtime.pictures.png import save_png
from nano_runtime.pictures.sheet import contact_sheet
from nano_runtime.system.disk_cache import DiskCache
from nano_runtime.system.files import paths_below, write_whole

OLD, NEW = b"old" * 100, b"new" * 100_000  # more than a buffer
KILLED = """
import os, signal, sys
from pathlib import Path
from nano_runtime.system.files import write_whole
def write(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
write_whole(Path(sys.argv[1]), write)
"""

SAVED = """
import sys
from pathlib import Path
from nano_runtime.system.files import write_whole
write_whole(Path(sys.argv[1]), lambda file: file.write(b"new"))
"""


def save_bytes(path: Path) -> None:
    write_whole(path, lambda file: file.write(NEW))


def save_picture(path: Path) -> None:
    save_png(Image.effect_noise((64, 64), 50).convert("RGB"), path, None)


def save_sheet(path: Path) -> None:
    save_png(contact_sheet([Image.new("RGB", (8, 8))] * 5, 2), path, None)


def save_report(path: Path) -> None:
    document = json.dumps({"samples": list(range(10_000))}).encode()
    write_whole(path, lambda file: file.write(document))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_whole(path: Path, save: Callable[[Path], None]) -> bool:
    """Whether a file is what ``save`` writes, as far as one can tell by reading it."""
    if save in {save_picture, save_sheet}:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
        return True
    return path.read_bytes() == NEW if save is save_bytes else len(json.loads(path.read_bytes())["samples"]) == 10_000


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("error", [*ERRORS, SHORT], ids=[*map(errno.errorcode.get, ERRORS), "short"])
@pytest.mark.parametrize("save", [save_bytes, save_picture, save_sheet, save_report])
def test_every_operation_may_fail(tmp_path, save, error, lasting):
    path = tmp_path / "result"
    first, struck = 0, 1
    while struck:
        first += 1
        path.write_bytes(OLD)
        told = None
        with failing(tmp_path, first, error, lasting=lasting) as faults:
            try:
                save(path)
            except OutputError as raised:
                told = raised.what
        assert told is None or (os.strerror(error) in told and str(path) in told)
        struck = faults.struck
        old = path.read_bytes() == OLD
        assert old or is_whole(path, save)
        assert told is not None or not old, "it said that the file was written"
        for part in set(names(tmp_path)) - {"result"}:
            os.utime(tmp_path / part, (0, 0))
        save(path)
        assert is_whole(path, save)
        assert names(tmp_path) == ["result"]  # what could not be removed then is removed now
    assert first > (1 if error == SHORT else 2)  # some operation did fail


def test_without_the_care_the_same_faults_leave_half_a_file(tmp_path):
    """The control: a plain write, under the same faults, is caught by the same check."""
    path = tmp_path / "result"
    path.write_bytes(OLD)
    with failing(tmp_path, 3, errno.ENOSPC, lasting=True), suppress(OSError), path.open("wb") as file:
        file.write(NEW[:1000])
        file.flush()
        file.write(NEW)
    assert path.read_bytes() not in {OLD, NEW}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_a_cache_that_fails_is_no_error(tmp_path, error, lasting):
    first, struck = 0, 1
    while struck:
        first += 1
        blobs = DiskCache(tmp_path / "cache")
        with failing(tmp_path, first, error, lasting=lasting) as faults:
            blobs.put("key", NEW)
            assert blobs.get("key") in {NEW, None}
            blobs.put("key", OLD)
        struck = faults.struck
        assert blobs.get("key") in {NEW, OLD, None}
        blobs.put("key", NEW)
        assert blobs.get("key") == NEW
    assert first > 5


def test_what_a_killed_process_left_is_removed_when_it_is_a_minute_old(tmp_path):
    path = tmp_path / "picture.png"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (part,) = tmp_path.iterdir()
    save_bytes(path)
    assert part.exists()  # on some file systems a lock would not tell that its owner is gone
    os.utime(part, (0, 0))
    save_bytes(path)
    assert names(tmp_path) == ["picture.png"]


def test_what_a_living_process_is_writing_stays(tmp_path):
    inner, outer = tmp_path / "inner", tmp_path / "outer"

    def write(file):
        (part,) = tmp_path.iterdir()
        os.utime(part, (0, 0))  # an old file, as if this process had been asleep
        subprocess.run([sys.executable, "-c", SAVED, str(inner)], check=True)
        file.write(NEW)

    write_whole(outer, write)
    assert (outer.read_bytes(), inner.read_bytes()) == (NEW, b"new")


def test_a_tidy_folder_is_looked_through_once_a_minute(tmp_path, monkeypatch):
    looked, real = [], os.scandir

    def scandir(folder):
        looked.append(folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    part = tmp_path / ".nano-0.part"
    part.touch()
    for _ in range(2):
        save_bytes(tmp_path / "result")  # the file is young, and may be somebody's
    assert (part.exists(), len(looked)) == (True, 2)
    os.utime(part, (0, 0))
    for _ in range(5):
        save_bytes(tmp_path / "result")
    assert (part.exists(), len(looked)) == (False, 4)  # one removes it, the next finds nothing
    minute_later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: minute_later)
    part.touch()
    os.utime(part, (0, 0))
    save_bytes(tmp_path / "result")
    assert names(tmp_path) == ["result"]


def test_files_of_others_stay(tmp_path):
    link = tmp_path / ".nano-link.part"
    link.symlink_to(tmp_path / "thesis")
    (tmp_path / "thesis").write_bytes(OLD)
    (tmp_path / ".nanorc").write_bytes(OLD)
    for path in (tmp_path / "thesis", tmp_path / ".nanorc"):
        os.utime(path, (0, 0))
    os.utime(link, (0, 0), follow_symlinks=False)
    os.mkfifo(tmp_path / ".nano-pipe.part")  # which would be waited for
    os.utime(tmp_path / ".nano-pipe.part", (0, 0))
    save_bytes(tmp_path / "result")
    assert names(tmp_path) == [".nano-link.part", ".nano-pipe.part", ".nanorc", "result", "thesis"]


def test_a_clock_that_ran_backwards_removes_nothing(tmp_path):
    part = tmp_path / ".nano-0.part"
    part.touch()
    os.utime(part, (time.time() + 1e6,) * 2)
    save_bytes(tmp_path / "result")
    assert part.exists()


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path):
    """As ``Path.rglob`` does: a manifest once lacked what lay in such a folder."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").touch()
    assert sorted(paths_below(tmp_path)) == [tmp_path / "inner", tmp_path / "inner" / "file"]
    for first in (1, 2):
        with failing(tmp_path, first, errno.EACCES, lasting=False), pytest.raises(PermissionError):
            list(paths_below(tmp_path))
