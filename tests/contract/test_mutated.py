"""Damage with right checksums, and damage of single bits, in a bundle that really draws."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.contract.hostile import TOKENIZER
from tests.contract.sealed import copied, rewrite, seal

from nano_runtime.bundle.checksums import fault_of_file
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.bundle.unsafe_onnx import fault_of_onnx
from nano_runtime.errors import DigestError

CHUNKS = 10
FEW, FULL = 12, 60  # drawings in a chunk: 600 in all, with the 2,400 and 600 of tests/runtime/test_mutated.py
FEW_FLIPS, FULL_FLIPS = 100, 1000
DRAWN_FIRST = ("text_encoder", "unet_prompt", "unet_time")  # small and early
MOST_SECONDS = 2  # of processor time until an error; held to in the full counts, so that no slow machine fails a test
# Draws for every list of arguments that comes, and tells the exit code, what was said, and the processor time.
WORKER = """
import contextlib, io, json, sys, time
from nano_runtime.cli import generate
for line in sys.stdin:
    said, began = io.StringIO(), time.process_time()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = generate.main(json.loads(line))
    print(json.dumps([code, said.getvalue(), time.process_time() - began]), flush=True)
"""


@pytest.fixture
def draw(full, tmp_path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Draw in another process, which must live as long as the test; what ends in an error does so soon."""
    slowest = 0.0
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    to, back = process.stdin, process.stdout
    assert to is not None
    assert back is not None

    def run(folder: Path, backend: str) -> tuple[int, str]:
        nonlocal slowest
        argv = ["a fox", f"--bundle={folder}", f"--backend={backend}", "--steps=1", "--no-cache", "-ox.png", "--force"]
        to.write(json.dumps(argv) + "\n")
        to.flush()
        answer = back.readline()
        assert answer, f"the process ended with {process.wait()}"
        code, said, seconds = json.loads(answer)
        slowest = max(slowest, seconds if code != 0 else 0.0)
        return code, said

    yield run
    to.close()
    assert process.wait() == 0
    back.close()
    print(f"{slowest:.2f} s")  # noqa: T201 - with -s
    assert not full or slowest < MOST_SECONDS


def graph_edit(edit: Callable[[onnx.ModelProto], object]) -> Callable[[Path, random.Random], None]:
    """A change of a graph through the onnx package."""

    def change(model: Path, _chance: random.Random) -> None:
        loaded = onnx.load(model, load_external_data=False)
        edit(loaded)
        rewrite(model, loaded.SerializeToString())

    return change


def other_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.BOOL


def other_shape(model: onnx.ModelProto) -> None:
    for _ in range(2):
        model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=3)


def huge(model: onnx.ModelProto) -> None:
    external = [tensor for tensor in model.graph.initializer if tensor.external_data]
    external[0].dims[0] *= 10**6


def truncate(model: Path, chance: random.Random) -> None:
    content = model.read_bytes()
    rewrite(model, content[: chance.randrange(len(content) - 1)])


