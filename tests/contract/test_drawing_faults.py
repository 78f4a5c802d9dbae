"""Whichever file operation of a whole ``nano-generate`` fails, and however: the old picture or the new, and words."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.faults import ERRORS, SHORT, failing

from nano_runtime.cli import generate
from nano_runtime.system import files

FEW = 3
OPTIONS = ("--steps=1", "--guidance=1", "--seed=3", "--threads=1", "--force")


class Place:
    """A bundle, a cache and a picture below one folder, all of whose operations can fail."""

    def __init__(self, folder: Path, bundle: Path, backend: str) -> None:
        self.folder = folder
        self.picture = folder / "out" / "x.png"
        self.picture.parent.mkdir()
        shutil.copytree(bundle, folder / "bundle")
        self._argv = ["a fox", f"--bundle={folder}/bundle", f"--backend={backend}", f"-o{self.picture}", *OPTIONS]

    def draw(self) -> int:
        """Draw as a new process would, which looks through the picture's folder."""
        files._tidy.clear()  # noqa: SLF001
        return generate.main([*self._argv, f"--cache={self.folder}/cache"])

    def put_old(self) -> bytes:
        Image.new("RGB", (8, 8)).save(self.picture)
        return self.picture.read_bytes()


@pytest.fixture
def place(tmp_path, fp32, backend) -> Place:
    return Place(tmp_path, fp32, backend)


def counted(place: Place, error: int) -> int:
    """Return how many operations of a drawing such a fault could strike."""
    with failing(place.folder, 0, error, lasting=False) as faults:
        assert place.draw() == 0
    return faults.count


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("error", [*ERRORS, SHORT], ids=[*map(errno.errorcode.get, ERRORS), "short"])
@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_every_operation_may_fail(place, error, lasting, full, capsys):
    """Among them are those that read the bundle: an unreadable disk is the fault of the machine, not of the bundle."""
    assert place.draw() == 0  # which fills the cache: from here on, the same operations every time
    new = place.picture.read_bytes()
    total = counted(place, error)
    numbers = range(1, total + 2)
    chance = random.Random(f"{error} {lasting}")  # noqa: S311 - to be repeated, not to be secret
    told = 0
    for first in numbers if full else sorted(chance.sample(numbers, min(FEW, total))):
        old = place.put_old()
        capsys.readouterr()
        with failing(place.folder, first, error, lasting=lasting) as faults:
            code = place.draw()
        out, said = capsys.readouterr()
        case = (first, code, said)
        assert (faults.struck > 0) == (first <= total), case
        if code == 0:
            assert place.picture.read_bytes() == new, case
            assert out == f"{place.picture}\n"
        else:
            assert code == 4, case
            assert os.strerror(error) in said, case
            assert "nano-generate: " in said
            # The name is put on the disk after the file has it: should that fail, the new one is there already.
            assert place.picture.read_bytes() in {old, new}, case
            told += 1
        assert [path.name for path in place.picture.parent.iterdir()] == ["x.png"] or lasting, case
    print(f"{errno.errorcode.get(error, 'short')}: {total} operations, {told} told")  # noqa: T201 - with -s
    assert place.draw() == 0  # and nothing is broken
    assert place.picture.read_bytes() == new
    assert told > 0 or error == SHORT or not full
