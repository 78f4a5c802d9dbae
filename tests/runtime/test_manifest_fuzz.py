"""Whatever stands in a manifest, reading it raises nothing but the one error, quickly."""

from __future__ import annotations

import json
import random
import string
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.bundle.reading import parse_manifest
from nano_runtime.bundle.safe_paths import collision, fault_of_name
from nano_runtime.errors import BundleError, ManifestError, UnsupportedScheduleError
from nano_runtime.sampling.samplers import own_sampler
from nano_runtime.sampling.schedule import Schedule

CHUNKS = 10
FEW, FULL = 200, 10_000  # of each kind in a chunk: 200,000 in all
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1 << 31, (1 << 53) + 1, 1 << 63, 1 << 64, -(1 << 63), 0.0, -0.0, 1e308, -1e-308, "",
    "batch", "\0", "\x1b[31m", "\u202e", "../x", "a" * 5000, "é", "unet", [], {}, [[]],
    {"": None}, [1, 2, 3], "inf",
]  # fmt: skip
SPLICES = [
    b"", b'"a":1,', b"NaN", b"-Infinity", b"1e999", b"[" * 5000, b'{"a":' * 40, b"9" * 5000, b"\\ud800", b"\xff",
    b"\xef\xbb\xbf", b"\\u0000", b"0" * 30, b"1" + b"0" * 25,
]  # fmt: skip
PIECES = [
    *string.printable,
    "..",
    "/",
    "//",
    "\\",
    "con",
    ".onnx",
    "model",
    "\u0301",
    "\u202e",
    "\ud800",
    "ß",
    "İ",
    "ﬀ",
    "\0",
]


def slots(document: Any) -> list[tuple[Any, Any]]:
    """All (container, key) of a document: objects with their names, lists with their places."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    for container in waiting:
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                waiting.append(container[key])
    return found


def change_tree(raw: bytes, chance: random.Random) -> bytes:
    """Replace, remove, rename, double or swap values."""
    document = json.loads(raw)
    for _ in range(chance.choice((1, 1, 2, 5))):
        container, key = chance.choice(slots(document))
        other, elsewhere = chance.choice(slots(document))
        kind = chance.randrange(5)
        if kind == 0:
            container[key] = chance.choice(NASTY)
        elif kind == 1:
            del container[key]
        elif kind == 2:
            container[key] = json.loads(json.dumps(other[elsewhere]))
        elif kind == 3 and isinstance(container, dict):
            container[chance.choice(["", "x", key + "s", "batch", "\ud800"])] = container.pop(key)
        elif isinstance(container[key], list):
            container[key] *= chance.choice((2, 100))
        if not document:
            break
    return json.dumps(document, allow_nan=True).encode()


def change_bytes(raw: bytes, chance: random.Random) -> bytes:
    """Cut, double, flip or splice bytes."""
    for _ in range(chance.choice((1, 2, 8))):
        at, until = sorted(chance.randrange(len(raw) + 1) for _ in range(2))
        until = min(until, at + chance.choice((1, 3, 40)))
        put = chance.choice((raw[at:until] * 2, bytes([chance.randrange(256)]), *SPLICES))
        raw = raw[:at] + put + raw[until:]
    return raw


def read(raw: bytes) -> bool:
    """Read a manifest as an open bundle does; return whether it was accepted."""
    try:
        manifest = parse_manifest(raw, Path("m"))
        Schedule.from_config(manifest.scheduler)
        own_sampler(manifest.scheduler)
    except (ManifestError, UnsupportedScheduleError) as caught:
        error = caught
    else:
        return True
    assert isinstance(error, BundleError)
    assert all(unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for letter in error.what)
    assert len(error.what) < 2000
    return False


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_generated_manifests_raise_the_one_error(folder, chunk, full):
    if chunk > 0 and not full:
        pytest.skip("needs --counts full")
    raw = (folder / MANIFEST_NAME).read_bytes()
    chance = random.Random(chunk)  # noqa: S311 - to be repeated, not to be secret
    assert read(raw)
    accepted = 0
    for index in range(FULL if full else FEW):
        mutated = (change_tree if index % 2 else change_bytes)(raw, chance)
        accepted += read(mutated)
    assert 0 < accepted < (FULL if full else FEW) / 2  # most are refused; a comment in the wrong place is not


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_generated_names_are_judged(chunk, full):
    if chunk > 0 and not full:
        pytest.skip("needs --counts full")
    chance = random.Random(chunk)  # noqa: S311 - to be repeated, not to be secret
    base = Path("/somewhere/bundle")
    accepted = []
    for _ in range(FULL if full else FEW):
        name = "".join(chance.choices(PIECES, k=chance.randrange(8)))
        if fault_of_name(name) is None:
            assert base in (base / name).parents
            assert ".." not in name.split("/")
            accepted.append(name)
    assert accepted
    collision(accepted)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"name": "noise"', b'"name": "noise", "name": "other"', "twice"),
        (b'"scheduler": {', b'"scheduler": {"a": 1, "a": 2,', "twice"),
        (b"41.5", b"NaN", "NaN"),
        (b"41.5", b"-Infinity", "Infinity"),
        (b"41.5", b"1e999", "double"),
        (b'"options": {}', b'"options": {"x": 18446744073709551616}', "64 bits"),
        (b'"options": {}', b'"options": {"x": ' + b"[" * 40 + b"]" * 40 + b"}", "levels"),
        (b'"options": {}', b'"options": {"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "levels"),
        (b'"options": {}', b'"options": {"x": "\\u001b[2J"}', "U\\+001B"),
        (b'"options": {}', b'"options": {"\\ud800": 1}', "U\\+D800"),
        (b"0.18215", b"0", "0.0"),
        (b"0.18215", b"-1", "0.0"),
        (b'"length": 77', b'"length": 1000000', "10000"),
        (b'"length": 77', b'"length": 76', "shape"),
        (b'"revision": "00', b'"revision": "\xff', "utf-8"),
        (b'"float32"', b'"float16"', "float16"),
        (b'"_class_name"', b'"_use_default_values": 5, "_class_name"', "_use_default_values"),
    ],
)
def test_a_manifest_that_means_two_things_is_refused(folder, old, new, why):
    raw = (folder / MANIFEST_NAME).read_bytes()
    assert old in raw
    with pytest.raises(BundleError, match=why):
        Schedule.from_config(parse_manifest(raw.replace(old, new, 1), Path("m")).scheduler)


@pytest.mark.parametrize(
    ("backend", "key", "value"),
    [
        ("openvino", "weights", None),
        ("openvino", "weights", "unet/model.onnx"),
        ("openvino", "model", "LICENSE"),
        ("onnxruntime", "model", "unet/openvino_model.xml"),
        ("onnxruntime", "weights", "LICENSE"),
    ],
)
def test_weights_lie_where_the_engine_looks(folder, backend, key, value):
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    document["components"]["unet"]["graphs"][backend][key] = value
    with pytest.raises(ManifestError, match="unet"):
        parse_manifest(json.dumps(document).encode(), Path("m"))
