"""The folder of a finished job, made by hand: pictures of random pixels, and the records that describe them."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from PIL import Image

__all__ = ["finished_job"]


def finished_job(folder: Path, count: int, **columns: list[Any]) -> list[dict[str, Any]]:
    """Write pictures of 8 x 8 pixels and ``metadata.jsonl``, and return its records.

    Args:
        folder: of the job.
        count: number of pictures.
        columns: further columns; their values are repeated, and None leaves the column out.
    """
    records = []
    for i in range(count):
        file = BytesIO()
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)).save(file, "PNG")
        key = blake3(file.getvalue()).hexdigest()[:32]
        path = folder / "images" / key[:2] / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue())
        record = {
            "file_name": str(path.relative_to(folder)),
            "text": f"a fox, {i}, наволочка",
            "id": f"row.{i}",
            "i": 0,
            "key": key,
        }
        more = {name: values[i % len(values)] for name, values in columns.items()}
        records.append(
            {**record, "seed": 2**63 + i, **{name: value for name, value in more.items() if value is not None}}
        )
    (folder / "metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return records
