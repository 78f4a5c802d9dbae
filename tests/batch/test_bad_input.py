"""Folders, names, settings and disks that a job cannot use: words, an exit code, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from blake3 import blake3
from PIL import Image
from tests.batch.toy import lines, toy_batch, write_rows
from tests.faults import failing
from tests.runtime.fakes import make_bundle

from nano_batch import listing, wanted
from nano_batch.errors import NamePatternError
from nano_batch.job import DATASETS
from nano_batch.naming import Naming

JOB, LOG = "job.json", "log/local.jsonl"


@pytest.fixture
def rows(tmp_path):
    return write_rows(
        tmp_path / "rows.jsonl", [{"id": f"r{i}", "prompt": f"a {word}"} for i, word in enumerate(["fox", "owl"])]
    )


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def refused(capsys, *words):
    """Run the command, require two lines on standard error, and return the exit code and them."""
    capsys.readouterr()
    code = toy_batch(*words)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("nano-batch: ")
    assert len(said.err.splitlines()) == 2, said.err
    return code, said.err


def test_an_empty_name_is_no_folder(rows, formulas, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, rows, "-o", "", "--bundle", formulas.path)[0] == 2
    assert not (tmp_path / "job.json").exists()


def test_another_job_in_the_folder_is_told_with_what_differs(rows, out, formulas, tmp_path, capsys):
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path, "--seed", 3, "--steps", 4, "--name", "{id}") == 0
    before = contents(out)
    other = make_bundle(tmp_path / "other", name="otherwise")
    usual = {"--bundle": formulas.path, "--seed": 3, "--steps": 4, "--name": "{id}"}
    for flag, value, said in (
        ("--bundle", other.path, "otherwise"),
        ("--seed", 4, "--seed was 3, and now is 4"),
        ("--steps", 5, "with other options: --steps was 4, and now is 5; so no row asks for 2 pictures of it any more"),
        ("--name", "{id}-{i}", "'{id}-{i}'"),
        ("--guidance", 2, "--guidance was not given, and now is 2.0; so"),
    ):
        words = [word for pair in {**usual, flag: value}.items() for word in pair]
        code, err = refused(capsys, rows, "-o", out, *words)
        assert (code, said in err) == (2, True), err
        code, _ = refused(capsys, rows, "-o", out, *words, "--dry-run")
        assert code == 2
    assert contents(out) == before
    assert (
        toy_batch(rows, "-o", out, "--bundle", formulas.path, "--name", "{id}") == 0
    )  # four steps are the bundle's own


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--size=512", "nano-batch: the bundle draws 32 x 32 pixels, not 512 x 512"),
        ("--steps=100000", "nano-batch: 100000 steps cannot be run"),
        ("--strength=0.5", "nano-batch: --strength means nothing without --image"),
        ("--variation-seed=5", "nano-batch: --variation-seed means nothing without --variation-strength"),
        ("--mask=mask.png", "nano-batch: --mask means nothing without --image"),
        ("--image=rows.jsonl", "rows.jsonl cannot be used: it is none of PNG, JPEG, WEBP"),
        ("--image=nowhere.png", "nowhere.png cannot be opened"),
    ],
)
def test_what_is_wrong_with_the_command_line_is_told_once_and_not_for_each_row(
    option, told, *, out, formulas, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (32, 32)).save(tmp_path / "mask.png")
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "a fox", "sampler": one} for one in ("euler", "ddim", None)])
    code, err = refused(capsys, "rows.jsonl", "-o", out, "--bundle", formulas.path, option)
    assert (code, told in err) == (2, True), err
    assert not out.exists()


def test_what_is_wrong_with_a_row_alone_is_told_with_its_line_beside_good_options(out, formulas, tmp_path, capsys):
    """The negative control: the command line is not to blame, though it names the same option."""
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a fox", "width": 64}, {"prompt": "an owl"}])
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path, "--size", "32") == 2
    err = capsys.readouterr().err.splitlines()
    assert (len(err), err[1].startswith("line 1: the bundle draws 32 x 32 pixels, not 64 x 32")) == (3, True)


def test_rows_that_were_changed_need_a_word(rows, out, formulas, capsys):
    words = rows, "-o", out, "--bundle", formulas.path, "--seed", 3
    assert toy_batch(*words) == 0
    write_rows(rows, [{"id": "r0", "prompt": "a fox"}, {"id": "r1", "prompt": "a blue owl"}])
    code, err = refused(capsys, *words)
    assert code == 2
    assert "was drawn from other rows: no row asks for 1 picture of it any more" in err
    assert "another folder with -o, and both stay; the rows as they were, and this job goes on; or --prune" in err
    assert "'r1'" in err
    assert toy_batch(*words, "--prune", "--dry-run") == 0
    assert "--prune would delete 1 picture that no row asks for any more" in capsys.readouterr().err
    assert len([*(out / "images").rglob("*.png")]) == 2
    assert toy_batch(*words, "--prune") == 0
    assert [one["text"] for one in lines(out / "metadata.jsonl")] == ["a fox", "a blue owl"]
    assert len([*(out / "images").rglob("*.png")]) == 2


def test_a_row_that_was_renamed_leaves_no_picture_behind(rows, out, formulas, capsys):
    words = rows, "-o", out, "--bundle", formulas.path, "--name", "{id}"
    write_rows(rows, [{"id": "old", "prompt": "a fox", "seed": 1}, {"id": "r1", "prompt": "sea", "seed": 2}])
    assert toy_batch(*words) == 0
    write_rows(rows, [{"id": "new", "prompt": "a fox", "seed": 1}, {"id": "r1", "prompt": "sea", "seed": 2}])
    assert "'old'" in refused(capsys, *words)[1]
    assert toy_batch(*words, "--prune") == 0
    assert {path.name for path in (out / "images").iterdir()} == {"new.png", "r1.png"}


@pytest.mark.parametrize("name", ["../mine.txt", "images/../../mine.txt", "images\\..\\mine.txt", "mine.txt"])
def test_a_job_of_somebody_else_deletes_nothing_outside_its_pictures(name, rows, out, formulas, tmp_path):
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path) == 0
    for mine in (tmp_path / "mine.txt", out / "mine.txt", out / "images\\..\\mine.txt"):
        mine.write_text("mine")
    record = {"key": "f" * 32, "done": True, "size": 4, "blake3": blake3(b"mine").hexdigest(), "drawn_by": {}}
    (out / "log/other.jsonl").write_text(json.dumps({**record, "files": {name: 0}}) + "\n")
    line = {"record": {"key": "f" * 32, "id": "x", "file_name": name}}
    (out / "pictures.jsonl").write_text(json.dumps(line) + '\n{"record": {"key": [], "file_name": {}}}\n')
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path, "--prune") == 0
    assert toy_batch("merge", out, "-o", tmp_path / "below" / "all") == 0
    assert len([*tmp_path.rglob("*mine.txt")]) == 3


def test_a_job_that_was_ended_while_it_began_goes_on(rows, out, formulas, monkeypatch):
    def ended(*_words: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nano_batch.job.write_whole", ended)
        assert toy_batch(rows, "-o", out, "--bundle", formulas.path) == 130
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path) == 0


@pytest.mark.parametrize("name", DATASETS)
def test_a_folder_with_somebody_elses_dataset_is_refused(name, rows, out, formulas, capsys):
    """It would be replaced by the job's: of numbered files those that the job does not need are removed."""
    mine = out / name / {"webdataset": "00007.tar", "parquet": "00007.parquet", "geneval": "00007/metadata.jsonl"}[name]
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    code, err = refused(capsys, rows, "-o", out, "--bundle", formulas.path, "--layout", "geneval")
    assert (code, f"has {name}, but no job.json" in err) == (2, True)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("harm", ["file", "no job", "damaged", "later form", "not ours", "not a number"])
