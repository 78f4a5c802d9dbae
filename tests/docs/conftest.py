"""The folder in which the documents' commands run: it has the bundle, the pictures and the models that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from tests.docs.running import copied

from nano_runtime.bundle.folder import DEMO

SIZE = (200, 160)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[None]:
    """Keep the cache folder of whoever runs the tests as it is; a page tells how to delete it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def workshop(tmp_path) -> Callable[[], Path]:
    """Make a folder with everything that the documents name; the demo's bundle stands for all bundles."""

    def make() -> Path:
        copied(DEMO, tmp_path / "nano-int8")
        photo = Image.new("RGB", SIZE, "teal")
        ImageDraw.Draw(photo).ellipse((40, 20, 160, 140), fill="orange")
        photo.save(tmp_path / "photo.jpg")
        mask = Image.new("L", SIZE, "black")
        ImageDraw.Draw(mask).rectangle((60, 40, 140, 120), fill="white")
        mask.save(tmp_path / "mask.png")
        return tmp_path

    return make
