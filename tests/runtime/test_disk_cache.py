"""What is kept between runs: whole or absent, never too many, and no one else's files touched."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nano_runtime.system.disk_cache import DiskCache, close_to_others

CONTENT = bytes(range(256)) * 4


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_stored_comes_back(tmp_path):
    blobs = DiskCache(tmp_path / "made" / "when needed")
    assert blobs.get("one") is None
    assert list(tmp_path.iterdir()) == []  # asking leaves nothing
    blobs.put("one", CONTENT)
    blobs.put("two", b"")
    assert (blobs.get("one"), blobs.get("two"), blobs.get("three")) == (CONTENT, b"", None)
    assert DiskCache(tmp_path / "made" / "when needed").get("one") == CONTENT
    assert (tmp_path / "made" / "when needed").stat().st_mode & 0o077 == 0  # nobody else's business


def test_a_folder_that_cannot_be_used_is_told_once(tmp_path, caplog):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file", tmp_path / "file" / "conditioning"):
        cache = DiskCache(folder)
        cache.put("one", CONTENT)
        cache.put("two", CONTENT)
        assert cache.get("one") is None
    (record,) = caplog.records
    assert record.getMessage().startswith(f"nothing is kept in the cache folder {tmp_path / 'file'}: Not a directory (")


@pytest.fixture(params=[0o022, 0o000, 0o777], ids=["umask 022", "umask 000", "umask 777"])
def umask(request) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_nobody_else_may_read_what_the_cache_makes(tmp_path):
    """In the folders above, too: another cache may put its files there."""
    inner = tmp_path / "made" / "when" / "needed"
    DiskCache(inner).put("one", CONTENT)
    DiskCache(inner.parent).put("two", CONTENT)
    for folder in (inner, *inner.parents[:2]):
        assert mode(folder) == 0o700
    assert [mode(path) for path in files(tmp_path)] == [0o600, 0o600]


@pytest.mark.usefixtures("umask")
def test_a_folder_that_others_share_stays_shared_and_its_files_private(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    DiskCache(shared).put("one", CONTENT)
    DiskCache(shared / "inner").put("one", CONTENT)
    assert (mode(shared), mode(shared / "inner") & 0o777) == (0o2775, 0o700)
    assert [mode(path) for path in files(tmp_path)] == [0o600, 0o600]


@pytest.mark.parametrize("before", [0o755, 0o777, 0o710, 0o701])
def test_a_folder_of_our_own_is_closed_to_others(tmp_path, before):
    tmp_path.chmod(before)
    close_to_others(tmp_path)
    assert mode(tmp_path) == 0o700


def test_folders_of_other_users_links_and_files_keep_their_mode(tmp_path, monkeypatch):
    folder, link, file = tmp_path / "folder", tmp_path / "link", tmp_path / "file"
    folder.mkdir()
    folder.chmod(0o755)
    link.symlink_to(folder)
    file.touch(0o644)
    for path in (link, file, tmp_path / "missing"):
        close_to_others(path)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    close_to_others(folder)
    assert (mode(folder), mode(file) & 0o600) == (0o755, 0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]


@pytest.mark.parametrize("name", ["fifo", "hole", "link", "folder", "socket"])
def test_what_the_cache_did_not_make_is_as_good_as_none_and_replaced(tmp_path, monkeypatch, name):
    cache = DiskCache(tmp_path / "cache")
    cache.put("one", CONTENT)
    (path,) = files(tmp_path)
    stored = path.read_bytes()
    path.unlink()
    if name == "fifo":
        os.mkfifo(path, 0o600)  # which to open waits for somebody who writes
    elif name == "hole":
        path.touch(0o600)
        os.truncate(path, 1 << 42)
    elif name == "link":
        (tmp_path / "elsewhere").write_bytes(stored)
        path.symlink_to(tmp_path / "elsewhere")
    elif name == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(path.parent)  # a socket's name has at most 107 bytes
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(path.name)
    assert cache.get("one") is None
    cache.put("one", CONTENT)
    assert cache.get("one") == (None if name == "folder" else CONTENT)


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_a_file_that_others_may_open_does_not_count(tmp_path, mode):
    cache = DiskCache(tmp_path)
    cache.put("one", CONTENT)
    (path,) = files(tmp_path)
    path.chmod(mode)
    assert cache.get("one") is None
    path.chmod(0o600)
    assert cache.get("one") == CONTENT  # the control


def test_a_file_of_another_user_does_not_count(tmp_path, monkeypatch):
    DiskCache(tmp_path).put("one", CONTENT)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert DiskCache(tmp_path).get("one") is None


@pytest.mark.parametrize("seed", range(20))
def test_one_flipped_bit_makes_it_absent(tmp_path, seed):
    blobs = DiskCache(tmp_path)
    blobs.put("one", CONTENT)
    (path,) = files(tmp_path)
    damaged = bytearray(path.read_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * len(damaged)))
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    assert blobs.get("one") is None
    assert files(tmp_path) == []
    blobs.put("one", CONTENT)
    assert blobs.get("one") == CONTENT


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 1000])
def test_a_file_cut_short_is_absent(tmp_path, length):
    DiskCache(tmp_path).put("one", CONTENT)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert DiskCache(tmp_path).get("one") is None


def test_a_file_under_another_keys_name_is_absent(tmp_path):
    blobs = DiskCache(tmp_path)
    blobs.put("one", CONTENT)
    (one,) = files(tmp_path)
    blobs.put("two", b"other")
    (two,) = set(files(tmp_path)) - {one}
    one.replace(two)
    assert blobs.get("two") is None


def test_the_longest_unused_go_first(tmp_path):
    blobs = DiskCache(tmp_path, most_bytes=5000)
    for age, key in enumerate("abcd"):  # 1056 bytes each
        blobs.put(key, CONTENT)
        newest = max(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (1000 + age, 1000 + age))
    assert blobs.get("a") == CONTENT  # and so it is the newest again
    blobs.put("e", CONTENT)
    assert [key for key in "abcde" if blobs.get(key) is not None] == ["a", "c", "d", "e"]


def test_what_does_not_fit_is_not_kept(tmp_path):
    blobs = DiskCache(tmp_path, most_bytes=1000)
    blobs.put("one", CONTENT)
    assert files(tmp_path) == []


def test_unfinished_files_count_and_those_of_others_stay(tmp_path):
    blobs = DiskCache(tmp_path, most_bytes=5000)
    unfinished = tmp_path / ".nano-0a1b2c3d.part"
    unfinished.write_bytes(bytes(4500))
    os.utime(unfinished, (1000, 1000))
    mine = tmp_path / "thesis.blob"
    mine.write_bytes(bytes(9000))
    blobs.put("one", CONTENT)
    blobs.put("two", CONTENT)
    assert not unfinished.exists()
    assert mine.exists()
    assert blobs.get("one") == CONTENT


def test_a_folder_that_cannot_be_used_is_as_good_as_none(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        blobs = DiskCache(folder)
        blobs.put("one", CONTENT)
        assert blobs.get("one") is None
        blobs.drop("one")
    assert files(tmp_path) == [tmp_path / "file"]
