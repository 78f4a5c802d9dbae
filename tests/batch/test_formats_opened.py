"""Finished jobs, opened with the libraries that they are for: datasets, webdataset, pyarrow, pandas, GenEval's loop.

``make batch-formats`` runs this in an environment that has them.
"""

from __future__ import annotations

import json
import os
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.batch.finished import finished_job
from tests.batch.toy import toy_batch, write_rows
from tests.runtime.fakes import make_bundle

from nano_batch.cli import main
from nano_batch.formats import tables
from nano_batch.formats.geneval import write_geneval
from nano_batch.formats.tables import write_tables
from nano_batch.formats.tars import write_tars
from nano_batch.job import lines_of

datasets = pytest.importorskip("datasets", reason="needs datasets: make batch-formats")
webdataset = pytest.importorskip("webdataset")
pandas = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")

COUNT = 12
COLUMNS: dict[str, list[Any]] = {
    "seed": [1, 2**32 - 1],
    "negative_prompt": [*[None] * 6, "mud"],  # not among the first, from which readers take the types
    "guidance_scale": [*[7] * 6, 7.5],
    "flag": [True, False],
    "include": [[{"class": "cow", "count": 1}], [], [{"class": "dog", "count": 2, "color": "red"}]],
    "тема": ["a", "b"],
}


def test_what_the_command_writes_opens_too(tmp_path, load, capfd):
    """The demo, GenEval's own kind of rows, two pictures of each."""
    things = [("a cow", "cow", 1), ("two dogs", "dog", 2)]
    rows = [
        {"tag": "single_object", "include": [{"class": thing, "count": count}], "prompt": prompt}
        for prompt, thing, count in things
    ]
    path, out = tmp_path / "evaluation_metadata.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for form in ("webdataset", "parquet"):
        command = [str(path), "-o", str(out), "-n", "2", "--steps", "4", "--seed", "7", "--format", form]
        assert main([*command, "--layout", "geneval"]) == 0
    assert "2 of 2 " not in capfd.readouterr().err  # four pictures
    records = records_of(out)
    assert [record["i"] for record in records] == [0, 1, 0, 1]
    for found, column in (
        (load("imagefolder", out, data_files=["metadata.jsonl", "images/**"]), "image"),
        (load(str(out / "webdataset")), "png"),
        (load("webdataset", out / "webdataset"), "png"),
        (load("parquet", out / "parquet"), "image"),
    ):
        expect_pictures(found[column], out)
    frame = pandas.read_parquet(out / "parquet")
    assert list(frame["seed"]) == [record["seed"] for record in records]
    assert [json.loads(text) for text in frame["include"]] == [row["include"] for row in rows for _ in range(2)]
    for i, row in enumerate(rows):
        folder = out / "geneval" / f"{i:05}"
        assert json.loads((folder / "metadata.jsonl").read_text()) == row
        assert [path.name for path in sorted((folder / "samples").iterdir())] == ["0000.png", "0001.png"]


@pytest.fixture
def job(tmp_path):
    finished_job(tmp_path / "job", COUNT, **COLUMNS)
    return tmp_path / "job"


@pytest.fixture
def load(tmp_path):
    os.environ["HF_HUB_OFFLINE"] = "1"

    def load(kind, folder=None, **more):
        found = datasets.load_dataset(kind, data_dir=folder and str(folder), cache_dir=str(tmp_path / "cache"), **more)
        assert list(found) == ["train"]
        return found["train"]

    return load


def records_of(folder: Path):
    return list(lines_of(folder / "metadata.jsonl"))


def pixels(content: bytes | Path) -> bytes:
    with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as image:
        return image.convert("RGB").tobytes()


def expect_pictures(images, job: Path):
    assert [image.tobytes() for image in images] == [pixels(job / record["file_name"]) for record in records_of(job)]


@pytest.mark.parametrize("with_others", [False, True])
def test_datasets_opens_the_folder_itself(job, load, with_others):
    if with_others:  # they lie in the same folder
        write_tars(records_of(job), job)
        write_tables(records_of(job), job)
    found = load("imagefolder", job)
    expect_pictures(found["image"], job)
    assert list(found["text"]) == [record["text"] for record in records_of(job)]
    assert list(found["guidance_scale"]) == [*[7.0] * 6, 7.5, *[7.0] * 5]
    assert found[0]["include"] == [{"class": "cow", "count": 1, "color": None}]


def test_datasets_opens_columns_of_several_kinds(tmp_path, load):
    values = [1, "one", None, [1, {"a": 1}], {"a": True}, 0.5]
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a fox", "mixed": value} for value in values])
    assert toy_batch(rows, "-o", tmp_path / "out", "--bundle", make_bundle(tmp_path / "formulas").path) == 0
    found = load("imagefolder", tmp_path / "out")
    expect_pictures(found["image"], tmp_path / "out")
    assert list(found["mixed"]) == ["1", "one", None, '[1, {"a": 1}]', '{"a": true}', "0.5"]


def test_geneval_beside_it_needs_the_names_of_the_files(job, load):
    write_geneval(records_of(job), job, {record["id"]: (i, {}) for i, record in enumerate(records_of(job))})
    expect_pictures(load("imagefolder", job, data_files=["metadata.jsonl", "images/**"])["image"], job)
    with pytest.raises(ValueError, match="file_name"):
        load("imagefolder", job)