def cut_weights(model: Path, chance: random.Random) -> None:
    weights = model.with_name("model.onnx.data")
    content = weights.read_bytes()
    rewrite(weights, content[: chance.randrange(len(content) // 2)])


def nan_weights(model: Path, _chance: random.Random) -> None:
    weights = model.with_name("model.onnx.data")
    rewrite(weights, b"\xff" * weights.stat().st_size)


def swap(model: Path, _chance: random.Random) -> None:
    vae = model.parents[1] / "vae_decoder"
    for name in ("model.onnx", "model.onnx.data"):
        rewrite(model.with_name(name), (vae / name).read_bytes())


def garbage_behind(model: Path, _chance: random.Random) -> None:
    rewrite(model, model.read_bytes() + b"\xff" * 20)


KINDS = {
    "type": graph_edit(other_type),
    "shape": graph_edit(other_shape),
    "opset": graph_edit(lambda model: setattr(model.opset_import[0], "version", 10**6)),
    "operator": graph_edit(lambda model: setattr(model.graph.node[0], "op_type", "Nothing")),
    "no nodes": graph_edit(lambda model: model.graph.ClearField("node")),
    "other output": graph_edit(lambda model: setattr(model.graph.output[0], "name", "nobody")),
    "huge": graph_edit(huge),
    "truncated": truncate,
    "weights cut": cut_weights,
    "not a number": nan_weights,
    "swapped": swap,
    "garbage behind": garbage_behind,
}


def test_it_draws_when_nothing_is_changed(int8, draw, tmp_path):
    code, said = draw(seal(copied(int8, tmp_path / "bundle")), "onnxruntime")
    assert code == 0, said


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_sealed_damage_is_an_error_that_names_the_part(int8, chunk, full, draw, tmp_path):
    if chunk > 0 and not full:
        pytest.skip("needs --counts full")
    chance = random.Random(chunk)  # noqa: S311 - to be repeated, not to be secret
    kinds = list(KINDS.items())
    for index in range(FULL if full else FEW):
        folder = copied(int8, tmp_path / "bundle")
        name, change = kinds[index % len(kinds)]
        part = chance.choice(DRAWN_FIRST)
        change(folder / part / "model.onnx", chance)
        code, said = draw(seal(folder), "onnxruntime")
        assert code == 3, (name, part, said)
        assert part in said, (name, part, said)
        assert "Traceback" not in said
        shutil.rmtree(folder)


def document_edits() -> dict[str, Callable[[dict[str, Any]], object]]:
    """Changes of the manifest that no rule of the manifest can see."""

    def tensor(kind: str, **changes: object) -> Callable[[dict[str, Any]], object]:
        return lambda document: document["components"]["text_encoder"][kind][0].update(changes)

    return {
        "output shape": tensor("outputs", shape=["batch", 1]),
        "output name": tensor("outputs", name="x"),
        "output type": tensor("outputs", dtype="int64"),
        "input name": tensor("inputs", name="x"),
        "a token beyond": lambda document: document["tokenizer"].update(pad_id=10**6),
    }


@pytest.mark.parametrize("name", document_edits())
def test_a_manifest_that_describes_another_graph_is_an_error(int8, draw, tmp_path, name):
    code, said = draw(seal(copied(int8, tmp_path / "bundle"), document_edits()[name]), "onnxruntime")
    assert code == 3, said
    assert "text_encoder" in said


@pytest.mark.parametrize("name", [name for name in TOKENIZER if not name.startswith("a prompt of")])
def test_a_broken_tokenizer_is_an_error(int8, draw, tmp_path, name):
    folder = copied(int8, tmp_path / "bundle")
    path = folder / "tokenizer" / "tokenizer.json"
    rewrite(path, TOKENIZER[name](path.read_bytes()))
    code, said = draw(seal(folder), "onnxruntime")
    assert code == 3, said
    assert "Traceback" not in said


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_flipped_bit_is_noticed(int8, chunk, full, tmp_path):
    if chunk > 0 and not full:
        pytest.skip("needs --counts full")
    chance = random.Random(chunk)  # noqa: S311
    folder = Path(shutil.copytree(int8, tmp_path / "bundle"))
    bundle = Bundle.open(folder)
    paths = [*(entry.path for entry in bundle.manifest.files), MANIFEST_NAME]
    sizes = [(folder / path).stat().st_size for path in paths]
    for name in chance.choices(paths, sizes, k=FULL_FLIPS if full else FEW_FLIPS):
        path = folder / name
        with path.open("r+b") as file:
            at, mask = chance.randrange(path.stat().st_size), 1 << chance.randrange(8)
            file.seek(at)
            (before,) = file.read(1)
            file.seek(at)
            file.write(bytes([before ^ mask]))
            file.flush()
            if name == MANIFEST_NAME:
                with pytest.raises(DigestError):
                    Bundle.open(folder, bundle.digest)
            else:
                assert fault_of_file(folder, bundle.entry(name)) is not None
            file.seek(at)
            file.write(bytes([before]))
    assert list(bundle.faults()) == []


def test_the_look_into_graphs_sees_the_tensors_that_onnx_sees(int8):
    """Reference: the onnx package's list. Control: with the weights one byte shorter, the last tensor is outside."""
    for path in int8.rglob("model.onnx"):
        tensors = onnx.load(path, load_external_data=False).graph.initializer
        places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors]
        end = max(int(place.get("offset", 0)) + int(place["length"]) for place in places if place)
        assert fault_of_onnx(path.read_bytes(), "model.onnx.data", end) is None
        assert f"ends at byte {end}" in str(fault_of_onnx(path.read_bytes(), "model.onnx.data", end - 1))
