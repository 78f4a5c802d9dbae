"""Shards: every picture in one of them, wherever rows stand; what schedulers say; and one folder of several."""

from __future__ import annotations

import json
import shutil

import pytest
from tests.batch.toy import begin, lines, toy_batch, write_rows

from nano_batch.errors import ShardError
from nano_batch.shards import Shard


@pytest.fixture
def rows(tmp_path):
    listed = [{"id": f"r{i}", "prompt": f"a {('fox', 'owl', 'sea')[i % 3]}", "label": i} for i in range(23)]
    return write_rows(tmp_path / "rows.jsonl", listed)


def contents(out):
    return {path.relative_to(out): path.read_bytes() for path in (out / "images").rglob("*.png")}


def test_each_picture_is_in_one_shard_wherever_its_row_stands(rows, formulas, tmp_path):
    words = "--bundle", formulas.path, "--seed", 3
    assert toy_batch(rows, "-o", tmp_path / "whole", *words) == 0
    parts = [tmp_path / f"part{i}" for i in range(3)]
    for i, part in enumerate(parts):
        assert toy_batch(rows, "-o", part, *words, "--shard", f"{i}/3") == 0
    found = [contents(part) for part in parts]
    assert sum(map(len, found)) == 23
    assert all(3 <= len(one) <= 13 for one in found)
    assert {**found[0], **found[1], **found[2]} == contents(tmp_path / "whole")
    turned = write_rows(tmp_path / "turned.jsonl", [*lines(rows)[::-1], {"id": "new", "prompt": "snow"}])
    assert toy_batch(turned, "-o", tmp_path / "more", *words, "--shard", "1/3") == 0
    assert found[1].items() <= contents(tmp_path / "more").items()


def test_folders_of_shards_merge_into_what_one_process_draws(rows, formulas, tmp_path, capsys):
    words = "--bundle", formulas.path, "--seed", 3
    toy_batch(rows, "-o", tmp_path / "whole", *words)
    parts = [tmp_path / f"part{i}" for i in range(3)]
    for i, part in enumerate(parts[:2]):
        toy_batch(rows, "-o", part, *words, "--shard", f"{i}/3")
    capsys.readouterr()
    assert toy_batch("merge", *parts[:2], "-o", tmp_path / "all") == 0
    assert 0 < len(lines(tmp_path / "all" / "metadata.jsonl")) < 23
    toy_batch(rows, "-o", parts[2], *words, "--shard", "2/3")
    assert toy_batch("merge", *parts, "-o", tmp_path / "all", "--json") == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.index("{") :])["asked"] == 23
    assert contents(tmp_path / "all") == contents(tmp_path / "whole")
    assert (tmp_path / "all/metadata.jsonl").read_bytes() == (tmp_path / "whole/metadata.jsonl").read_bytes()
    assert toy_batch(rows, "-o", tmp_path / "all", *words) == 0
    assert "drawn" not in capsys.readouterr().err


def test_shards_of_one_folder_write_its_lists_together(rows, formulas, tmp_path):
    words = "--bundle", formulas.path, "--seed", 3
    toy_batch(rows, "-o", tmp_path / "whole", *words)
    for i in range(3):
        assert toy_batch(rows, "-o", tmp_path / "out", *words, "--shard", f"{i}/3") == 0
    whole = (tmp_path / "whole/metadata.jsonl").read_bytes()
    assert (tmp_path / "out/metadata.jsonl").read_bytes() == whole
    (tmp_path / "out/metadata.jsonl").unlink()
    assert toy_batch("merge", tmp_path / "out") == 0
    assert (tmp_path / "out/metadata.jsonl").read_bytes() == whole
    assert {path.name for path in (tmp_path / "out/log").glob("*.jsonl")} == {f"shard-{i}-of-3.jsonl" for i in range(3)}


