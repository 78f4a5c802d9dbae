"""What the strict reader passes makes no engine read another file, hang or die, whatever somebody changed in a graph.

Graphs are changed at random. The reader looks at each; what it passes, an engine loads and runs in a child process.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.contract import engine_child
from tests.contract.mutants import changed_ir, changed_onnx

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.bundle.unsafe_ir import fault_of_ir
from nano_runtime.bundle.unsafe_onnx import fault_of_onnx

CHUNKS = 10
FULL = 3_400  # graphs in a chunk of each of three kinds: 102,000 in all
FEW, FEW_RUN = 150, 8  # graphs, and how many of them an engine sees
COMPONENTS, FEW_COMPONENTS = ("text_encoder", "unet_time", "unet_shallow", "vae_encoder"), ("text_encoder", "unet_time")
CALLS = "open,openat,openat2,connect,execve"
OPENED = re.compile(r'(?:open|openat|openat2|execve)\((?:AT_FDCWD, |\d+, )?"([^"]*)"')
HARMLESS = ("/proc/", "/sys/", "/dev/")


class Child:
    """A process that an engine runs in; a new one takes its place when it ends.

    Args:
        folder: of the bundle.
        backend: the engine.
        components: that it gets changed graphs of.
        traces: folder for traces of what it opens; None where nothing can be traced.
    """

    def __init__(self, folder: Path, backend: Backend, components: Iterable[str], traces: Path | None) -> None:
        self._command = [sys.executable, engine_child.__file__, str(folder), backend, *components]
        self._traces = traces
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, component: str, raw: bytes) -> str:
        """Return how a graph ended: what the child says, or the name of the signal that it died of."""
        process = self._process = self._started() if self._process is None else self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([component, len(raw)]).encode() + b"\n" + raw)
            process.stdin.flush()
            said = process.stdout.readline().decode().strip()
        except BrokenPipeError:
            said = ""
        return said or self._death()

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        command, self._count = self._command, self._count + 1
        if self._traces is not None:
            tracer = ["strace", "-f", "-qq", "--seccomp-bpf", "-s", "300", "-e", f"trace={CALLS}", "-o"]
            command = [*tracer, str(self._traces / f"trace{self._count}"), *command]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        assert process.stdout.readline().decode().strip() == engine_child.READY
        return process

    def _death(self) -> str:
        assert self._process is not None
        self._process.communicate()
        code, self._process = self._process.returncode, None
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def traces() -> bool:
    """Whether system calls can be traced here."""
    tool = shutil.which("strace")
    if tool is None:
        return False
    return subprocess.run([tool, "--seccomp-bpf", "-f", "true"], capture_output=True, check=False).returncode == 0


def opened_after(trace: Path, bundle: Path, backend: Backend) -> set[str]:
    """Return the files that were opened after a child was ready, beside the bundle's and the engine's own."""
    lines = trace.read_text(errors="replace").splitlines()
    ready = next((at for at, line in enumerate(lines) if f'"/{engine_child.READY}"' in line), len(lines))
    places = [OPENED.search(line) for line in lines[ready + 1 :]]
    engine = find_spec(backend)
    assert engine is not None
    known = (*HARMLESS, str(bundle), str(Path(str(engine.origin)).parent))
    return {place[1] for place in places if place is not None and not place[1].startswith(known)}


class Source(NamedTuple):
    """A graph that is to be changed."""

    component: str
    raw: bytes
    suffix: str
    weights: str | None
    size: int

    def changed(self, chance: random.Random) -> tuple[bytes, str | None]:
        """Return the graph with changes, and what the strict reader says of it."""
        if self.suffix == ".xml":
            new = changed_ir(self.raw, chance)
            return new, fault_of_ir(new, self.size)
        new = changed_onnx(self.raw, chance)
        return new, fault_of_onnx(new, self.weights, self.size)


def source(bundle: Bundle, component: str, backend: Backend) -> Source:
    graph = bundle.manifest.components[component].graphs[backend]
    path, weights = bundle.path / graph.model, None if graph.weights is None else bundle.path / graph.weights
    name, size = (None, 0) if weights is None else (weights.name, weights.stat().st_size)
    return Source(component, path.read_bytes(), path.suffix, name, size)


def check(folder: Path, backend: Backend, seed: int, *, full: bool) -> None:
    """Change graphs, and give those that the reader passes to an engine.

    Args:
        folder: of a bundle.
        backend: the engine.
        seed: of the changes.
        full: whether to change many.
    """
    count, most, names = (FULL, FULL, COMPONENTS) if full else (FEW, FEW_RUN, FEW_COMPONENTS)
    graphs = [source(Bundle.open(folder), name, backend) for name in names]
    fates, dead = Counter[str](), list[str]()
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    with closing(Child(folder, backend, names, folder.parent if traces() else None)) as process:
        for _ in range(count):
            graph = chance.choice(graphs)
            raw, fault = graph.changed(chance)
            if raw == graph.raw:  # two changes can undo each other
                fates["as before"] += 1
            elif fault is not None:
                assert fault.isprintable()
                fates["refused by the reader"] += 1
            elif fates.total() - fates["refused by the reader"] - fates["as before"] < most:
                fates[said := process.ask(graph.component, raw)] += 1
                if not said.startswith(("ran", "loading: ", "running: ")):  # it died, or an engine spoke for itself
                    place = folder.parent / f"{len(dead)}-{graph.component}{graph.suffix}"
                    place.write_bytes(raw)
                    dead.append(f"{place} {said}")
    print(folder.name, backend, seed, dict(fates))  # noqa: T201 - with -s
    assert 0.3 * count < fates["refused by the reader"] < fates.total()
    assert dead == []
    assert set[str]().union(*(opened_after(trace, folder, backend) for trace in folder.parent.glob("trace*"))) == set()


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_the_reader_passes_ends_no_engine(int8, backend, chunk, full, tmp_path):
    if chunk > 0 and not full:
        pytest.skip("needs --counts full")
    folder = Path(shutil.copytree(int8, tmp_path / "bundle"))
    check(folder, backend, chunk, full=full)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_what_the_reader_passes_as_onnx_does_not_end_openvino(exported, chunk, full, tmp_path):
    if not full:
        pytest.skip("needs --counts full")
    folder = Path(shutil.copytree(exported("compact", "tiny", "--int8", "--compact"), tmp_path / "bundle"))
    check(folder, "openvino", chunk, full=True)
