"""Lists in Parquet, as pyarrow writes them: read in a child process, with the types of their columns.

``make batch-formats`` runs this in an environment that has pyarrow.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nano_runtime import DrawOptions, RowsError, UsageError, read_rows

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: make batch-formats")
parquet = pytest.importorskip("pyarrow.parquet")


def threads() -> int:
    """Number of this process's threads; 0 where the system does not say."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 0


def write(path: Path, **columns: Any) -> Path:
    """Write a table."""
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_rows_have_the_types_of_their_columns(tmp_path):
    path = write(
        tmp_path / "rows.parquet",
        prompt=["a red fox", "an owl"],
        seed=pyarrow.array([2**64 - 1, None], pyarrow.uint64()),
        steps=pyarrow.array([8.0, float("nan")]),  # as pandas has whole numbers with gaps
        cfg=[Decimal("7.5"), None],
        sampler=pyarrow.array(["euler", "euler"]).dictionary_encode(),
        when=[dt.datetime(2026, 11, 28, 18, tzinfo=dt.timezone.utc), None],
        tags=[["x", "y"], []],
        score=[float("inf"), 0.5],
    )
    before = threads()
    fox, owl = read_rows(path, DrawOptions(num_inference_steps=20))
    assert fox.options == DrawOptions(
        prompt="a red fox", seed=2**64 - 1, num_inference_steps=8, guidance_scale=7.5, scheduler="euler"
    )
    assert fox.extra == {"when": "2026-11-28T18:00:00+00:00", "tags": ["x", "y"], "score": None}
    assert owl.options == DrawOptions(prompt="an owl", num_inference_steps=20, scheduler="euler")
    assert (fox.number, owl.number, owl.extra["score"]) == (1, 2, 0.5)
    assert threads() == before  # or the command could not fork


def test_what_is_wrong_is_told_with_its_row(tmp_path):
    path = write(tmp_path / "rows.parquet", prompt=["fox", "owl"], seed=[1.5, 2.0], n=["2", "3"])
    with pytest.raises(RowsError) as caught:
        read_rows(path)
    assert [line.partition(" cannot")[0] for line in caught.value.details] == [
        "row 1, seed: seed 1.5",
        "row 1, n: n '2'",
        "row 2, n: n '3'",
    ]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"text": ["fox"]}, "it has no column prompt, but 'text'"),
        ({"prompt": ["fox"], "pixels": [b"\0"]}, "the column 'pixels' has bytes"),
        ({"prompt": ["fox"], "Prompt": ["owl"]}, "the same as the column 'prompt'"),
        ({"prompt": pyarrow.array([], pyarrow.string())}, "it has no rows"),
    ],
    ids=["no prompt", "bytes", "two names", "no rows"],
)
def test_tables_that_are_no_lists_are_told(tmp_path, columns, told):
    with pytest.raises(UsageError, match=told):
        read_rows(write(tmp_path / "rows.parquet", **columns))


@pytest.mark.parametrize("damage", ["cut", "emptied", "zeroed"])
def test_a_damaged_file_is_told(tmp_path, damage):
    path = write(tmp_path / "rows.parquet", prompt=[f"fox {number}" for number in range(1000)])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    changed = {
        "cut": content[:middle],
        "emptied": content[:4],
        "zeroed": content[:middle] + bytes(200) + content[middle + 200 :],
    }
    path.write_bytes(changed[damage])
    with pytest.raises(UsageError, match=r"it is damaged|sudden end|beyond 64 bits"):
        read_rows(path)


def test_what_pandas_and_datasets_write_is_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    datasets = pytest.importorskip("datasets")
    columns = {"prompt": ["an owl", "a fox"], "seed": [1, 2], "tag": ["x", None]}
    pandas.DataFrame(columns, index=["p", "q"]).to_parquet(tmp_path / "pandas.parquet")
    datasets.Dataset.from_dict(columns).to_parquet(str(tmp_path / "datasets.parquet"))
    for name in ("pandas", "datasets"):
        rows = read_rows(tmp_path / f"{name}.parquet")
        assert [(row.options.prompt, row.options.seed, row.extra["tag"]) for row in rows] == [
            ("an owl", 1, "x"),
            ("a fox", 2, None),
        ]