def test_shards_that_begin_at_the_same_moment_make_one_job(rows, formulas, tmp_path):
    words = "--bundle", formulas.path, "--seed", 3
    toy_batch(rows, "-o", tmp_path / "whole", *words)
    shards = [begin("tests.batch.toy", rows, "-o", tmp_path / "out", *words, "--shard", f"{i}/2") for i in range(2)]
    for shard in shards:
        said = shard.communicate()[1].decode()
        assert shard.returncode == 0, said
    for name in ("metadata.jsonl", "pictures.jsonl", "job.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_parts_that_overlap_merge_into_whole_pictures(rows, formulas, tmp_path, capsys):
    words = "--bundle", formulas.path, "--seed", 3
    parts = tmp_path / "a", tmp_path / "b"
    toy_batch(rows, "-o", parts[0], *words, "--shard", "0/2")
    toy_batch(rows, "-o", parts[1], *words, "--backend", "openvino")  # its files say so: they are other bytes
    for merged in (parts, parts[::-1]):
        into = tmp_path / f"into {merged[0].name}"
        assert toy_batch("merge", *merged, "-o", into) == 0
        assert len(lines(into / "metadata.jsonl")) == 23
        capsys.readouterr()
        assert toy_batch(rows, "-o", into, *words) == 0
        assert "drawn" not in capsys.readouterr().err


def test_a_merge_that_lacks_pictures_says_how_many(rows, formulas, tmp_path, capsys):
    words = rows, "-o", tmp_path / "a", "--bundle", formulas.path, "--seed", 3, "--shard", "0/3"
    toy_batch(*words, "--dry-run")
    asked = int(capsys.readouterr().err.splitlines()[-1].split()[0])
    toy_batch(*words)
    assert toy_batch("merge", tmp_path / "a") == 0
    assert len(contents(tmp_path / "a")) == asked < 23
    assert f"{23 - asked} not drawn yet" in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["gone", "torn", '{"record": {"key": [1]}}\n', '{"record": 1}\n', "[" * 5000, "\0\n"])
def test_a_damaged_list_of_pictures_loses_no_row_in_a_merge(harm, rows, formulas, tmp_path, capsys):
    part, words = tmp_path / "part", (rows, "-o", tmp_path / "part", "--bundle", formulas.path, "--seed", 3)
    toy_batch(*words)
    listed = part / "pictures.jsonl"
    whole = listed.read_bytes()
    if harm == "gone":
        listed.unlink()
    else:
        listed.write_bytes(whole[:-30] + b"\n" + whole if harm == "torn" else harm.encode())
    capsys.readouterr()
    assert toy_batch("merge", part, "-o", tmp_path / "all") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "all").exists()
    assert toy_batch(*words) == 0  # as the message says
    assert listed.read_bytes() == whole
    assert toy_batch("merge", part, "-o", tmp_path / "all") == 0


def test_a_folder_that_stands_where_a_merged_one_stood_takes_nothing_from_that(rows, formulas, tmp_path):
    few = write_rows(tmp_path / "few.jsonl", lines(rows)[:5])
    logs = list[list[bytes]]()
    for listed in (rows, few, few):
        shutil.rmtree(tmp_path / "part", ignore_errors=True)
        assert toy_batch(listed, "-o", tmp_path / "part", "--bundle", formulas.path, "--seed", 3) == 0
        for _ in range(2):
            assert toy_batch("merge", tmp_path / "part", "-o", tmp_path / "all") == 0
            assert len(lines(tmp_path / "all/metadata.jsonl")) == 23
            logs.append([path.read_bytes() for path in (tmp_path / "all/log").iterdir()])
    assert (logs[0], logs[2], len(logs[0])) == (logs[1], logs[3], 1)


