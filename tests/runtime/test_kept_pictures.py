"""Pictures that are finished are kept, whatever ends the command; the same command then draws the rest."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.faults import failing
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime.cli import generate
from nano_runtime.cli.work import Work
from nano_runtime.pictures.png import read_parameters
from nano_runtime.pipeline import Pipeline

SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL) if os.name != "nt" else ()
QUICK = ("--steps", "1", "--scheduler", "ddim", "--guidance", "1", "--threads", "1", "--no-cache")
PICTURES = ("an otter", "--seed", "7", "-o", "out/otter.png", *QUICK)
SHEET = ("an otter", "--grid", "steps=1,2", "-o", "out/sheet.png", *QUICK[2:])
FULL = 100  # ends of each command


def pixels(path: Path) -> np.ndarray:
    """What is in a picture, which has to be whole."""
    with Image.open(path) as image:
        image.load()
        return np.asarray(image.convert("RGB"))


def visible(folder: Path) -> dict[str, Path]:
    """All files below a folder, but for those that a killed process had not finished."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if not path.name.startswith(".nano-")}


class Drawing:
    """A command that is ended again and again."""

    def __init__(self, folder: Path, arguments: tuple[str, ...]) -> None:
        self.folder, self.arguments = folder, arguments
        self.out = folder / "out"
        self.out.mkdir()
        began = time.monotonic()
        assert self.complete() == 0
        self.seconds = time.monotonic() - began
        self.expected = {name: pixels(path) for name, path in visible(self.out).items()}
        self.found: list[int] = []

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "nano_runtime.cli.generate", *self.arguments],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def complete(self) -> int:
        return self.start().wait()

    def end(self, number: signal.Signals, share: float) -> None:
        """End the command after a share of its time, and look at what is there."""
        with self.start() as process:
            time.sleep(share * self.seconds)
            process.send_signal(number)
        assert process.returncode in {0, 130, -number}
        left = visible(self.out)
        for name, path in left.items():
            picture = pixels(path)
            if name in self.expected:
                np.testing.assert_array_equal(picture, self.expected[name])
            else:
                assert path.parent.name == "sheet-cells"
                read_parameters(path)
        self.found.append(len(left))

    def clear(self) -> None:
        for path in [*self.out.rglob("*")][::-1]:
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("kind", ["pictures", "sheet"])
def test_what_was_finished_when_a_command_was_ended_is_whole_and_the_same_command_goes_on(tmp_path, full, kind):
    arguments: tuple[str, ...]
    if kind == "pictures":
        arguments = (*PICTURES, "-n", "40" if full else "8")
    else:
        arguments = (*SHEET, "--grid", "seed=1,2,3,4,5,6" if full else "seed=1,2")
    drawing, dice = Drawing(tmp_path, arguments), random.Random(kind)  # noqa: S311 - to be repeated
    drawing.clear()
    for case in range(FULL if full else 1):
        drawing.end(SIGNALS[case % len(SIGNALS)] if full else SIGNALS[-1], dice.uniform(0.3, 1.02))
        if "sheet.png" in visible(drawing.out):  # which is finished, and is not replaced unasked
            assert drawing.complete() == 2
            drawing.clear()
        elif case % 4 == 3 or not full:  # the others: upon what the last one left
            assert drawing.complete() == 0
            assert {name: pixels(path).tobytes() for name, path in visible(drawing.out).items()} == {
                name: picture.tobytes() for name, picture in drawing.expected.items()
            }
            drawing.clear()
    print(f"files after each end: {drawing.found}")  # noqa: T201 - with -s
    assert max(drawing.found) > 0 or not full


@pytest.fixture
def run(hoisted, tmp_path, monkeypatch) -> Callable[..., int]:
    """The command in an empty folder, with formulas for graphs."""
    graphs = FakeGraphs(hoisted)

    def from_pretrained(_bundle: object, *_engine: object, **options: Any) -> Pipeline:
        return pipeline_of(graphs, keep_loaded=options["keep_loaded"], low_memory=options["low_memory"])

    monkeypatch.setattr(Pipeline, "from_pretrained", from_pretrained)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: generate.main([*map(str, arguments), "--no-cache"])