def test_webdataset_opens_tars(job):
    write_tars(records_of(job), job)
    urls = str(job / "webdataset" / "{00000..00000}.tar")
    found = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in found] == [record["key"] for record in records_of(job)]
    expect_pictures([sample["png"] for sample in found], job)
    for sample, record in zip(found, records_of(job), strict=True):
        assert sample["txt"] == record["text"]
        assert sample["json"] == {name: value for name, value in record.items() if name != "file_name"}


def test_datasets_opens_tars(job, load):
    write_tars(records_of(job), job)
    typed = load(str(job / "webdataset"))  # README.md has the types
    guessed = load("webdataset", job / "webdataset")
    for found in (typed, guessed):
        expect_pictures(found["png"], job)
        assert list(found["txt"]) == [record["text"] for record in records_of(job)]
        assert [one["guidance_scale"] for one in found["json"]] == [*[7.0] * 6, 7.5, *[7.0] * 5]
    expected = [{name: value for name, value in record.items() if name != "file_name"} for record in records_of(job)]
    assert list(typed["json"]) == expected


def test_datasets_opens_parquet(job, load):
    write_tables(records_of(job), job)
    for found in (load("parquet", job / "parquet"), load(str(job / "parquet"))):
        assert found.features["image"] == datasets.Image()
        expect_pictures(found["image"], job)
        assert list(found["negative_prompt"]) == [*[None] * 6, "mud", *[None] * 5]
        assert [json.loads(text) for text in found["include"]] == [record["include"] for record in records_of(job)]


def test_pyarrow_and_pandas_open_parquet(job):
    records = records_of(job)
    write_tables(records, job)
    table = parquet.read_table(job / "parquet" / "00000.parquet")
    assert [str(table.schema.field(name).type) for name in ("seed", "guidance_scale", "flag", "тема")] == [
        *("int64", "double", "bool", "string")
    ]
    frame = pandas.read_parquet(job / "parquet")
    assert list(frame["seed"]) == [record["seed"] for record in records]
    for image, record in zip(frame["image"], records, strict=True):
        content = (job / record["file_name"]).read_bytes()
        assert image == {"bytes": content, "path": f"{record['key']}.png"}


def test_parquet_is_divided_equal_each_time_and_left_alone(job, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_PICTURES", 5)
    monkeypatch.setattr(tables, "_AT_ONCE", 2)
    records = records_of(job)
    folder = job / "parquet"
    files = [folder / f"0000{i}.parquet" for i in range(3)]
    assert write_tables(records, job).changed == files
    assert [parquet.read_metadata(path).num_row_groups for path in files] == [3, 3, 1]
    before = [path.read_bytes() for path in files]
    assert write_tables(records, job).changed == []
    assert write_tables(finished_job(tmp_path / "b", COUNT, **COLUMNS), tmp_path / "b").pictures == COUNT
    assert [(tmp_path / "b" / "parquet" / path.name).read_bytes() for path in files] == before

    other = [*records[:7], {**records[7], "flag": None}, *records[8:]]
    assert write_tables(other, job).changed == [files[1]]
    files[0].write_bytes(before[0][:-9])
    assert write_tables(records, job).changed == files[:2]
    # without the one 7.5, the column has whole numbers: its type is another in all files
    assert write_tables(records[:5], job).changed == files


def test_values_that_no_column_holds_are_json(tmp_path):
    records = finished_job(tmp_path, 4, seed=[1, 2**64 - 1], odd=[1, "1", [2], None], huge=[2**64, -1])
    (tmp_path / records[3]["file_name"]).unlink()
    assert write_tables(records, tmp_path).left_out == ["row.3"]
    frame = pandas.read_parquet(tmp_path / "parquet")
    assert list(frame["seed"]) == [1, 2**64 - 1, 1]
    assert list(frame["odd"]) == ["1", "1", "[2]"]
    assert list(frame["huge"]) == [str(2**64), "-1", str(2**64)]


def test_genevals_loop_finds_every_picture_with_its_row(job):
    """As ``main`` of evaluation/evaluate_images.py (github.com/djghosh13/geneval at af4902f) goes through a folder."""
    records = records_of(job)
    rows = [{"tag": "colors", "include": record["include"]} for record in records]
    write_geneval(
        records, job, {record["id"]: (i, row) for i, (record, row) in enumerate(zip(records, rows, strict=True))}
    )
    imagedir, found = str(job / "geneval"), {}
    for subfolder in os.listdir(imagedir):  # noqa: PTH208 - as it is there
        folderpath = os.path.join(imagedir, subfolder)  # noqa: PTH118
        if not os.path.isdir(folderpath) or not subfolder.isdigit():  # noqa: PTH112
            continue
        with open(os.path.join(folderpath, "metadata.jsonl")) as fp:  # noqa: PTH118, PTH123
            metadata = json.load(fp)
        for imagename in os.listdir(os.path.join(folderpath, "samples")):  # noqa: PTH118, PTH208
            imagepath = os.path.join(folderpath, "samples", imagename)  # noqa: PTH118
            if not os.path.isfile(imagepath) or not re.match(r"\d+\.png", imagename):  # noqa: PTH113
                continue
            found[int(subfolder)] = metadata, pixels(Path(imagepath))
    assert found == {
        i: ({**row, "prompt": record["text"]}, pixels(job / record["file_name"]))
        for i, (record, row) in enumerate(zip(records, rows, strict=True))
    }
