"""Jobs of a few rows with formulas for an engine: what is drawn, what is not drawn again, and what the lists say."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.batch.toy import UNDRAWABLE, lines, outcomes, toy_batch, toy_pipeline, write_rows

from nano_batch.draw import Draw
from nano_batch.progress import Progress
from nano_runtime import DrawOptions, open_picture, read_parameters, read_rows

ROWS: list[dict[str, Any]] = [
    {"prompt": "a red fox", "seed": 7},
    {"prompt": "a blue owl", "id": "owl", "negative_prompt": "blurry", "n": 3},
    {"prompt": "sea", "guidance_scale": 1.0},
    {"prompt": "snow", "scheduler": "euler_a", "num_inference_steps": 5, "seed": 2**64 - 1},
    {"prompt": "one fox", "scheduler": "pndm", "quality": "fast"},
    {"prompt": "two owl", "negative_prompt": "sea", "label": "bird"},
    {"prompt": "a fox", "variation_strength": 0.3, "n": 2, "seed": 5},
    {"prompt": "a fox", "variation_strength": 0.3, "variation_seed": 9, "seed": 5},
    {"prompt": "red sea", "image": "start.png", "strength": 0.5, "seed": 3},
    {"prompt": "red sea", "image": "start.png", "mask_image": "mask.png", "n": 2},
    {"prompt": "a red fox", "seed": 7, "label": "again"},
    {"prompt": "a ((blue)) fox", "prompt_weighting": True},
    {"prompt": "blue snow"},
]


@pytest.fixture
def rows(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "start.png")
    Image.fromarray((noise[..., 0] > 128).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    return write_rows(tmp_path / "rows.jsonl", [{"id": str(i), **row} for i, row in enumerate(ROWS)])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def batch(rows, out, formulas, *more):
    return toy_batch(rows, "-o", out, "--bundle", formulas.path, *more)


def pictures(out):
    """Return the contents of all files below images/, by name."""
    return {path.name: path.read_bytes() for path in (out / "images").rglob("*") if path.is_file()}


def test_each_picture_is_what_its_row_draws_alone(rows, out, formulas):
    assert batch(rows, out, formulas) == 0
    records = lines(out / "metadata.jsonl")
    listed = read_rows(rows, DrawOptions(keep_unmasked=True, mask_blur=4.0))  # as nano-generate draws with a mask
    assert [(one["id"], one["i"]) for one in records] == [
        (row.id, i) for row in listed for i in range(row.options.num_images_per_prompt)
    ]
    alone = toy_pipeline(formulas.path)
    for row in listed:
        own = [one for one in records if one["id"] == row.id]
        options = replace(
            row.options,
            seed=own[0]["seed"],
            variation_seed=own[0]["variation_seed"],
            image=None if row.image is None else open_picture(row.image),
            mask_image=None if row.mask_image is None else open_picture(row.mask_image),
        )
        drawn = alone(options)
        for one, image, parameters in zip(own, drawn.images, drawn.parameters, strict=True):
            assert np.array_equal(np.asarray(open_picture(out / one["file_name"])), np.asarray(image)), one
            assert read_parameters(out / one["file_name"]).as_json() == parameters.as_json()
    assert (
        len({one["file_name"] for one in records}) == len(records) - 1 == len(pictures(out))
    )  # one row is there twice


def test_columns_are_the_same_for_all_and_the_rows_own_come_last(rows, out, formulas):
    batch(rows, out, formulas)
    records = lines(out / "metadata.jsonl")
    assert len({tuple(one) for one in records}) == 1
    assert [one["label"] for one in records if one["id"] in {"5", "10", "12"}] == ["bird", "again", None]
    first = records[0]
    assert (first["text"], first["seed"], first["backend"]) == ("a red fox", 7, "onnxruntime")
    assert (first["negative_prompt"], first["num_inference_steps"]) == ("", 4)


def test_columns_that_change_no_picture_are_told(rows, out, formulas, tmp_path, capsys):
    told = "columns that change no picture: 'label'\n"
    for more in (("--dry-run",), ()):
        assert batch(rows, out, formulas, *more) == 0
        assert told in capsys.readouterr().err
    many = write_rows(tmp_path / "many.jsonl", [{"prompt": "sea", **{f"own{i}": i for i in range(12)}}])
    assert batch(many, tmp_path / "b", formulas) == 0
    assert "picture: 'own0', " in (err := capsys.readouterr().err)
    assert "'own9' and 2 more\n" in err


def test_a_second_run_changes_nothing(rows, out, formulas, capsys):
    assert batch(rows, out, formulas) == 0
    shown = capsys.readouterr().out.split()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()}
    assert batch(rows, out, formulas) == 0
    said = capsys.readouterr()
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()} == before
    assert {*said.out.split()} == {*shown}
    assert "drawn" not in said.err


def test_the_place_of_a_row_decides_nothing(rows, out, formulas, tmp_path):
    batch(rows, out, formulas, "--seed", "4")
    turned = [
        {"id": "new", "prompt": "a sea"},
        *({"id": str(i), **row} for i, row in [*enumerate(ROWS)][::-1]),
    ]
    batch(write_rows(tmp_path / "turned.jsonl", turned), tmp_path / "other", formulas, "--seed", "4")
    one, other = pictures(out), pictures(tmp_path / "other")
    assert {name: other[name] for name in one} == one
    assert len(other) == len(one) + 1


def test_equal_rows_without_ids_are_different_pictures_wherever_they_stand(out, formulas, tmp_path):
    (tmp_path / "a.txt").write_text("a fox\na fox\nsea\n")
    (tmp_path / "b.txt").write_text("sea\na fox\nsea\na fox\n")
    assert batch(tmp_path / "a.txt", out, formulas, "--seed", "4") == 0
    assert batch(tmp_path / "b.txt", tmp_path / "b", formulas, "--seed", "4") == 0
    assert len(pictures(out)) == 3
    assert pictures(out).items() < pictures(tmp_path / "b").items()


def test_a_zero_with_a_sign_names_no_picture_otherwise(out, formulas, tmp_path):
    rows = [{"id": "a", "prompt": "a fox", "guidance": -0.0}, {"id": "b", "prompt": "a fox", "guidance": 0.0}]
    for order, folder in ((rows, out), (rows[::-1], tmp_path / "b")):
        assert batch(write_rows(tmp_path / "rows.jsonl", order), folder, formulas, "--seed", "4") == 0
    assert pictures(out) == pictures(tmp_path / "b")


def test_a_row_with_a_seed_or_an_id_of_its_own_changes_no_seed_of_an_equal_one_behind_it(out, formulas, tmp_path):
    plain = {"prompt": "a fox"}
    rows = write_rows(tmp_path / "rows.jsonl", [plain, plain])
    assert batch(rows, out, formulas, "--seed", "4") == 0
    write_rows(rows, [{**plain, "seed": 7}, plain, {**plain, "id": "x"}, plain])
    assert batch(rows, tmp_path / "b", formulas, "--seed", "4") == 0
    assert pictures(out).items() < pictures(tmp_path / "b").items()
    assert len(pictures(tmp_path / "b")) == 4


def test_a_job_may_grow_and_keeps_its_random_seed(out, formulas, tmp_path):
    (tmp_path / "list.txt").write_text("a fox\nsea\n")
    batch(tmp_path / "list.txt", out, formulas)
    before = pictures(out)
    (tmp_path / "list.txt").write_text("a fox\nsnow\nsea\n")
    assert batch(tmp_path / "list.txt", out, formulas) == 0
    assert before.items() < pictures(out).items()
    assert [one["text"] for one in lines(out / "metadata.jsonl")] == ["a fox", "snow", "sea"]


def test_a_row_that_cannot_be_drawn_takes_no_other_with_it(out, formulas, tmp_path, capsys):
    prompts = ["a fox", UNDRAWABLE, "sea", "snow", "one owl"]
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    rows = [{"id": prompt, "prompt": prompt} for prompt in prompts]
    rows.insert(2, {"id": "picture", "prompt": "sea", "image": "bad.png"})
    write_rows(tmp_path / "rows.jsonl", rows)
    assert batch(tmp_path / "rows.jsonl", out, formulas) == 6
    assert [one["id"] for one in lines(out / "metadata.jsonl")] == ["a fox", "sea", "snow", "one owl"]
    undrawable, picture = lines(out / "errors.jsonl")
    assert (undrawable["row"], undrawable["id"], undrawable["tries"]) == (2, UNDRAWABLE, 1)
    assert "last_hidden_state" in undrawable["error"]
    assert picture["id"] == "picture"
    assert picture["hint"]
    assert "2 failed" in capsys.readouterr().err
    assert batch(tmp_path / "rows.jsonl", out, formulas) == 6
    assert [one["tries"] for one in lines(out / "errors.jsonl")] == [2, 2]
    Image.new("RGB", (32, 32), "red").save(tmp_path / "bad.png")
    write_rows(tmp_path / "rows.jsonl", [row for row in rows if row["prompt"] != UNDRAWABLE])
    assert batch(tmp_path / "rows.jsonl", out, formulas) == 0
    assert not (out / "errors.jsonl").exists()
    assert len(lines(out / "metadata.jsonl")) == 5


def test_names_are_made_of_a_pattern(out, formulas, tmp_path):
    rows = write_rows(
        tmp_path / "rows.jsonl", [{"id": "a?b: c", "prompt": "sea", "n": 2}, {"id": "nul", "prompt": "fox"}]
    )
    assert batch(rows, out, formulas, "--name", "{id}-{i}") == 0
    assert {*pictures(out)} == {"a_b_ c-0.png", "a_b_ c-1.png", "nul-0.png"}
    assert batch(rows, tmp_path / "b", formulas, "--name", "set/{id}/{seed}.png") == 0
    assert {path.relative_to(tmp_path / "b/images").parts[:2] for path in (tmp_path / "b/images").rglob("*.png")} == {
        ("set", "a_b_ c"),
        ("set", "_nul"),
    }


def test_one_picture_under_two_names_is_drawn_once_and_written_twice(out, formulas, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": name, "prompt": "sea", "seed": 1} for name in "abc"[:2]])
    batch(rows, out, formulas, "--name", "{id}")
    assert {*pictures(out)} == {"a.png", "b.png"}
    assert len({*pictures(out).values()}) == 1
    assert len(outcomes(out)) == 1
    changed = out.joinpath("images/a.png").stat().st_mtime_ns
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": name, "prompt": "sea", "seed": 1} for name in "abc"])
    assert batch(rows, out, formulas, "--name", "{id}") == 0
    assert {*pictures(out)} == {"a.png", "b.png", "c.png"}
    assert out.joinpath("images/a.png").stat().st_mtime_ns == changed
    assert [one["seconds"] for one in outcomes(out)][1] is None


def test_places_in_names_are_told(out, formulas, tmp_path, capsys):
    (tmp_path / "rows.txt").write_text("a fox\nsea\n")
    assert batch(tmp_path / "rows.txt", out, formulas, "--name", "{id}-{{id}}") == 0
    assert {*pictures(out)} == {"0-{id}.png", "1-{id}.png"}
    assert "nano-batch: warning: rows without an id are called by their place" in capsys.readouterr().err
    named = write_rows(tmp_path / "rows.jsonl", [{"id": "a", "prompt": "sea"}])
    for rows, pattern in ((named, "{id}"), (tmp_path / "rows.txt", "{{id}}{key}")):
        assert batch(rows, out / pattern, formulas, "--name", pattern) == 0
        assert "warning" not in capsys.readouterr().err


def test_own_columns_of_several_kinds_are_text(out, formulas, tmp_path, capsys):
    own: list[dict[str, Any]] = [
        {"mixed": 1, "number": 1, "list": [1], "object": {"a": 1}, "odd": [1, "a"], "deep": {"a": [{"b": 1}]}},
        {"mixed": "1", "number": 1.5, "list": [], "object": {"b": "c"}, "odd": [2], "deep": {"a": [{"b": True}]}},
        {"mixed": None, "number": None, "list": [None, 2.5], "object": {"a": None}, "odd": None, "deep": None},
    ]
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a fox", **one} for one in own])
    assert batch(rows, out, formulas) == 0
    found = [{name: record[name] for name in own[0]} for record in lines(out / "metadata.jsonl")]
    texts: list[dict[str, Any]] = [
        {"mixed": "1", "odd": '[1, "a"]', "deep": '{"a": [{"b": 1}]}'},
        {"mixed": "1", "odd": "[2]", "deep": '{"a": [{"b": true}]}'},
        {},
    ]
    assert found == [{**one, **text} for one, text in zip(own, texts, strict=True)]
    said = "warning: columns with values of several kinds are texts in metadata.jsonl: mixed, odd, deep"
    assert said in capsys.readouterr().err


def test_the_pace_is_that_of_pictures_after_the_first_ones(monkeypatch):
    now, said = [100.0], list[str]()
    monkeypatch.setattr("nano_batch.progress.time.monotonic", lambda: now[0])
    progress = Progress(41, 1, said.append)
    for seconds, drawn, failed in ((60, 4, 0), (10, 2, 0), (5, 3, 1), (35, 14, 0)):
        now[0] += seconds
        progress.add(drawn, failed)
    assert said == [
        "5 of 41 pictures",  # after a minute in which the engine was loaded, nobody knows
        "25 of 41 pictures, 24 a minute, 0:00:40 left; 1 failed",
    ]


def test_all_that_is_said_counts_what_rows_ask_for(rows, out, formulas, monkeypatch, capsys):
    """A picture that two rows ask for is drawn once; lists, progress and the last line have it twice."""
    told = list[Progress]()

    class Heard(Progress):
        def end(self):
            super().end()
            told.append(self)

    def gone(_path):
        raise BrokenPipeError

    monkeypatch.setattr("nano_batch.running.Progress", Heard)
    with monkeypatch.context() as patched:
        patched.setattr("nano_batch.cli._show", gone)
        assert batch(rows, out, formulas) == 141
    err = capsys.readouterr().err
    finished = int(err.partition(" of 17 pictures finished")[0].split()[-1])
    assert finished == len(lines(out / "metadata.jsonl")) > 1
    assert batch(rows, out, formulas) == 0
    assert told[-1].line().startswith("17 of 17 pictures")


@pytest.mark.parametrize("away", ["deleted", "moved"])
def test_a_folder_that_is_taken_away_meanwhile_ends_the_job_and_is_not_made_again(
    away, rows, out, *, formulas, tmp_path, monkeypatch, capsys
):
    real = Draw.draw

    def harmed(self, pictures):
        if "metadata" in harm:
            shutil.rmtree(out) if away == "deleted" else out.rename(tmp_path / "elsewhere")
        found = real(self, pictures)
        harm.append("metadata")
        return found

    harm = list[str]()
    monkeypatch.setattr(Draw, "draw", harmed)
    assert batch(rows, out, formulas) == 4
    said = capsys.readouterr().err
    assert "was moved or deleted meanwhile" in said
    assert "pictures finished" not in said
    assert not out.exists()
    monkeypatch.undo()
    if away == "moved":
        assert batch(rows, tmp_path / "elsewhere", formulas) == 0
        assert len(lines(tmp_path / "elsewhere/metadata.jsonl")) == 17


@pytest.mark.parametrize("harm", ["cut", "replaced", "gone", "torn log", "no log"])
def test_only_what_is_harmed_is_drawn_again(harm, rows, out, formulas):
    batch(rows, out, formulas)
    before, listed = pictures(out), (out / "metadata.jsonl").read_bytes()
    victim = next(iter(sorted((out / "images").rglob("*.png"))))
    log = out / "log" / "local.jsonl"
    drawn = len(outcomes(out))
    if harm == "cut":
        victim.write_bytes(victim.read_bytes()[:-20])
    elif harm == "replaced":
        victim.write_bytes(sorted((out / "images").rglob("*.png"))[1].read_bytes())
    elif harm == "gone":
        victim.unlink()
    elif harm == "torn log":
        log.write_bytes(log.read_bytes()[:-30])
    else:
        log.unlink()
    assert batch(rows, out, formulas) == 0
    assert pictures(out) == before
    before_that = {"cut": drawn, "replaced": drawn, "gone": drawn, "torn log": drawn - 1, "no log": 0}[harm]
    redrawn = [one for one in outcomes(out)[before_that:] if one["seconds"] is not None]
    assert len(redrawn) == (harm in {"cut", "replaced", "gone"})
    if harm != "no log":
        by = [{**json.loads(line), "engine_version": 0, "instruction_sets": 0} for line in listed.splitlines()]
        now = [{**one, "engine_version": 0, "instruction_sets": 0} for one in lines(out / "metadata.jsonl")]
        assert now == by


def test_json_says_all_in_one_document(rows, out, formulas, capsys):
    batch(rows, out, formulas, "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["asked"], said["finished"], said["drawn"], said["failed"]) == (17, 17, 16, 0)
    assert said["drawn_by"]["backend"] == "onnxruntime"


def test_a_dry_run_writes_nothing(rows, out, formulas, capsys):
    assert batch(rows, out, formulas, "--dry-run") == 0
    assert "17 pictures" in capsys.readouterr().err
    assert not out.exists()


def test_a_finished_job_is_written_in_the_forms_that_are_asked_for(out, formulas, tmp_path, capsys):
    rows = [{"id": f"r{i}", "prompt": "a fox", "n": 2, "tag": "counting", "key": i} for i in range(2)]
    rows.append({"id": "bad", "prompt": UNDRAWABLE})
    words = write_rows(tmp_path / "rows.jsonl", rows), out, formulas, "--format", "webdataset", "--layout", "geneval"
    assert batch(*words, "--seed", "1", "--json") == 6
    assert [Path(one).name for one in json.loads(capsys.readouterr().out)["datasets"]] == ["webdataset", "geneval"]
    with tarfile.open(out / "webdataset" / "00000.tar") as archive:
        assert len(archive.getnames()) == 3 * 4
    assert json.loads((out / "geneval/00001/metadata.jsonl").read_text()) == {
        "tag": "counting",
        "key": 1,
        "prompt": "a fox",
    }
    assert len([*out.glob("geneval/*/samples/*.png")]) == 4
    assert [one["row_key"] for one in lines(out / "metadata.jsonl")] == [0, 0, 1, 1]
    assert toy_batch(
        words[0], "-o", tmp_path / "part", "--bundle", formulas.path, "--seed=1", "--shard=0/2", *words[3:]
    ) in {0, 6}
    assert not (tmp_path / "part/geneval").exists()