@contextmanager
def interrupted_after(pictures: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have Ctrl-C come when so many groups of pictures are finished."""
    draw = Work.draw

    def few(work: Work, *arguments: Any, **options: Any) -> Iterator[Any]:
        for number, finished in enumerate(draw(work, *arguments, **options), 1):
            yield finished
            if number == pictures:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Work, "draw", few)
        yield


def test_the_same_command_draws_the_rest_even_with_a_random_seed(run, tmp_path, monkeypatch, capsys):
    command = ("a red fox", "-n", 10, "-o", "fox.webp")
    with interrupted_after(2, monkeypatch):
        assert run(*command) == 130
    out, err = capsys.readouterr()
    assert "7 of 10 pictures are finished; the same command (without --force) draws the rest" in err
    there = visible(tmp_path)
    assert sorted(there) == sorted(out.split()) == sorted(f"fox-{i}.webp" for i in range(1, 8))
    before = {name: path.stat().st_mtime_ns for name, path in there.items()}
    assert run(*command, "--json") == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert "7 of 10 pictures are there already" in err
    assert [(of["path"], of["seed"] - report["images"][0]["seed"]) for of in report["images"]] == [
        (f"fox-{i + 1}.webp", i) for i in range(10)
    ]
    assert report["unet_calls"] == 4  # of one group
    assert {name: path.stat().st_mtime_ns for name, path in there.items()} == before
    assert run(*command) == 0
    assert "nothing was left to draw" in capsys.readouterr().err


def test_a_sheet_goes_on_with_its_places_and_then_removes_them(run, tmp_path, monkeypatch, capsys):
    command = ("a red fox", "--grid", "steps=1,2,3", "--grid", "guidance=1,4", "-o", "sheet.jpg")
    with interrupted_after(4, monkeypatch):
        assert run(*command) == 130
    assert "4 of 6 pictures are finished" in capsys.readouterr().err
    assert sorted(visible(tmp_path)) == [f"sheet-cells/{number}.png" for number in range(1, 5)]
    seed = read_parameters(tmp_path / "sheet-cells" / "1.png").options.seed
    assert run(*command) == 0
    out, err = capsys.readouterr()
    assert "4 of 6 pictures are there already" in err
    assert (out, list(visible(tmp_path))) == ("sheet.jpg\n", ["sheet.jpg"])
    assert run(*command[:-1], "whole.jpg", "--seed", seed) == 0
    np.testing.assert_array_equal(pixels(tmp_path / "sheet.jpg"), pixels(tmp_path / "whole.jpg"))


def test_pictures_of_another_command_are_neither_taken_nor_replaced(run, tmp_path, monkeypatch, capsys):
    command = ("a red fox", "-n", 6, "-o", "fox.png")
    with interrupted_after(1, monkeypatch):
        assert run(*command) == 130
    before = {name: path.read_bytes() for name, path in visible(tmp_path).items()}
    for other in (("--steps", 3), ("--guidance", 5), ("--negative-prompt", "snow"), ("--seed", 3)):
        assert run(*command, *other) == 2
        assert "fox-1.png exists already" in capsys.readouterr().err
    (tmp_path / "fox-6.png").write_bytes(b"mine")
    assert run(*command) == 2
    assert "fox-6.png exists already" in capsys.readouterr().err
    (tmp_path / "fox-6.png").unlink()
    assert {name: path.read_bytes() for name, path in visible(tmp_path).items()} == before
    assert run(*command, "--force", "--seed", 99) == 0
    assert read_parameters(tmp_path / "fox-1.png").options.seed == 99


def test_in_a_folder_pictures_go_on_by_their_seeds(run, tmp_path, monkeypatch, capsys):
    with interrupted_after(1, monkeypatch):
        assert run("a red fox", "-n", 6) == 130
    err = capsys.readouterr().err
    seed = min(int(path.stem.removeprefix("nano-")) for path in tmp_path.iterdir())
    assert f"3 of 6 pictures are finished; the same command with --seed {seed} draws the rest" in err
    assert run("a red fox", "-n", 6, "--seed", seed) == 0
    assert sorted(visible(tmp_path)) == sorted(f"nano-{seed + i}.png" for i in range(6))
    assert run("a red fox", "-n", 2, "--seed", seed - 1) == 0  # whose first picture is not there: another command
    assert {f"nano-{seed - 1}.png", f"nano-{seed}-2.png"} <= set(visible(tmp_path))
    varied = ("a red fox", "-n", 6, "--seed", 5, "--variation-strength", 0.2, "--variation-seed", 8)
    with interrupted_after(1, monkeypatch):
        assert run(*varied) == 130
    assert run(*varied) == 0
    siblings = [read_parameters(tmp_path / name).options for name in visible(tmp_path) if re.match(r"nano-5[.-]", name)]
    assert sorted((of.seed, of.variation_seed) for of in siblings) == [(5, seed) for seed in range(8, 14)]


def test_without_metadata_the_rest_has_to_be_asked_for(run, tmp_path, monkeypatch, capsys):
    with interrupted_after(1, monkeypatch):
        assert run("a red fox", "-n", 6, "--seed", 3, "-o", "fox.png", "--no-metadata") == 130
    assert "--seed 6 draws from the next one on" in capsys.readouterr().err
    assert run("a red fox", "-n", 6, "--seed", 3, "-o", "fox.png", "--no-metadata") == 2
    assert len(visible(tmp_path)) == 3


def test_a_disk_that_fills_at_any_moment_leaves_what_was_finished(run, tmp_path, full, capsys):
    command = ("a red fox", "-n", 10, "--seed", 3, "-o", tmp_path / "fox.png", "--steps", 1)
    assert run(*command) == 0
    expected = {name: path.read_bytes() for name, path in visible(tmp_path).items()}
    for path in visible(tmp_path).values():
        path.unlink()
    with failing(tmp_path, 0, errno.ENOSPC, lasting=True) as faults:
        assert run(*command) == 0
    total = faults.count
    moments = range(1, total + 1) if full else random.Random(0).sample(range(1, total + 1), 5)  # noqa: S311 - as above
    for moment in moments:
        for path in visible(tmp_path).values():
            path.unlink()
        with failing(tmp_path, moment, errno.ENOSPC, lasting=True):
            code = run(*command)
        capsys.readouterr()
        assert code in {0, 4}
        left = {name: path.read_bytes() for name, path in visible(tmp_path).items()}
        assert left.items() <= expected.items()
        assert run(*command) == 0
        assert {name: path.read_bytes() for name, path in visible(tmp_path).items()} == expected


def test_everything_is_checked_before_the_first_call(run, tmp_path, capsys):
    (tmp_path / "fox-2.png").mkdir()
    (tmp_path / "sheet-cells").mkdir()
    (tmp_path / "sheet-cells" / "3.png").write_bytes(b"mine")
    (tmp_path / "file").touch()
    for arguments, words in {
        ("--grid", "steps=1,2,0"): "0 steps",
        ("--grid", "scheduler=ddim,DPM fast"): "no scheduler",
        ("--grid", "seed=1,2,18446744073709551616"): "seed",
        ("--grid", "guidance=1,nan"): "guidance",
        ("--grid", "steps=1,2,3", "-o", "sheet.png"): "3.png exists already",
        ("-n", "3", "-o", "fox.png"): "it is a folder",
        ("-n", "3", "-o", "file/fox.png"): "file",
        ("-n", "3", "-o", "x" * 300 + ".png"): "too long",
        ("-o", "-", "-n", "2"): "exclude each other",
        ("-o", "-", "--json"): "exclude each other",
        ("-o", "a.png", "--preview", "a.png"): "exclude each other",
        ("-o", "a.tiff"): "is not the name of a picture",
        ("--preview", "now.jpg"): "is not the name of a PNG file",
        ("--grid", "steps=1,,2"): "'steps=1,,2': steps '' cannot be used",
    }.items():
        assert run("a red fox", *arguments) in {2, 4}, arguments
        out, err = capsys.readouterr()
        assert words in err, arguments
        assert "UNet calls" not in err, arguments
        assert out == ""
    assert sorted(visible(tmp_path)) == ["file", "sheet-cells/3.png"]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".PNG"])
def test_a_picture_in_each_format_is_repeated_from_its_file(run, suffix):
    assert run("ein roter Fuchs 🦊", "--seed", 7, "-o", f"a{suffix}") == 0
    assert run("--from", f"a{suffix}", "-o", "b.png") == 0
    assert read_parameters(f"a{suffix}") == read_parameters("b.png")
    a, b = pixels(Path(f"a{suffix}")).astype(int), pixels(Path("b.png")).astype(int)
    assert np.abs(a - b).max() <= (40 if "j" in suffix else 0)  # noise is what JPEG is worst at
    assert run("a fox", "--no-metadata", "-o", f"c{suffix}") == 0
    with Image.open(f"c{suffix}") as image:
        assert dict(image.getexif()) == {}


def test_a_picture_goes_to_standard_output(tmp_path):
    program = (
        "import sys; from pathlib import Path; from nano_runtime.cli import generate;"
        f"sys.exit(generate.main({[*PICTURES[:1], *QUICK, '--seed', '7', '-o', '-']!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=tmp_path)
    (tmp_path / "a.png").write_bytes(done.stdout)
    assert read_parameters(tmp_path / "a.png").options.seed == 7
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
