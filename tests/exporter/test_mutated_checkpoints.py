"""Checkpoints whose configs, indexes and headers somebody changed: loaded, or refused by the file and the key."""

from __future__ import annotations

import copy
import json
import random
import resource
import shutil
import signal
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nano_export.source import builtin
from nano_export.source.checkpoint import open_checkpoint
from nano_runtime.errors import NanoError

FEW, FULL = 30, 2000
SECONDS = 20  # of processor time for one; a good one takes a fifth of a second
MEMORY = 4 << 30  # more than before
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 1 << 31, 1 << 62, 1e308, -0.5, 1e-300, "", "a", "x" * 2000, "/etc/passwd",
    [], {}, [1], [1] * 9, [[1]], ["a", "b"], {"a": 1}, "silu", "float16", "../unet", "UNet2DConditionModel",
)  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "checkpoint"
    builtin.write_checkpoint(builtin.build("tiny"), folder)
    return folder


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All keys and indices; of long tables some."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs)[:60]:
        yield (*path, key)
        yield from places(inner, (*path, key))


def change_json(content: Any, chance: random.Random) -> None:
    *path, key = chance.choice([*places(content)])
    inside = content
    for step in path:
        inside = inside[step]
    kind = chance.randrange(8)
    if kind == 0:
        del inside[key]
    elif kind == 1 and isinstance(inside, dict):
        inside[chance.choice((str(key) + "_", "type", "_class_name", "auto_map"))] = inside.pop(key)
    elif kind == 2 and isinstance(inside[key], int):
        inside[key] = chance.choice((inside[key] + 1, inside[key] * 2, -inside[key], str(inside[key])))
    else:
        inside[key] = copy.deepcopy(chance.choice(VALUES))


def config(folder: Path, chance: random.Random) -> Path:
    """Change values of a config, or its bytes."""
    path = chance.choice(sorted(folder.rglob("*.json")))
    content = json.loads(path.read_bytes())
    for _ in range(chance.choice((1, 1, 2))):
        if content:
            change_json(content, chance)
    raw = json.dumps(content).encode()
    kind = chance.randrange(20)
    if kind == 0:
        raw = raw[: chance.randrange(len(raw))]
    elif kind == 1:
        at = chance.randrange(len(raw))
        raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
    elif kind == 2:
        raw = chance.choice((b"", b"null", b"[]", b"[" * 100_000, b"\xff\xfe", b'{"a": NaN}', b"9" * 5000))
    path.write_bytes(raw)
    return path


def header(folder: Path, chance: random.Random) -> Path:
    """Change the header of weights, its length, or cut the file."""
    path = chance.choice(sorted(folder.rglob("*.safetensors")))
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    told, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    kind = chance.randrange(6)
    if kind < 3:
        change_json(told, chance)
    text = json.dumps(told).encode()
    size = len(text)
    if kind == 3:
        size = chance.choice((0, 1, size - 1, size + 1, 1 << 20, 1 << 40, (1 << 64) - 1))
    elif kind == 4:
        body = body[: chance.randrange(len(body))]
    elif kind == 5:
        text = text[:-1] + chance.choice((b"", b'"', b"}}", b"\xff"))
    path.write_bytes(struct.pack("<Q", size) + text + body)
    return path


def index(folder: Path, chance: random.Random) -> Path:
    """Give weights an index, which names files."""
    path = chance.choice(sorted(folder.rglob("*.safetensors")))
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    shard = path.with_name(path.name.replace(".safetensors", "-00001-of-00001.safetensors"))
    path.rename(shard)
    table: dict[str, Any] = dict.fromkeys(json.loads(raw[8 : 8 + length]), shard.name)
    table.pop("__metadata__", None)
    content: dict[str, Any] = {"metadata": {"total_size": 1}, "weight_map": table}
    odd: list[Any] = [
        "weights.bin",
        "/etc/passwd",
        "../config.json",
        "",
        ".",
        shard.name + "\0",
        "x" * 5000,
        1,
        None,
        [],
    ]
    kind = chance.randrange(4)
    if kind == 0:
        change_json(content, chance)
    elif kind == 1:
        table[chance.choice(sorted(table))] = chance.choice(odd)
    elif kind == 2:
        content["weight_map"] = dict.fromkeys(table, chance.choice(odd))
    else:
        table[chance.choice(("more", ""))] = shard.name
    made = path.with_name(path.name + ".index.json")
    made.write_text(json.dumps(content))
    return made


CHANGES: tuple[Callable[[Path, random.Random], Path], ...] = (config, config, config, header, index)


class Late(BaseException):
    """It took too long; no ``except Exception`` on the way may take it for an error of the checkpoint."""


@contextmanager
def limited() -> Iterator[None]:
    """Limit processor time and memory of what is done inside."""

    def late(*_: object) -> None:
        raise Late(f"more than {SECONDS} s")

    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def test_changed_checkpoints_are_loaded_or_refused(original, tmp_path, full):
    chance, fates = random.Random(21), Counter[str]()  # noqa: S311 - to be repeated, not to be secret
    folder = tmp_path / "checkpoint"
    for _ in range(FULL if full else FEW):
        shutil.copytree(original, folder)
        path = chance.choice(CHANGES)(folder, chance)
        try:
            with limited():
                open_checkpoint(str(folder), None)
        except NanoError as error:
            found: NanoError | None = error
        else:
            found = None
        fates["loaded" if found is None else type(found).__name__] += 1
        if found is not None:
            assert found.exit_code == 2, (path, found)
            assert str(folder) in found.what, (path, found)
        shutil.rmtree(folder)
    print(dict(fates))  # noqa: T201 - with -s
    assert fates["loaded"] > 0.05 * fates.total()
    assert fates["CheckpointError"] > 0.2 * fates.total()
