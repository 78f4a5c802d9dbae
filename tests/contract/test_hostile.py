"""Crafted bundles whose checksums match end, at worst, the process that tries them; the one that asked stays."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from onnx import TensorProto, helper
from tests.contract.hostile import GRAPH, OUTPUT, WIDTH, cases, graph, ints
from tests.contract.sealed import copied, rewrite, seal

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.unsafe_graphs import unsafe_graphs
from nano_runtime.cli import bundle as command
from nano_runtime.engines import installed
from nano_runtime.errors import LoaderDiedError, UnsafeGraphError
from nano_runtime.verify.trial import Limits, trial_fault

LIMITS = Limits(seconds=20, memory_bytes=3 << 30)  # the small bundle needs 2 s and 1 GiB
FEW = {  # refused before, refused by the engine, out of memory
    "functions 3000 deep",
    "information 50,000 deep",
    "weights at an address",
    "constant of 10**12",
    "half of it",
    "half of a tokenizer",
}
CASES = list(cases())
REFUSED = {  # before an engine sees them
    "functions 3000 deep", "function that calls itself", "weights at /etc/passwd", "weights above the bundle",
    "weights in another listed file", "weights at an address", "weights beyond the file", "weights before the file",
    "weights around 2**64", "information 50,000 deep", "bodies 20,000 deep", "entities of 10**12 letters",
    "a constant beyond the file", "a constant around 2**64", "noise", "zeros", "no graph", "a loop without end",
    "3000 branches deep", "100,000 nodes in a row", "bodies 3 deep", "a cycle", "one name, two values", "opset 10**9",
    "an unknown operator", "an unknown domain", "a sparse value far outside", "an unknown type", "an unknown layer",
    "10**12 values, none there", "weights shorter than said", "dimensions that overflow", "negative dimensions",
    "a constant of 10**12", "an edge to nowhere", "an edge around", "a layer twice", "a number that is none",
    "version 999", "half of it", "nothing",
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{backend}-{name}" for backend, name, _ in CASES])
def test_the_parent_survives(case, int8, tmp_path, full):
    backend, name, spoil = case
    if not full and name not in FEW:
        pytest.skip("needs --counts full")
    folder = copied(int8, tmp_path / "bundle")
    spoil(folder)
    bundle = Bundle.open(seal(folder))
    assert list(bundle.faults()) == []  # the checksums say nothing
    refused = list(unsafe_graphs(bundle))
    fault = trial_fault(bundle, backend, LIMITS)
    assert fault is not None, "harmless"
    assert fault.exit_code == 3
    assert fault.what.isprintable()
    if name in REFUSED:
        assert refused
        assert fault.what == refused[0].what
        assert isinstance(refused[0], UnsafeGraphError)


def test_there_are_40_of_them():
    assert len(CASES) >= 40


def test_a_good_bundle_is_good(int8, capsys):
    assert command.main(["verify", str(int8), "--deep"]) == 0
    ran = [backend for backend in ("onnxruntime", "openvino") if installed(backend)]
    said = f"every graph loads and runs on {' and '.join(ran)}" + ("" if len(ran) == 2 else "; not tried: ")
    assert said in capsys.readouterr().out


def test_a_graph_that_fits_only_two_rows_is_an_error(int8, tmp_path):
    """Drawings give the text encoder one row; a trial with two said that every graph loads and runs."""
    folder = copied(int8, tmp_path / "bundle")
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ids", "last"], ["ids3"]),
        helper.make_node("Expand", ["ids3", "two"], [OUTPUT]),
    ]
    model = graph(*nodes, initializers=(ints("last", 2), ints("two", 2, 1, WIDTH)))
    rewrite(folder / GRAPH, model.SerializeToString())
    bundle = Bundle.open(seal(folder))
    assert list(unsafe_graphs(bundle)) == []
    fault = trial_fault(bundle, "onnxruntime", LIMITS)
    assert fault is not None
    assert "text_encoder" in fault.what


def test_what_takes_too_long_is_an_error(int8):
    fault = trial_fault(Bundle.open(int8), "onnxruntime", Limits(seconds=0.2, memory_bytes=3 << 30))
    assert isinstance(fault, LoaderDiedError)
    assert "did not come to an end" in fault.what


def test_a_process_that_dies_becomes_an_error_with_the_signal(int8):
    bundle, killed = Bundle.open(int8), threading.Event()

    def kill() -> None:
        """Abort the first child process, as an engine's failed assertion would."""
        while not (children := Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text()):
            time.sleep(0.05)
        os.kill(int(children.split()[0]), signal.SIGABRT)
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    fault = trial_fault(bundle, "onnxruntime", LIMITS)
    thread.join()
    assert killed.is_set()
    assert isinstance(fault, LoaderDiedError)
    assert "SIGABRT" in fault.what
