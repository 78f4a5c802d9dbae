"""The forms of a finished job, read with tarfile and json: names, order, bytes, and what a second run leaves alone.

``make batch-formats`` opens them with the libraries that they are for.
"""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.batch.finished import finished_job

from nano_batch.datasets import write_datasets
from nano_batch.formats import geneval, tables, tars
from nano_batch.formats.columns import as_kind, kinds_of
from nano_batch.formats.geneval import write_geneval
from nano_batch.formats.tars import write_tars
from nano_batch.job import DATASETS
from nano_batch.reports import Report
from nano_runtime.errors import OutputError


def members(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as archive:
        return archive.getmembers()


def content_of(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def test_a_tar_has_picture_prompt_and_record_of_each_row_beside_each_other(tmp_path):
    records = finished_job(tmp_path, 3, guidance_scale=[7, 7.5], include=[[{"class": "cow"}]])
    again = {**records[0], "id": "again"}
    written = write_tars([*records, again], tmp_path)
    assert (written.pictures, written.left_out) == (4, [])
    keys = [*(record["key"] for record in records), f"{records[0]['key']}-2"]
    with tarfile.open(tmp_path / "webdataset" / "00000.tar") as archive:
        assert archive.getnames() == [f"{key}.{kind}" for key in keys for kind in ("png", "txt", "json")]
        for key, record in zip(keys, [*records, again], strict=True):
            of = {kind: content_of(archive, f"{key}.{kind}") for kind in ("png", "txt", "json")}
            assert of["png"] == (tmp_path / record["file_name"]).read_bytes()
            assert of["txt"].decode() == record["text"]
            found = json.loads(of["json"])
            assert found == {name: value for name, value in record.items() if name != "file_name"}
            assert isinstance(found["guidance_scale"], float)
    for one in members(tmp_path / "webdataset" / "00000.tar"):
        assert (one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) == (0, 0, 0, "", "", 0o644)


def test_equal_jobs_give_equal_tars_whenever_and_wherever(tmp_path):
    found: list[bytes] = []
    for name in ("a", "b"):
        records = finished_job(tmp_path / name, 5)
        for path in (tmp_path / name).rglob("*.png"):
            os.utime(path, (len(found) * 1e6, len(found) * 1e6))
        write_tars(records, tmp_path / name)
        found.append((tmp_path / name / "webdataset" / "00000.tar").read_bytes())
    assert found[0] == found[1]
    assert len(found[0]) % 512 == 0


def test_tars_are_divided_and_a_second_run_writes_what_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MOST_PICTURES", 2)
    records = finished_job(tmp_path, 5)
    folder = tmp_path / "webdataset"
    names = [path.name for path in write_tars(records, tmp_path).changed]
    assert names == ["00000.tar", "00001.tar", "00002.tar", "README.md"]
    assert [len(members(folder / name)) for name in names[:3]] == [6, 6, 3]
    before = {name: (folder / name).read_bytes() for name in names}

    assert write_tars(records, tmp_path).changed == []
    other = [*records[:2], {**records[2], "seed": 1}, *records[3:]]
    assert write_tars(other, tmp_path).changed == [folder / "00001.tar"]
    assert write_tars(records, tmp_path).changed == [folder / "00001.tar"]
    (tmp_path / records[4]["file_name"]).write_bytes(b"another picture")
    assert write_tars(records, tmp_path).changed == [folder / "00002.tar"]
    (folder / "00000.tar").write_bytes(before["00000.tar"][:-1])
    assert write_tars(records, tmp_path).changed == [folder / "00000.tar"]
    assert (folder / "00000.tar").read_bytes() == before["00000.tar"]
    assert write_tars(records[:2], tmp_path).changed == [folder / "00001.tar", folder / "00002.tar"]
    assert sorted(path.name for path in folder.iterdir()) == ["00000.tar", "README.md"]


def test_geneval_has_the_pictures_of_rows_that_changed_places_although_these_are_of_one_size(tmp_path):
    """Both are older than their copies, too."""
    records = finished_job(tmp_path, 2)
    files = [tmp_path / record["file_name"] for record in records]
    for file in files:
        file.write_bytes(file.read_bytes().ljust(1000, b"\0"))
    for rows in (records, records[::-1]):
        written = write_geneval(records, tmp_path, {record["id"]: (place, {}) for place, record in enumerate(rows)})
        assert len(written.changed) == 4
        found = [path.read_bytes() for path in sorted(tmp_path.glob("geneval/*/samples/0000.png"))]
        assert found == [(tmp_path / record["file_name"]).read_bytes() for record in rows]


def test_the_folders_of_datasets_are_those_that_no_job_is_begun_beside():
    assert {tars.FOLDER, tables.FOLDER, geneval.FOLDER} == {*DATASETS}


def test_geneval_has_a_folder_for_each_row(tmp_path):
    records = finished_job(tmp_path, 5)
    rows: dict[str, dict[str, Any]] = {
        "cow": {"tag": "counting", "include": [{"class": "cow", "count": 2}]},
        "dog": {"tag": "colors"},
    }
    of = ["cow", "cow", "cow", "dog", "dog"]
    places = zip(records, of, (0, 1, 2, 0, 3), strict=True)  # two pictures of the dog failed
    records = [{**record, "id": name, "i": i, "text": f"a {name}"} for record, name, i in places]
    lines = {"cow": (0, rows["cow"]), "dog": (7, rows["dog"])}
    written = write_geneval(records, tmp_path, lines)
    folder = tmp_path / "geneval"
    there = [
        *("00000/metadata.jsonl", "00000/samples/0000.png", "00000/samples/0001.png", "00000/samples/0002.png"),
        *("00007/metadata.jsonl", "00007/samples/0000.png", "00007/samples/0003.png"),
    ]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == there
    assert len(written.changed) == len(there)
    # as evaluation/evaluate_images.py reads it: the whole file is one object
    assert json.loads((folder / there[0]).read_text()) == {**rows["cow"], "prompt": "a cow"}
    assert (folder / there[3]).read_bytes() == (tmp_path / records[2]["file_name"]).read_bytes()

    assert write_geneval(records, tmp_path, lines).changed == []
    (tmp_path / records[2]["file_name"]).unlink()
    fewer = write_geneval(records[:3], tmp_path, lines)
    assert (fewer.pictures, fewer.left_out) == (2, ["cow"])
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == there[:3]
    assert not (folder / "00007").exists()


def test_a_picture_that_is_not_there_is_left_out_and_named(tmp_path, caplog):
    records = finished_job(tmp_path, 3)
    write_datasets(tmp_path, Report(3, records, []), [], ["webdataset"])
    assert caplog.text == ""
    (tmp_path / records[1]["file_name"]).unlink()
    write_datasets(tmp_path, Report(3, records, []), [], ["webdataset"])
    assert "whose files are gone: row.1;" in caplog.text
    written = write_tars(records, tmp_path)
    assert (written.pictures, written.left_out) == (2, ["row.1"])
    assert len(members(tmp_path / "webdataset" / "00000.tar")) == 6


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    records = finished_job(tmp_path, 1)
    (tmp_path / "webdataset").write_text("a file")
    with pytest.raises(OutputError, match="webdataset cannot be written"):
        write_tars(records, tmp_path)


@pytest.mark.parametrize(
    ("values", "kind", "as_text"),
    [
        ([True, None], "truth", [True, None]),
        ([1, -3], "integer", [1, -3]),
        ([1, 2**63], "large", [1, 2**63]),
        ([-1, 2**63], "json", ["-1", str(2**63)]),
        ([1, 7.5], "number", [1.0, 7.5]),
        ([2**53 + 1, 7.5], "json", [str(2**53 + 1), "7.5"]),
        ([1, True], "json", ["1", "true"]),
        ([1, "1", [2]], "text", ["1", "1", "[2]"]),
        ([[], {"a": "ä"}], "json", ["[]", '{"a": "ä"}']),
        ([None], "text", [None]),
    ],
)
def test_a_column_has_a_kind_that_holds_all_its_values(values, kind, as_text):
    assert kinds_of([{"a": value} for value in values]) == {"a": kind}
    assert [as_kind(value, kind) for value in values] == as_text