def test_what_is_no_jobs_folder_is_refused(harm, rows, out, formulas, capsys):
    if harm == "file":
        out.write_text("mine")
    elif harm == "no job":
        (out / "images").mkdir(parents=True)
    else:
        out.mkdir()
        good = {"form": 1, "bundle": "0", "model": "m", "seed": 1, "rows": "r", "version": "1"}
        texts = {
            "damaged": json.dumps(good)[:-9],
            "later form": json.dumps({**good, "form": 2}),
            "not ours": json.dumps({"name": "my job"}),
            "not a number": json.dumps({**good, "seed": "\x1b[31m"}),
        }
        (out / JOB).write_text(texts[harm])
    before = out.read_bytes() if harm == "file" else contents(out)
    code, err = refused(capsys, rows, "-o", out, "--bundle", formulas.path)
    assert code == (4 if harm == "file" else 2)
    assert str(out) in err
    assert (out.read_bytes() if harm == "file" else contents(out)) == before


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/sys").exists(), reason="root writes everywhere")
def test_a_folder_that_cannot_be_made_is_the_machines_fault(rows, formulas, capsys):
    code, _ = refused(capsys, rows, "-o", "/proc/nano-batch", "--bundle", formulas.path)
    assert code == 4


@pytest.mark.parametrize("key", ["../../../mine", "f" * 500, "\x1b[31m", "F" * 32, "f" * 32 + "\n"])
def test_a_list_of_somebody_else_names_no_member_of_an_archive(key, rows, out, formulas, capsys):
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path) == 0
    before = lines(out / "pictures.jsonl")[0]["record"]["key"]
    for path in (out / "pictures.jsonl", out / LOG):
        path.write_text(path.read_text().replace(f'"key":"{before}"', f'"key":{json.dumps(key)}'))
    assert toy_batch("merge", out, "--format", "webdataset") == 2
    assert "pictures.jsonl is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["images", "log", "webdataset", "geneval", "geneval/00000"])
