"""A job that is killed goes on: each file once, whole, equal to what its row draws alone, nothing finished drawn again.

``--counts full`` kills 20 times among 5,000 pictures of the demo, which takes an hour; ``--log-cli-level info`` shows
figures.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.batch.toy import DEADLY, ENDLESS, ROOT, begin, lines, outcomes, toy_batch, toy_pipeline, write_rows

from nano_batch.job import Job
from nano_batch.locks import locked
from nano_runtime import Pipeline, open_picture, read_parameters

_log = logging.getLogger(__name__)

WORDS = ("red", "blue", "fox", "owl", "sea", "snow", "one", "two")


def rows_of(folder: Path, count: int, **options: object) -> Path:
    """Write rows that a few kinds of call draw, most of them alike."""
    special: list[dict[str, object]] = [
        {"guidance_scale": 1.0},
        {"negative_prompt": "blurry"},
        {"scheduler": "euler_a"},
    ]
    kinds = [{}, {}, {}, *special]
    return write_rows(
        folder / "rows.jsonl",
        [
            {"id": f"r{i}", "prompt": f"a {WORDS[i % 8]} {WORDS[i // 8 % 8]}", **kinds[i % len(kinds)], **options}
            for i in range(count)
        ],
    )


def files_of(out: Path) -> dict[Path, int]:
    """Return the pictures that are there under their names, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in (out / "images").rglob("*.png")}


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, from any of its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def pictures_in(out: Path) -> int:
    """Return how many pictures are there, at little cost: a job shares the processor with who watches it."""
    folders = [entry.path for entry in os.scandir(out / "images")] if (out / "images").exists() else []
    return sum(entry.name.endswith(".png") for folder in folders for entry in os.scandir(folder))


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def kill_at(process: subprocess.Popen[bytes], out: Path, count: int, seconds: float) -> int:
    """Kill a job some time after so many pictures are there; return the memory that it had, in bytes."""
    while process.poll() is None and pictures_in(out) < count:
        time.sleep(0.005 if count < 500 else 0.1)
    time.sleep(seconds)
    assert process.poll() is None
    resident = resident_bytes(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return resident


def check(out: Path, rows: Path, alone: Pipeline, count: int, sample: int) -> None:
    """Compare every file with its record, and some with what their rows draw alone."""
    records = lines(out / "metadata.jsonl")
    assert [one["id"] for one in records] == [f"r{i}" for i in range(count)]
    assert {out / one["file_name"] for one in records} == {*files_of(out)}
    assert [*out.rglob("*.part")] == []
    asked = lines(rows)
    for place in random.Random(0).sample(range(count), sample):  # noqa: S311 - of a test
        one, row = records[place], {**asked[place]}
        row.pop("id")
        drawn = alone(row.pop("prompt"), seed=one["seed"], **row)
        assert np.array_equal(np.asarray(open_picture(out / one["file_name"])), np.asarray(drawn.images[0])), one
        assert read_parameters(out / one["file_name"]).as_json() == drawn.parameters[0].as_json()


def test_kills_at_any_moment_cost_nothing_that_is_finished(formulas, tmp_path, full):
    count, kills = (5000, 20) if full else (100, 4)
    out, rows = tmp_path / "out", rows_of(tmp_path, count)
    words = rows, "-o", out, "--bundle", formulas.path, "--seed", 3
    chance = random.Random(2)  # noqa: S311 - of a test
    kept: dict[Path, int] = {}
    for number in range(kills):
        place = number * count // (kills + 1) + chance.randrange(5)
        kill_at(begin("tests.batch.toy", *words), out, place, chance.random() / 20)
        assert kept.items() <= files_of(out).items()
        kept = files_of(out)
        for path in kept if not full else ():
            with Image.open(path) as image:
                image.load()
    assert len(kept) > count / 3
    assert toy_batch(*words) == 0
    assert kept.items() <= files_of(out).items()
    check(out, rows, toy_pipeline(formulas.path), count, count if full else 40)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal_keep_what_is_finished_and_say_how_to_go_on(number, formulas, tmp_path):
    out, rows = tmp_path / "out", rows_of(tmp_path, 400)
    process = begin("tests.batch.toy", rows, "-o", out, "--bundle", formulas.path)
    while len(files_of(out)) < 5:
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate()[1].decode()
    assert process.returncode == 130
    assert "of 400 pictures finished; the same command draws the rest" in said
    assert "Traceback" not in said
    assert len(lines(out / "metadata.jsonl")) >= 4  # pictures that are not in the log yet are found by the next run
    job = Job.read(out)
    assert job is not None
    assert {one.ends for one in job.entries().values()} == {0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_native_code_that_does_not_end_is_ended(number, formulas, tmp_path):
    """The picture was not what ended the process: it is not feared by the next run."""
    out, prompts = tmp_path / "out", ["a fox", "an owl", "a cat", "a dog", ENDLESS]
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": prompt, "seed": 1} for prompt in prompts])
    process = begin("tests.batch.toy", rows, "-o", out, "--bundle", formulas.path)
    while len(files_of(out)) < 4:
        time.sleep(0.01)
    time.sleep(0.3)  # it computes
    process.send_signal(number)
    said = process.communicate(timeout=60)[1].decode()  # of hours
    assert (process.returncode, said.splitlines()[-1]) == (130, "nano-batch: interrupted")
    job = Job.read(out)
    assert job is not None
    assert {one.ends for one in job.entries().values()} == {0}
    assert len(job.finished(job.entries())) == 4


def test_two_processes_do_not_work_in_one_folder(formulas, tmp_path, capsys):
    out, rows = tmp_path / "out", rows_of(tmp_path, 2)
    words = rows, "-o", out, "--bundle", formulas.path, "--seed", 3
    with locked(out):
        assert toy_batch(*words) == 4
        assert "another process" in capsys.readouterr().err
        assert toy_batch(*words, "--shard", "0/2") == 4
    with locked(out, "shard-0-of-2"):
        assert toy_batch(*words, "--shard", "0/2") == 4
        assert toy_batch(*words) == 4
        assert toy_batch(*words, "--shard", "1/2") == 0
    assert toy_batch(*words) == 0


def test_a_row_that_ends_the_process_does_so_once(formulas, tmp_path, capsys):
    prompts = ["a fox", DEADLY, "sea", "one owl", "blue snow"]
    out, rows = tmp_path / "out", write_rows(tmp_path / "rows.jsonl", [{"id": one, "prompt": one} for one in prompts])
    words = rows, "-o", out, "--bundle", formulas.path, "--seed", 3
    process = begin("tests.batch.toy", *words)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for tries in (2, 3):  # it was drawn once with others, and once more each time in a process of its own
        assert toy_batch(*words) == 6
        assert "nano-batch: warning: a process came to a sudden end while it drew" in capsys.readouterr().err
        assert [one["id"] for one in lines(out / "metadata.jsonl")] == [one for one in prompts if one != DEADLY]
        (error,) = lines(out / "errors.jsonl")
        assert (error["id"], error["tries"]) == (DEADLY, tries)
        assert "SIGKILL" in error["error"]


def test_what_two_processes_did_not_survive_is_passed_over_once(formulas, tmp_path):
    out, rows = tmp_path / "out", write_rows(tmp_path / "rows.jsonl", [{"prompt": one} for one in ("a fox", "sea")])
    words = rows, "-o", out, "--bundle", formulas.path, "--seed", 3
    assert toy_batch(*words) == 0
    keys = [one["key"] for one in lines(out / "metadata.jsonl")]
    (out / "log/local.jsonl").write_text("".join(json.dumps({"begun": keys[:many]}) + "\n" for many in (2, 1)))
    shutil.rmtree(out / "images")
    assert toy_batch(*words) == 6
    (error,) = lines(out / "errors.jsonl")
    assert (error["key"], error["tries"]) == (keys[0], 2)
    assert "sudden end" in error["error"]
    assert [one["key"] for one in lines(out / "metadata.jsonl")] == keys[1:]
    assert toy_batch(*words) == 0
    assert [one["key"] for one in lines(out / "metadata.jsonl")] == keys


@pytest.mark.slow
def test_memory_stays_flat_over_five_thousand_rows(formulas, tmp_path):
    peaks = []
    for count in (1000, 5000):
        rows = rows_of(tmp_path, count)
        words = [rows, "-o", tmp_path / str(count), "--bundle", formulas.path, "--json"]
        command = [sys.executable, "-m", "tests.batch.toy", *words]
        process = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        peaks.append(json.loads(process.stdout)["peak_rss_bytes"])
    assert peaks[1] - peaks[0] < 40e6, peaks  # bytes: lists of 4,000 more rows, and nothing else


@pytest.mark.slow
def test_an_engine_that_is_killed_costs_no_picture(tmp_path):
    out, rows = tmp_path / "out", rows_of(tmp_path, 12, num_inference_steps=4)
    process = begin("nano_batch.cli", rows, "-o", out, "--seed", 3, "--threads", 1, "--no-cache", "--isolate")
    for number in (0, 5):
        while len(files_of(out)) < number or not (children := children_of(process.pid)):
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(children[0], signal.SIGKILL)
    said = process.communicate()[1].decode()
    assert process.returncode == 0, said
    check(out, rows, Pipeline.from_pretrained(threads=1), 12, 4)


@pytest.mark.slow
def test_twenty_kills_among_pictures_of_the_demo(full, tmp_path):
    count, kills = (5000, 20) if full else (60, 3)
    out, rows = tmp_path / "out", rows_of(tmp_path, count, num_inference_steps=3)
    words = rows, "-o", out, "--seed", 3, "--threads", 1, "--no-cache"
    chance, kept = random.Random(1), dict[Path, int]()  # noqa: S311 - of a test
    for number in sorted(chance.sample(range(count - 20), kills)):
        resident = kill_at(begin("nano_batch.cli", *words), out, number, chance.random() / 2)
        assert kept.items() <= files_of(out).items()
        kept = files_of(out)
        _log.info("killed at %d pictures, with %d MB", len(kept), resident / 1e6)
    command = [sys.executable, "-m", "nano_batch.cli", *map(str, words)]
    last = subprocess.run([*command, "--json"], cwd=ROOT, check=True, capture_output=True)
    _log.info("the last run had %d MB at most", json.loads(last.stdout)["peak_rss_bytes"] / 1e6)
    assert kept.items() <= files_of(out).items()
    finished = [record for record in outcomes(out) if record["done"]]
    drawn = Counter(record["key"] for record in finished if record["seconds"] is not None)
    assert {*drawn.values()} == {1}
    _log.info("%d drawn and logged, %d found without a log", len(drawn), len(finished) - len(drawn))
    began = time.monotonic()
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    _log.info("once more: %.2f s", time.monotonic() - began)
    assert len(again.stdout.splitlines()) == count
    check(out, rows, Pipeline.from_pretrained(threads=1), count, count if full else 20)
