"""An engine may be given its weights' pages anew at any moment while it loads them: it never wrote into one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from nano_runtime.backends import BACKENDS, ort, ov, pages
from nano_runtime.pipeline import Pipeline

MODULES = {"onnxruntime": ort, "openvino": ov}


def draw(bundle: Path, backend: str) -> np.ndarray:
    """Latents of one step, drawn by a fresh pipeline: float32 [1, 4, 16, 16]."""
    pipe = Pipeline.from_pretrained(bundle, backend, threads=2)
    return pipe("a red fox", seed=1, num_inference_steps=1, output_type="latent").images


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is given back")
@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_given_back_all_the_time_are_the_same_weights(int8, backend, monkeypatch):
    given = []

    @contextmanager
    def counted(file: Path | None) -> Iterator[None]:
        with pages.mapped_once(file):
            yield
        given.append(file)

    monkeypatch.setattr(MODULES[backend], "mapped_once", lambda _: nullcontext())
    kept = draw(int8, backend)
    monkeypatch.setattr(MODULES[backend], "mapped_once", counted)
    monkeypatch.setattr(pages, "_EVERY_S", 0.0001)
    np.testing.assert_array_equal(draw(int8, backend), kept)
    assert any(file is not None and file.parent.name == "unet" for file in given)