def test_nothing_is_written_or_deleted_through_a_link_of_somebody_else(name, rows, out, formulas, capsys):
    mine = out.parent / "mine"
    (mine / "samples").mkdir(parents=True)
    for file in ("r0.png", "old.png", "00000.tar", "00001.tar", "metadata.jsonl", "local.jsonl", "samples/0009.png"):
        (mine / file).write_text("mine")
    words = (rows, "-o", out, "--bundle", formulas.path, "--name", "{id}")
    assert toy_batch(*words) == 0
    if name in ("images", "log"):
        (out / name).rename(out.parent / "away")
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).symlink_to(mine)
    write_rows(rows, [{"id": f"r{i}", "prompt": f"a fox and {i}"} for i in range(2)])
    forms = ("--format", "webdataset", "--layout", "geneval")
    codes = toy_batch(*words, "--prune"), toy_batch("merge", out, *forms)
    assert 4 in codes, codes
    assert "it is a link" in capsys.readouterr().err
    assert {path.read_text() for path in mine.rglob("*") if path.is_file()} == {"mine"}
    assert len([*mine.rglob("*")]) == 8


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
@pytest.mark.parametrize("name", [JOB, LOG, "log/x.jsonl", "pictures.jsonl", "metadata.jsonl", ".lock", ".report.lock"])
def test_a_folder_of_somebody_else_is_read_and_written_in_plain_files_only(name, rows, out, formulas, capsys):
    """A FIFO would be waited for, a device read without end, and a link to a file of the user written through."""
    words = (rows, "-o", out, "--bundle", formulas.path)
    assert toy_batch(*words) == 0
    mine = out.parent / "mine.txt"
    mine.write_text("mine")
    for special in ("fifo", "/dev/zero", str(mine)):
        (out / name).unlink(missing_ok=True)
        if special == "fifo":
            os.mkfifo(out / name)
        else:
            (out / name).symlink_to(special)
        for argv in (words, ("merge", out)):
            capsys.readouterr()
            code, said = toy_batch(*argv), capsys.readouterr().err
            assert code in (0, 2, 4), said
            assert code == 0 or name in said
        if name in (LOG, ".lock", ".report.lock"):  # they are written to
            write_rows(rows, [{"id": f"r{i}", "prompt": f"a fox in {special}"} for i in range(2)])
            assert toy_batch(*words, "--prune") == 4
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00nonsense\n", b'{"key": 1}\n[]\nnull\n{"key": "k", "done": true}\n', b"\n\n{", b"[" * 5000]
)
def test_a_damaged_log_costs_no_more_than_looking(content, rows, out, formulas):
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path) == 0
    whole = (out / LOG).read_bytes()
    (out / LOG).write_bytes(whole[:-40] + content)
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path) == 0
    assert len(lines(out / "metadata.jsonl")) == 2
    (out / LOG).write_bytes(content + b"\n" + whole)
    (out / "log" / "zz.jsonl").mkdir()
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path) == 0


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("same", "one name"),
        ("{id", ""),
        ("{number}", "{number}"),
        ("{}", "{}"),
        ("{id.__class__}", "{id.__class__}"),
        ("{id:>10}", "{id}"),
        ("{id!r}", "{id}"),
        ("../{id}", "out of the folder"),
        ("/etc/{id}", "out of the folder"),
        ("a/../{id}", "out of the folder"),
        ("{id}/", "out of the folder"),
        ("a\\{id}", "out of the folder"),
        ("{id}\x1b[31m", ""),
        ("C:{id}", ":"),
        ("", "one name"),
        ("{id}/.png", "out of the folder"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern, why, rows, out, capsys):
    with pytest.raises(NamePatternError):
        Naming(pattern)
    code, err = refused(capsys, rows, "-o", out, f"--name={pattern}")
    assert code == 2
    assert why in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("row_id", "name"),
    [
        ("../../etc/passwd", "images/_.._.._etc_passwd.png"),
        ("..", "images/_.png"),
        ("CON", "images/_CON.png"),
        ("com1.backup", "images/_com1.backup.png"),
        (".hidden", "images/_.hidden.png"),
        ("dot. ", "images/dot.png"),
        ("a\nb\0c", "images/a_b_c.png"),
        ("\u202egnp", "images/_gnp.png"),
        ("a\u061c\U000e0041\u00adb", "images/a___b.png"),
        ("наволочка", "images/наволочка.png"),
        ("x" * 500, f"images/{'x' * 200}.png"),
        ("ж" * 500, f"images/{'ж' * 100}.png"),
        ("{i}", "images/{i}.png"),
        ("a.png", "images/a.png.png"),
    ],
)
def test_every_id_makes_a_name_that_all_systems_can_have(row_id, name):
    values = {"id": row_id, "i": 0, "key": "0" * 32, "prompt": "", "seed": 1}
    assert Naming("{id}").name(values) == name


