"""``nano-generate --prompts``: each row is the picture that it is alone, written once it is finished, found again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.runtime.fakes import IMAGE, FakeGraphs, pipeline_of
from tests.runtime.test_kept_pictures import interrupted_after

from nano_runtime.cli import generate
from nano_runtime.pictures.png import read_parameters
from nano_runtime.pictures.source import open_picture
from nano_runtime.pipeline import Pipeline

ROWS = """\
{"id": "fox", "prompt": "a red fox", "n": 2}
{"id": "owl", "prompt": "a blue owl", "seed": 7, "guidance_scale": 2, "sampler": "euler"}
{"id": "sea", "prompt": "blue sea", "negative_prompt": "snow"}
{"id": "snow", "prompt": "snow", "image": "start.png", "mask": "mask.png", "strength": 0.5}
{"id": "sibling", "prompt": "a red fox", "variation_strength": 0.2, "n": 2}
{"id": "two", "prompt": "two foxes", "seed": 18446744073709551615, "guidance_scale": 2, "scheduler": "euler"}
"""
SEEDS = (100, 101, 7, 103, 104, 105, 105, 2**64 - 1)
"""Of the command's pictures with ``--seed 100``, by the row or by the place; siblings have one."""


@pytest.fixture
def graphs(hoisted) -> FakeGraphs:
    return FakeGraphs(hoisted)