def test_parts_whose_pictures_have_other_names_are_not_merged(formulas, tmp_path, capsys):
    for part in ("a", "b"):
        rows = write_rows(
            tmp_path / f"{part}.jsonl", [{"id": f"{part}{i}", "prompt": "sea", "seed": i} for i in (1, 2)]
        )
        assert toy_batch(rows, "-o", tmp_path / part, "--bundle", formulas.path, "--name", "{id}") == 0
    capsys.readouterr()
    assert toy_batch("merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "all") == 2
    assert "no other folder's list has 2 pictures of it" in capsys.readouterr().err
    assert not (tmp_path / "all").exists()


def test_what_a_killed_process_left_is_gone_though_nothing_is_left_to_draw(rows, formulas, tmp_path):
    words = rows, "-o", tmp_path / "out", "--bundle", formulas.path, "--seed", 3
    assert toy_batch(*words, "--layout", "geneval") == 0
    for again in (words, ("merge", tmp_path / "out")):
        left = [tmp_path / "out" / below / f".nano-{'0' * 32}.part" for below in ("images", "geneval/00000")]
        for path in left:
            path.write_bytes(b"half")
        assert toy_batch(*again) == 0
        assert [path for path in left if path.exists()] == []


@pytest.mark.parametrize("text", ["3/2", "2/2", "0/0", "-1/4", "1", "a/b", "1/2/3", "1/100000000000", "", "1.0/2"])
def test_what_is_no_shard_is_refused(text, rows, formulas, tmp_path, capsys):
    with pytest.raises(ShardError):
        Shard.of(text)
    assert toy_batch(rows, "-o", tmp_path / "out", "--bundle", formulas.path, f"--shard={text}") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "out").exists()


SLURM = {
    "SLURM_ARRAY_TASK_ID": "5",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_MAX": "7",
    "SLURM_ARRAY_TASK_STEP": "2",
}


@pytest.mark.parametrize(
    ("variables", "shard"),
    [
        ({}, None),
        (SLURM, Shard(2, 4)),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "1"}, Shard(0, 4)),
        ({"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "8"}, Shard(3, 8)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, None),
    ],
)
def test_schedulers_say_which_shard_this_is(variables, shard):
    found = Shard.from_environment(variables)
    assert (None if found is None else found[0]) == shard


@pytest.mark.parametrize(
    "variables",
    [
        {"JOB_COMPLETION_INDEX": "3"},
        {"JOB_COMPLETION_INDEX": "x", "JOB_COMPLETIONS": "8"},
        {"JOB_COMPLETION_INDEX": "8", "JOB_COMPLETIONS": "8"},
        {"SLURM_ARRAY_TASK_ID": "5"},
        {**SLURM, "SLURM_ARRAY_TASK_COUNT": "3"},
        {**SLURM, "SLURM_ARRAY_TASK_ID": "4"},
        {**SLURM, "SLURM_ARRAY_TASK_STEP": "0"},
    ],
)
def test_a_scheduler_that_says_too_little_is_asked_for_more(variables):
    with pytest.raises(ShardError):
        Shard.from_environment(variables)


def test_shards_want_a_seed_that_all_have(rows, formulas, tmp_path, capsys):
    assert toy_batch(rows, "-o", tmp_path / "out", "--bundle", formulas.path, "--shard", "0/2") == 2
    assert "--seed" in capsys.readouterr().err
    seeded = write_rows(tmp_path / "seeded.jsonl", [{"prompt": "fox", "seed": i} for i in range(4)])
    assert toy_batch(seeded, "-o", tmp_path / "out", "--bundle", formulas.path, "--shard", "0/2") == 0


def test_folders_of_different_jobs_are_not_merged(rows, formulas, tmp_path, capsys):
    one, other, third = (tmp_path / name for name in ("one", "other", "third"))
    toy_batch(rows, "-o", one, "--bundle", formulas.path, "--seed", 3, "--shard", "0/9")
    toy_batch(rows, "-o", other, "--bundle", formulas.path, "--seed", 4, "--shard", "1/9")
    few = write_rows(tmp_path / "few.jsonl", [{"id": "x", "prompt": "snow"}])
    toy_batch(few, "-o", third, "--bundle", formulas.path, "--seed", 3)
    capsys.readouterr()
    for folders in ((one, other), (one, third), (one, tmp_path), (one, tmp_path / "nowhere")):
        assert toy_batch("merge", *folders, "-o", tmp_path / "all") == 2
        assert len(capsys.readouterr().err.splitlines()) == 2
        assert not (tmp_path / "all").exists()
    assert toy_batch("merge", one, other) == 2
    assert "-o" in capsys.readouterr().err
    assert toy_batch("merge", one, other, "-o", tmp_path / "all") == 2
    assert f"its --seed is 4, that of {one} 3\nMerge folders of one job, drawn with" in capsys.readouterr().err
    assert toy_batch("merge", one, "-o", third) == 2