def test_long_texts_leave_room_for_what_tells_names_apart():
    values = {"id": "ж" * 200, "i": 17, "key": "0" * 32, "prompt": "狐" * 90, "seed": 2**64 - 1}
    assert Naming("{prompt}-{seed}").name(values) == f"images/{'狐' * 59}-{2**64 - 1}.png"
    assert Naming("{id}-{i}").name(values) == f"images/{'ж' * 98}-17.png"
    assert Naming("{id}{id}-{i}").name(values) == f"images/{'ж' * 49 * 2}-17.png"
    assert Naming("{prompt} {id} {key}").name(values) == f"images/{'ж' * 83} {'0' * 32}.png"
    assert Naming("a" * 250 + "{i}").name(values) == f"images/{'a' * 200}.png"


def test_spellings_of_a_name_that_macos_takes_for_one_are_refused(out, formulas, tmp_path, capsys):
    rows = [{"id": name, "prompt": name} for name in ("caf\u00e9", "CAFE\u0301", "cafe")]
    write_rows(tmp_path / "rows.jsonl", rows)
    words = tmp_path / "rows.jsonl", "-o", out, "--bundle", formulas.path, "--name"
    assert toy_batch(*words, "{id}") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[1].startswith("line 2: its picture would be images/CAFE\u0301.png, as that of line 1 is")
    assert toy_batch(*words, "{id}-{i}-{key}") == 0


