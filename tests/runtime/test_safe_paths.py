"""Names mean one file on every system, and only plain files are opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nano_runtime.bundle.safe_paths import collision, fault_of_name, fault_of_place
from nano_runtime.system.files import open_plain

GOOD = [
    "LICENSE",
    "unet/model.onnx.data",
    "a..b/..c",
    "tokenizer/tokenizer.json",
    "console/auxiliary.txt",
    "-x",
]
BAD = [
    "", "/etc/passwd", "//x", "../x", "a/../../x",
    "a/..", "..", ".", "a//b", "./a", "a/", "a\\b", "..\\x", "C:x", "C:/x",
    "\\\\host\\share",
    "a\0b", "a\nb", "\x1b[2J", "a\x7f", "a\u202egnp.exe", "a\u200bb", "\ufeffa", "\ud800", "a\u2028b",
    "con", "CON.txt", "unet/nul", "Aux.tar.gz", "com1", "LPT9.x", "COM\xb9", "conout$", "prn .txt",
    "a.", "a ", "dir./x", " a", "x/ a", "a?", "a*", "a|b", 'a"b', "<a>", "a:b", "e\u0301", "a/b/c/d/e", "x" * 201,
    "über/ß", "漢" * 200, "日本.txt",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_ordinary_names_pass(name):
    assert fault_of_name(name) is None


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_names_that_mean_something_else_somewhere_are_refused(name):
    fault = fault_of_name(name)
    assert fault is not None
    assert fault.isprintable()


@pytest.mark.parametrize(
    "names",
    [["a", "A"], ["a/x", "A/y"], ["a", "a/x"], ["a/x", "A"], ["unet/Model", "unet/model"]],
)
def test_names_that_collide_are_found(names):
    assert collision(names) is not None
    assert collision(reversed(names)) is not None


def test_names_that_differ_do_not_collide():
    assert collision(["a", "b", "c/a", "c/b", "ca", "c.x"]) is None


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "plain").write_bytes(b"x")
    return tmp_path


def test_only_plain_files_are_opened(place):
    (place / "link").symlink_to("in/plain")
    (place / "folder-link").symlink_to("in")
    os.mkfifo(place / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(place / "socket"))
    (place / "zero").symlink_to("/dev/zero")
    for name, why in (
        ("link", "link"), ("folder-link/plain", "link"), ("fifo", "plain"), ("socket", "plain"), ("zero", "link"),
        ("in", "plain"), ("none", "missing"), ("in/plain/below", "missing"),
    ):  # fmt: skip
        assert why in str(fault_of_place(place, name))
        if name != "folder-link/plain":  # the last part is all that opening looks at
            with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
                open_plain(place / name)
    with pytest.raises(OSError, match="not a plain file"):
        open_plain(Path("/dev/zero"))


def test_plain_and_hard_linked_files_are_opened(place):
    (place / "hard").hardlink_to(place / "in" / "plain")
    for name in ("in/plain", "hard"):
        assert fault_of_place(place, name) is None
        descriptor = open_plain(place / name)
        assert os.read(descriptor, 9) == b"x"
        os.close(descriptor)
