"""When memory runs out, fewer pictures are drawn at once; when it does not suffice for one, that is an error."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from tests.results import arrays, run_through

from nano_runtime import Pipeline
from nano_runtime.drawing.events import Progress
from nano_runtime.engines.onnxruntime import OrtSession
from nano_runtime.errors import OutOfMemoryError
from nano_runtime.networks.tokenizer import Tokenizer

STEPS, PICTURES, ROWS_PER_PICTURE = 2, 5, 2  # with guidance, a picture is two rows


def refuse_batches_over(rows: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let onnxruntime fail as it does when an allocation fails, where the batch is too large; return the batches."""
    run, batches = OrtSession.run, []

    def limited(self, feeds):
        if "sample" in feeds and feeds["sample"].shape[0] > rows:
            batches.append(feeds["sample"].shape[0])
            raise MemoryError("Failed to allocate memory for requested buffer of size 1")
        return run(self, feeds)

    monkeypatch.setattr(OrtSession, "run", limited)
    return batches


def draw(bundle, **options):
    pipe = Pipeline.from_pretrained(bundle, "onnxruntime", threads=1)
    return pipe("a red fox", num_inference_steps=STEPS, seed=3, num_images_per_prompt=PICTURES,
                scheduler="ddim", output_type="np", **options)  # fmt: skip


@pytest.mark.parametrize(("pictures_at_once", "refused"), [(2, [6, 6]), (1, [6, 6, 4]), (4, [])])
def test_pictures_are_the_same_drawn_fewer_at_once(fp32, monkeypatch, caplog, pictures_at_once, refused):
    """Five pictures are planned as three and two; the first refusal costs the decoder, the second a picture."""
    expected = draw(fp32)
    batches = refuse_batches_over(pictures_at_once * ROWS_PER_PICTURE, monkeypatch)
    with caplog.at_level(logging.WARNING):
        result = draw(fp32)
    assert batches == refused
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(set(refused))
    assert result.seeds == expected.seeds
    np.testing.assert_allclose(result.images, expected.images, rtol=0, atol=1e-4)  # f32, summed in another order
    assert np.abs(result.images[0] - expected.images[1]).max() > 1e-2  # other pictures do differ


def test_halves_again_until_it_fits(fp32, monkeypatch, caplog):
    batches = refuse_batches_over(ROWS_PER_PICTURE, monkeypatch)
    pipe = Pipeline.from_pretrained(fp32, "onnxruntime", threads=1)
    with caplog.at_level(logging.WARNING):
        calls = [
            (event.call, event.calls)
            for event in pipe.stream("a fox", num_inference_steps=1, seed=0, num_images_per_prompt=4, scheduler="ddim")
            if isinstance(event, Progress)
        ]
    assert batches == [8, 8, 4]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_one_picture_too_many_is_an_error(fp32, monkeypatch):
    refuse_batches_over(1, monkeypatch)
    with pytest.raises(OutOfMemoryError, match="running the unet"):
        draw(fp32)
    monkeypatch.undo()
    draw(fp32)  # and nothing is broken


def test_low_memory_draws_the_same_one_by_one_and_keeps_nothing(fp32):
    expected = draw(fp32)
    pipe = Pipeline.from_pretrained(fp32, "onnxruntime", threads=1, low_memory=True)
    asked: dict[str, Any] = {
        "num_inference_steps": STEPS,
        "seed": 3,
        "num_images_per_prompt": PICTURES,
        "scheduler": "ddim",
    }
    calls, result = run_through(pipe.stream(["a red fox"], output_type="np", **asked))
    np.testing.assert_allclose(arrays(result), expected.images, rtol=0, atol=1e-4)
    assert (
        pipe.plan("a fox", num_inference_steps=STEPS, scheduler="ddim", num_images_per_prompt=PICTURES).unet_calls
        == len(calls)
        == STEPS * PICTURES
    )
    again = pipe(["a red fox"], output_type="np", **asked)  # what was forgotten is made again
    np.testing.assert_array_equal(again.images, result.images)


def test_low_memory_lets_the_prompts_go_before_the_unet_runs(fp32):
    held = {}
    for low in (False, True):
        pipe = Pipeline.from_pretrained(fp32, "onnxruntime", threads=1, low_memory=low)
        stream = pipe.stream("a red fox", num_inference_steps=STEPS, seed=3, scheduler="ddim")
        next(stream)
        gc.collect()
        held[low] = sum(type(one) is Tokenizer for one in gc.get_objects())
        assert isinstance(stream, Generator)
        stream.close()
        pipe.close()
        del pipe, stream
        gc.collect()
    assert held == {False: 1, True: 0}


@pytest.mark.parametrize(("output_type", "expected"), [("pil", True), ("np", False)])
def test_pillow_is_there_before_the_unet_takes_the_memory(fp32, output_type, expected):
    """Where memory ends, a picture was lost after it was drawn: its library could not be mapped any more."""
    program = f"""
import sys
from nano_runtime import Pipeline
pipe = Pipeline.from_pretrained({str(fp32)!r}, "onnxruntime", threads=1)
next(pipe.stream("a red fox", num_inference_steps=2, seed=3, scheduler="ddim", output_type={output_type!r}))
print("PIL._imaging" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(expected)