def test_names_that_meet_are_refused(out, formulas, tmp_path, capsys):
    rows = write_rows(
        tmp_path / "rows.jsonl", [{"id": "Fox", "prompt": "a fox"}, {"id": "fox", "prompt": "sea", "n": 2}]
    )
    code = toy_batch(rows, "-o", out, "--bundle", formulas.path, "--name", "{id}")
    err = capsys.readouterr().err
    assert code == 2
    assert "line 2: its picture would be images/fox.png, as that of line 1 is. Put {key}, {prompt} or {seed}, w" in err
    assert not out.exists()


def test_names_that_rows_without_an_id_share_are_refused_with_the_fields_that_tell_them_apart(
    out, formulas, tmp_path, capsys
):
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a fox", "n": 2}, {"prompt": "a fox", "seed": 7}])
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path, "--name", "{prompt}") == 2
    err = capsys.readouterr().err
    assert "line 1: its pictures 0 and 1 would both be images/a fox.png. Put {i}, {key} or {seed}, which are" in err
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path, "--name", "{prompt}-{i}") == 2
    err = capsys.readouterr().err
    assert "line 2: its picture would be images/a fox-0.png, as that of line 1 is. Put {id}, {key} or {seed}, w" in err
    assert len(err.splitlines()) == 3


def test_a_name_that_no_file_of_this_system_can_have_is_found_before_anything_is_written(
    out, formulas, tmp_path, monkeypatch, capsys
):
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a fox"}, {"prompt": "\u72d0"}])
    monkeypatch.setattr("nano_batch.listing.sys.getfilesystemencoding", lambda: "ascii")
    words = rows, "-o", out, "--bundle", formulas.path, "--name"
    assert toy_batch(*words, "{prompt}") == 2
    assert "line 2: its picture would be images/\u72d0.png, and names of files are ascii" in capsys.readouterr().err
    assert not out.exists()
    assert toy_batch(*words, "{key}") == 0


def test_options_that_the_bundle_cannot_draw_are_found_before_anything_is_written(out, formulas, tmp_path, capsys):
    bad: list[dict[str, object]] = [
        {"prompt": "a", "num_inference_steps": 0},
        {"prompt": "b"},
        {"prompt": "c", "strength": 0.5},
    ]
    rows = write_rows(tmp_path / "rows.jsonl", bad)
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path) == 2
    err = capsys.readouterr().err
    assert "1" in err
    assert "3" in err
    assert "Traceback" not in err
    assert not out.exists()


def test_a_start_picture_that_changes_meanwhile_fails_its_row(out, formulas, tmp_path, monkeypatch):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "start.png")
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "sea", "image": "start.png"}, {"prompt": "fox"}])
    real = wanted.digest_of_file

    def changing(path):
        found = real(path)
        Image.new("RGB", (32, 32), "blue").save(path)
        return found

    monkeypatch.setattr(listing, "digest_of_file", changing)
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path, "--seed", 3) == 6
    (error,) = lines(out / "errors.jsonl")
    assert "is not what it was" in error["error"]
    monkeypatch.undo()
    assert toy_batch(rows, "-o", out, "--bundle", formulas.path, "--seed", 3) == 0


def test_a_disk_that_fills_keeps_what_is_finished(out, formulas, tmp_path, capsys, full):
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": str(i), "prompt": "a fox", "n": 2} for i in range(4)])
    words = rows, "-o", out, "--bundle", formulas.path, "--seed", 3
    kept: dict[Path, bytes] = {}
    for first in range(1, 400) if full else (*range(2, 18, 3), *range(18, 400, 47)):
        with failing(tmp_path, first, errno.ENOSPC if first % 2 else errno.EIO, lasting=True) as faults:
            code = toy_batch(*words)
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "sudden end" not in said
        assert code == (0 if not faults.struck else 2 if "list of prompts" in said else 4), (first, said)
        now = contents(out / "images") if out.exists() else {}
        assert {path: kept[path] for path in kept} == {path: now[path] for path in kept}
        kept = {path: content for path, content in now.items() if path.suffix == ".png"}
    assert len(kept) == 8
    assert toy_batch(*words) == 0
    assert len(lines(out / "metadata.jsonl")) == 8
