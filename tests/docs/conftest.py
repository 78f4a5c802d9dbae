"""The folder in which the documents' commands run: it has the bundle, the pictures and the models that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from tests.docs.running import copied

from nano_export.source import builtin
from nano_runtime.bundle.folder import DEMO

SIZE = (200, 160)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """Keep the cache folder of whoever runs the tests as it is; a page tells how to delete it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def fine_tune(tmp_path_factory) -> Path:
    """A diffusers folder, for the commands that export somebody's own model."""
    folder = tmp_path_factory.mktemp("checkpoint") / "my-fine-tune"
    builtin.write_checkpoint(builtin.build("tiny"), folder)
    return folder


@pytest.fixture
def workshop(tmp_path, fine_tune) -> Callable[[], Path]:
    """Make a folder with everything that the documents name; the demo's bundle stands for all bundles."""

    def make() -> Path:
        copied(DEMO, tmp_path / "nano-int8")
        (tmp_path / "my-fine-tune").symlink_to(fine_tune)
        photo = Image.new("RGB", SIZE, "teal")
        ImageDraw.Draw(photo).ellipse((40, 20, 160, 140), fill="orange")
        photo.save(tmp_path / "photo.jpg")
        mask = Image.new("L", SIZE, "black")
        ImageDraw.Draw(mask).rectangle((60, 40, 140, 120), fill="white")
        mask.save(tmp_path / "mask.png")
        return tmp_path

    return make