@pytest.fixture
def run(graphs, tmp_path, monkeypatch):
    """The command in a folder with a list and its pictures."""

    def from_pretrained(*_engine, **options) -> Pipeline:
        return pipeline_of(graphs, keep_loaded=options["keep_loaded"], low_memory=options["low_memory"])

    monkeypatch.setattr(Pipeline, "from_pretrained", from_pretrained)
    folder = tmp_path / "lists"
    (folder / "out").mkdir(parents=True)
    (folder / "rows.jsonl").write_text(ROWS, encoding="utf-8")
    values = np.random.default_rng(1).integers(0, 256, (IMAGE, IMAGE, 3), np.uint8)
    Image.fromarray(values).save(folder / "start.png")
    half = np.where(np.arange(IMAGE) < IMAGE // 2, 0, 255).astype(np.uint8)
    Image.fromarray(np.repeat(half[np.newaxis], IMAGE, axis=0)).save(folder / "mask.png")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: generate.main(["--prompts", "lists/rows.jsonl", *map(str, arguments), "--no-cache"])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def alone(graphs: FakeGraphs, **options) -> np.ndarray:
    return np.asarray(pipeline_of(FakeGraphs(graphs.bundle))(**options).images[0])


def test_each_row_is_the_picture_that_it_is_alone_and_its_file_says_so(run, graphs, capsys):
    assert run("-o", "lists/out/x.png", "--seed", 100, "--steps", 3, "--json") == 0
    told = json.loads(capsys.readouterr().out)["images"]
    assert [one["row"] for one in told] == ["fox", "fox", "owl", "sea", "snow", "sibling", "sibling", "two"]
    assert tuple(one["seed"] for one in told) == SEEDS
    edit = {"image": open_picture(Path("lists/start.png")), "mask_image": open_picture(Path("lists/mask.png"))}
    expected: list[dict[str, Any]] = [
        {"prompt": "a red fox"},
        {"prompt": "a red fox"},
        {"prompt": "a blue owl", "guidance_scale": 2, "scheduler": "euler"},
        {"prompt": "blue sea", "negative_prompt": "snow"},
        {"prompt": "snow", "strength": 0.5, "keep_unmasked": True, "mask_blur": 4, **edit},  # as --mask
        {"prompt": "a red fox", "variation_strength": 0.2, "variation_seed": 113},  # behind those of the list
        {"prompt": "a red fox", "variation_strength": 0.2, "variation_seed": 114},
        {"prompt": "two foxes", "guidance_scale": 2, "scheduler": "euler"},
    ]
    for number, (options, seed) in enumerate(zip(expected, SEEDS, strict=True), 1):
        path = Path(f"lists/out/x-{number}.png")
        drawn = alone(graphs, **options, seed=seed, num_inference_steps=3)
        np.testing.assert_array_equal(pixels(path), drawn, err_msg=options["prompt"])
        parameters = read_parameters(path).options
        assert (parameters.prompt, parameters.seed, parameters.num_inference_steps) == (options["prompt"], seed, 3)
    pictures = [len(run.feeds["sample"]) // 2 for run in graphs.ran("unet")]  # both ways of guidance
    assert pictures == [3] * 3 + [2] * 3 + [1] + [2] * 3  # fox and sea, owl and two, snow, sibling


def test_the_same_command_draws_what_is_missing(run, graphs, capsys):
    assert run("-o", "lists/out") == 0
    first = {path.name: path.read_bytes() for path in Path("lists/out").iterdir()}
    seed = capsys.readouterr().err.partition(", seed ")[2].split()[0].strip(";,")
    Path(f"lists/out/nano-{int(seed) + 3}.png").unlink()
    graphs.runs.clear()
    assert run("-o", "lists/out", "--seed", seed) == 0
    assert "7 of 8 pictures are there already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path("lists/out").iterdir()} == first
    assert {len(run.feeds["sample"]) // 2 for run in graphs.ran("unet")} == {1}


def test_an_ended_list_goes_on_with_its_random_seeds(run, monkeypatch, capsys):
    with interrupted_after(1, monkeypatch):
        assert run("-o", "lists/out/x.png") == 130
    assert "3 of 8 pictures are finished; the same command (without --force) draws the rest" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in Path("lists/out").iterdir()}
    assert run("-o", "lists/out/x.png", "--json") == 0
    seeds = [one["seed"] for one in json.loads(capsys.readouterr().out)["images"]]
    first = seeds[0]
    assert seeds == [first, first + 1, 7, first + 3, first + 4, first + 5, first + 5, 2**64 - 1]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert run("-o", "lists/out/x.png") == 0
    assert "nothing was left to draw" in capsys.readouterr().err


def test_rows_that_this_bundle_cannot_draw_are_told_before_anything_runs(run, graphs, capsys):
    rows = Path("lists/rows.jsonl")
    bad = ({"prompt": "a fox", "steps": 5000}, {"prompt": "a fox", "width": 64}, {"prompt": "fox"})
    rows.write_text("\n".join(map(json.dumps, bad)), encoding="utf-8")
    assert run("-o", "lists/out") == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "nano-generate: lists/rows.jsonl has 2 faults"
    assert [line.partition(":")[0] for line in told[1:3]] == ["line 1", "line 2"]
    rows.write_text(json.dumps({"prompt": "fox " * 200, "long_prompt": True}), encoding="utf-8")
    assert run("-o", "lists/out") == 2
    assert "line 1: the prompt cannot be used: it fills" in capsys.readouterr().err
    assert (list(Path("lists/out").iterdir()), graphs.runs) == ([], [])


@pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux alone")
def test_the_child_reaches_the_pictures_of_rows(tmp_path):
    """The command draws in a child, which has no other files of the user than these."""
    for name in ("lists", "elsewhere", "out"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (128, 128), "teal").save(tmp_path / "elsewhere" / "start.png")
    row = {"prompt": "an otter on a teal background", "image": "../elsewhere/start.png", "strength": 1, "n": 2}
    (tmp_path / "lists" / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    command = "import sys; from nano_runtime.commands import generate; sys.exit(generate())"
    options = (
        "-o",
        "out/x.png",
        "--steps",
        "1",
        "--scheduler",
        "ddim",
        "--guidance",
        "1",
        "--threads",
        "1",
        "--no-cache",
    )
    listed = [sys.executable, "-c", command, "--prompts", "lists/rows.jsonl", *options]
    done = subprocess.run(listed, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "out/x-1.png\nout/x-2.png\n"), done.stderr


@pytest.mark.parametrize(
    "others",
    [["a fox"], ["--from", "x.png"], ["--grid", "steps=1,2"], ["-o", "-"], ["--count-tokens"]],
    ids=lambda others: others[0],
)
def test_what_a_list_excludes_is_refused(run, others, capsys):
    assert run(*others) == 2
    assert "--prompts and" in capsys.readouterr().err


def test_a_prompt_under_another_programs_name_is_no_list(capsys):
    assert generate.main(["--prompt", "lists/rows.jsonl"]) == 2
    assert "there is no option --prompt\nDid you mean PROMPT?" in capsys.readouterr().err
