"""Shapes of strangers: refused when the bundle is opened, or by what its graphs then say, whatever they are."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.contract.sealed import copied, rewrite

from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.errors import NanoError
from nano_runtime.pipeline import Pipeline

FEW, FULL = 30, 2000
Document = dict[str, Any]


def tensors(document: Document) -> list[Document]:
    return [
        tensor
        for component in document["components"].values()
        for kind in ("inputs", "outputs")
        for tensor in component[kind]
    ]


def one_size(document: Document, chance: random.Random) -> None:
    shape = chance.choice([tensor["shape"] for tensor in tensors(document) if tensor["shape"]])
    index = chance.randrange(len(shape))
    shape[index] = other(shape[index], chance)


def axes(document: Document, chance: random.Random) -> None:
    shape = chance.choice([tensor["shape"] for tensor in tensors(document)])
    kind = chance.randrange(3)
    if kind == 0:
        shape.insert(chance.randrange(len(shape) + 1), chance.choice((1, 2, "batch", "tokens")))
    elif kind == 1 and shape:
        del shape[chance.randrange(len(shape))]
    else:
        chance.shuffle(shape)


def picture(document: Document, chance: random.Random) -> None:
    sizes = document[chance.choice(("latent_shape", "image_size"))]
    index = chance.randrange(len(sizes))
    sizes[index] = other(sizes[index], chance)


def everywhere(document: Document, chance: random.Random) -> None:
    """Put another size in the place of one, wherever it stands: no two shapes contradict each other then."""
    sizes = [tensor["shape"] for tensor in tensors(document)] + [document["latent_shape"], document["image_size"]]
    size = chance.choice([size for shape in sizes for size in shape if isinstance(size, int)])
    new = other(size, chance)
    for shape in sizes:
        shape[:] = [new if found == size else found for found in shape]
    if document["tokenizer"]["length"] == size and isinstance(new, int):
        document["tokenizer"]["length"] = new


def names(document: Document, chance: random.Random) -> None:
    """Exchange the shapes, names or types of two tensors."""
    one, two = chance.sample(tensors(document), 2)
    for key in chance.choice((("shape",), ("name",), ("dtype",), ("shape", "dtype"))):
        one[key], two[key] = two[key], one[key]


def prompt(document: Document, chance: random.Random) -> None:
    key = chance.choice(("length", "pad_id", "bos_id", "eos_id"))
    document["tokenizer"][key] = other(document["tokenizer"][key], chance)


def other(size: int | str, chance: random.Random) -> Any:
    if isinstance(size, str):
        return chance.choice(("batch", "tokens", 1, 2, 77, "x"))
    return chance.choice((size + 1, max(size - 1, 0), size * 2, size // 2, 1, 3, 8, 0, -1, "batch", "tokens"))


CHANGES = (one_size, axes, picture, everywhere, everywhere, names, prompt)


def fate(folder: Path) -> str:
    """Open a bundle and draw with it; anything but an error of ours is raised."""
    try:
        with closing(Pipeline.from_pretrained(folder, "onnxruntime")) as pipe:
            pipe("a fox", num_inference_steps=1, seed=1)
    except NanoError as error:
        found = error
    else:
        return "drawn"
    assert found.exit_code == 3, found
    assert any(name in found.what for name in (str(folder), MANIFEST_NAME, "text_encoder", "unet", "vae")), found
    return type(found).__name__


def test_changed_shapes_are_drawn_with_or_refused(int8, tmp_path, full):
    folder = copied(int8, tmp_path / "bundle")
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    chance, fates = random.Random(21), Counter[str]()  # noqa: S311 - to be repeated, not to be secret
    for _ in range(FULL if full else FEW):
        changed = copy.deepcopy(document)
        for _ in range(chance.choice((1, 1, 2))):
            chance.choice(CHANGES)(changed, chance)
        rewrite(folder / MANIFEST_NAME, json.dumps(changed).encode())
        fates[fate(folder)] += 1
    print(dict(fates))  # noqa: T201 - with -s
    assert fates["ManifestError"] > 0.3 * fates.total()
    assert len(fates) > 1  # some are found later, or are harmless


@pytest.mark.parametrize("change", [*dict.fromkeys(CHANGES)], ids=lambda change: change.__name__)
def test_every_change_changes_something(int8, change):
    document = json.loads((int8 / MANIFEST_NAME).read_bytes())
    chance, before = random.Random(1), json.dumps(document)  # noqa: S311
    for _ in range(10):
        change(document, chance)
    assert json.dumps(document) != before
