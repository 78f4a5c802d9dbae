"""A bundle whose files are not what its manifest says: always the same kind of error, which names the file."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.cli import bundle as command
from nano_runtime.cli import generate

CHUNKS = 10
FEW, FULL = 40, 240  # in a chunk: 2,400 in all


def truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def extend(path: Path, chance: random.Random) -> None:
    with path.open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 100)))


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 4)):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    content[0] ^= 0 if content != path.read_bytes() else 1  # flips can undo each other
    path.write_bytes(content)


def zero(path: Path, _chance: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def grow(path: Path, _chance: random.Random) -> None:
    os.truncate(path, 1 << 40)  # a file with a hole: a terabyte that takes no space


def swap(path: Path, chance: random.Random) -> None:
    mine = path.read_bytes()
    files = sorted(other for other in path.parents[1].rglob("*") if other.is_file() and other.name != MANIFEST_NAME)
    other = chance.choice([other for other in files if other.read_bytes() != mine])
    path.write_bytes(other.read_bytes())
    other.write_bytes(mine)


def remove(path: Path, _chance: random.Random) -> None:
    path.unlink()


def folder(path: Path, _chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path, _chance: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path, _chance: random.Random) -> None:
    target = path.parents[2] / f"the real {path.name}"
    path.rename(target)
    path.symlink_to(target)


def device(path: Path, _chance: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def parent_link(path: Path, _chance: random.Random) -> None:
    target = path.parents[2] / "the real folder"
    path.parent.rename(target)
    path.parent.symlink_to(target)


KINDS = [truncate, extend, flip, zero, grow, swap, remove, folder, fifo, link, device, parent_link]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_changed_file_is_named(folder, chunk, full, tmp_path, capsys):
    if chunk > 0 and not full:
        pytest.skip("needs --counts full")
    chance = random.Random(chunk)  # noqa: S311 - to be repeated, not to be secret
    names = [entry.path for entry in Bundle.open(folder).manifest.files if "/" in entry.path]
    for index in range(FULL if full else FEW):
        copy = Path(shutil.copytree(folder, tmp_path / str(index) / "bundle"))
        name, kind = chance.choice(names), KINDS[index % len(KINDS)]
        kind(copy / name, chance)
        assert command.main(["verify", str(copy)]) == 3, (kind, name)
        out, err = capsys.readouterr()
        assert out == ""
        assert name in err
        assert "Traceback" not in err
        shutil.rmtree(copy.parent)


@pytest.mark.parametrize("kind", KINDS)
def test_no_engine_is_started_for_a_changed_file(folder, kind, tmp_path, monkeypatch, capsys):
    """Drawing says the same, and first: the graphs of this bundle are noise, which an engine would complain of."""
    monkeypatch.chdir(tmp_path)
    kind(folder / "tokenizer" / "tokenizer.json", random.Random(0))  # noqa: S311
    assert generate.main(["a fox", "--bundle", str(folder)]) == 3
    assert "tokenizer.json is not the file" in capsys.readouterr().err


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_any_change_of_the_manifest_is_noticed_by_who_knows_the_digest(folder, chunk, full, capsys):
    if chunk > 0 and not full:
        pytest.skip("needs --counts full")
    chance = random.Random(chunk)  # noqa: S311
    digest = Bundle.open(folder).digest
    assert command.main(["verify", str(folder), "--expect-digest", digest.upper()]) == 0
    path = folder / MANIFEST_NAME
    raw = path.read_bytes()
    for index in range((FULL if full else FEW) // 4):
        (truncate, extend, flip, zero)[index % 4](path, chance)
        assert command.main(["verify", str(folder), "--expect-digest", digest]) == 3
        assert digest in capsys.readouterr().err
        path.write_bytes(raw)


@pytest.mark.parametrize("kind", [folder, fifo, link, device])
def test_a_manifest_that_is_no_plain_file_is_refused(folder, kind, capsys):
    kind(folder / MANIFEST_NAME, random.Random(0))  # noqa: S311
    assert command.main(["verify", str(folder)]) == 3
    assert MANIFEST_NAME in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["verify", "x"], ["info", "x"]])
def test_a_digest_is_64_hexadecimal_digits(argv, capsys):
    assert command.main([*argv, "--expect-digest", "sha256:abc"]) == 2
    assert "64 hexadecimal digits" in capsys.readouterr().err


def test_drawing_takes_a_digest(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert generate.main(["a fox", "--bundle", str(folder), "--expect-digest", "0" * 64]) == 3
    assert "0" * 64 in capsys.readouterr().err
