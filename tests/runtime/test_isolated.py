"""``isolated=True``: the same pictures, and a process that can be ended, may die, and does not stay."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.results import arrays, run_through

from nano_runtime import BundleError, MachineError, Pipeline, Progress, UsageError
from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.bundle.wiring import BATCH, TOKENS, UNET
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.isolated import graphs_of
from nano_runtime.errors import EngineDiedError, KilledError, TamperedFileError
from nano_runtime.system.landlock import landlock_version
from nano_runtime.system.timing import Stopwatch

ASKED: dict[str, Any] = {"num_inference_steps": 3, "scheduler": "ddim", "output_type": "np", "seed": 5}
LONG: dict[str, Any] = {"num_inference_steps": 900, "num_images_per_prompt": 4, "scheduler": "ddim"}
ENGINES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=ENGINES)
def backend(request) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return Path(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def pipe(backend, cache) -> Iterator[Pipeline]:
    pipe = Pipeline.from_pretrained(backend=backend, threads=1, cache=cache, isolated=True)
    yield pipe
    pipe.close()


def children() -> set[int]:
    """Processes that this one started, in any thread."""
    found = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    return {int(one) for of in found for one in of}


def test_it_draws_what_a_pipeline_of_this_process_draws(pipe, backend, cache):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    here = Pipeline.from_pretrained(backend=backend, threads=1, cache=cache)
    events, result = run_through(pipe.stream("a red fox", **ASKED))
    expected_events, expected = run_through(here.stream("a red fox", **ASKED))
    np.testing.assert_array_equal(arrays(result), arrays(expected))
    for event, wanted in zip(events, expected_events, strict=True):
        np.testing.assert_array_equal(event.latents, wanted.latents)
        assert event.preview()[0].tobytes() == wanted.preview()[0].tobytes()
    assert set(result.timings.run_ms) >= {"unet", "vae_decoder"}
    assert len(result.timings.run_ms["unet"]) == 3
    assert result.parameters == expected.parameters

    def halved(of: Pipeline, step: int, _timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        of.interrupt = step == 1
        return {"latents": tensors["latents"] * 0.5}

    there, expected_latents = (arrays(one("an owl", callback_on_step_end=halved, **ASKED)) for one in (pipe, here))
    np.testing.assert_array_equal(there, expected_latents)
    here.close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    before = signal.set_wakeup_fd(-1)
    assert before == -1
    with pytest.raises(UsageError, match="isolated"):
        here.kill()


def drawing(pipe: Pipeline) -> tuple[threading.Thread, list[BaseException]]:
    """A long drawing in a thread, which has begun, and the error that will end it."""
    errors: list[BaseException] = []
    begun = threading.Event()

    def draw() -> None:
        try:
            for event in pipe.stream("a red fox", **LONG):
                assert isinstance(event, Progress)
                begun.set()
        except (MachineError, BundleError) as error:
            errors.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    assert begun.wait(60)
    return thread, errors


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", ["kill", "crash"])
def test_a_drawing_is_ended_and_the_next_one_draws(pipe, how):
    pipe.close()
    before = children()
    expected = arrays(pipe("a red fox", **ASKED))
    thread, errors = drawing(pipe)
    (child,) = {*children()} - before
    status = Path(f"/proc/{child}/status").read_text()
    assert "\nNoNewPrivs:\t1\n" in status or landlock_version() == 0
    if how == "kill":
        pipe.kill()
    else:
        os.kill(child, signal.SIGSEGV)
    thread.join(10)
    assert [type(error) for error in errors] == [KilledError if how == "kill" else EngineDiedError]
    assert how == "kill" or "SIGSEGV" in str(errors[0])
    np.testing.assert_array_equal(arrays(pipe("a red fox", **ASKED)), expected)
    pipe.close()
    assert children() == before
    pipe.kill()  # which finds nothing to end


def test_a_pipeline_outlives_the_thread_that_made_it(backend, cache):
    made: list[Pipeline] = []

    def make() -> None:
        made.append(Pipeline.from_pretrained(backend=backend, threads=1, cache=cache, isolated=True))
        made[0]("a red fox", **ASKED)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert len(arrays(made[0]("an owl", **ASKED))) == 1
    made[0].close()


def test_its_errors_are_those_of_the_files(tmp_path):
    shutil.copytree(DEMO, tmp_path / "bundle")
    (model,) = (tmp_path / "bundle").glob("unet/model.onnx.data")
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    said = []
    for isolated in (False, True):
        pipe = Pipeline.from_pretrained(tmp_path / "bundle", "onnxruntime", 1, isolated=isolated)
        with pytest.raises(BundleError) as caught:
            pipe("a red fox", **ASKED)
        said.append(str(caught.value))
        pipe.close()
    assert said[0] == said[1]
    assert isinstance(caught.value, BundleError)
    assert TamperedFileError.exit_code == caught.value.exit_code


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("end", ["kill", "exit"])
def test_its_process_does_not_outlive_the_program(end):
    program = f"""
import os, signal
from pathlib import Path
from nano_runtime import Pipeline
pipe = Pipeline.from_pretrained(backend="onnxruntime", threads=1, isolated=True)
next(pipe.stream("a fox", num_inference_steps=2))
print(*(one for path in Path("/proc/self/task").glob("*/children") for one in path.read_text().split()), flush=True)
{"os.kill(os.getpid(), signal.SIGKILL)" if end == "kill" else ""}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == (-signal.SIGKILL if end == "kill" else 0), done.stderr
    (child,) = done.stdout.split()
    for _ in range(500):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.02)
    pytest.fail("it is still there")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_large_inputs_are_sent_again_only_when_they_change():
    """The encoded prompts, which are the same in every call; here all of a group's, and one is changed in its place."""
    bundle, options = Bundle.open(), EngineOptions(threads=1, precision="f32")
    dice = np.random.default_rng(0)
    free: dict[Any, Any] = {BATCH: 8, TOKENS: bundle.manifest.tokenizer.length}
    feeds: dict[str, Any] = {
        spec.name: dice.standard_normal(
            [free[size] if isinstance(size, str) else size for size in spec.shape], np.float32
        )
        for spec in bundle.component(UNET).inputs
    }
    large = max(feeds.values(), key=lambda values: values.nbytes)
    graphs = {isolated: graphs_of(bundle, "onnxruntime", options, isolated=isolated) for isolated in (True, False)}
    calls = {isolated: one.timed(Stopwatch()) for isolated, one in graphs.items()}

    def same() -> int:
        """Compare outputs; return the bytes that were written for them."""
        before = written()
        there = calls[True].run(UNET, feeds, batch=8)
        sent = written() - before
        for name, values in calls[False].run(UNET, feeds, batch=8).items():
            np.testing.assert_array_equal(there[name], values)
        return sent

    first, second = same(), same()
    assert first - second > sum(values.nbytes for values in feeds.values() if values.nbytes >= 1 << 16) * 0.99
    large[0] *= 2
    third = same()
    assert third - second > 0.99 * large.nbytes
    os.kill(next(iter(children())), signal.SIGKILL)  # the next child has nothing yet
    with pytest.raises(EngineDiedError):
        calls[True].run(UNET, feeds, batch=8)
    assert same() > 0.99 * first
    for one in graphs.values():
        one.close()


def written() -> int:
    """Bytes that this process has written."""
    return int(Path("/proc/self/io").read_text().partition("wchar: ")[2].split()[0])
