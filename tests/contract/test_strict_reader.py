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
from collections.abc import Iterable, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.contract import engine_child
from tests.contract.mutants import changed_ir, changed_onnx
from tests.contract.pieces import Graph, Input, pieces_of

from nano_runtime.bundle.folder import DEMO, Bundle
from nano_runtime.bundle.manifest import Backend

CHUNKS = 10
FULL = 3_400  # graphs in a chunk of each of three kinds: 102,000 in all
FEW, FEW_RUN = 150, 8  # graphs, and how many of them an engine sees
COMPONENTS, FEW_COMPONENTS = (
    ("text_encoder", "unet_prompt", "unet_time", "unet_shallow", "vae_encoder"),
    ("text_encoder",),
)
WHOLE = 100_000, 300_000  # bytes of an ONNX graph and of an IR: those up to this size are given whole, too
CALLS = "open,openat,openat2,connect,execve"
OPENED = re.compile(r'(?:open|openat|openat2|execve)\((?:AT_FDCWD, |\d+, )?"([^"]*)"')
LAYER = re.compile(r'<layer [^>]*type="(\w+)"')
HARMLESS = ("/proc/", "/sys/", "/dev/")


class Child:
    """A process that an engine runs in; a new one takes its place when it ends.

    Args:
        backend: the engine.
        graphs: that it gets changed; those that it does not run as they are, it does not get.
        traces: folder for traces of what it opens; None where nothing can be traced.
    """

    def __init__(self, backend: Backend, graphs: Iterable[Graph], traces: Path | None) -> None:
        self._command = [sys.executable, engine_child.__file__, backend]
        self._traces = traces
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.graphs = [*graphs]
        self._start()

    def ask(self, graph: Graph, raw: bytes) -> str:
        """Return how a graph ended: what the child says, or the name of the signal that it died of."""
        if self._process is None:
            self._start()
        weights = None if graph.weights is None else str(graph.weights)
        return self._exchange([str(graph.model), weights, graph.inputs, len(raw)], raw) or self._death()

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        """Start one, and have it load all graphs as they are: libraries are loaded before anything is changed."""
        command, self._count = self._command, self._count + 1
        if self._traces is not None:
            tracer = ["strace", "-f", "-qq", "--seccomp-bpf", "-s", "300", "-e", f"trace={CALLS}", "-o"]
            command = [*tracer, str(self._traces / f"trace{self._count}"), *command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.graphs = [graph for graph in self.graphs if self.ask(graph, graph.model.read_bytes()) == "ran"]
        assert self._exchange([engine_child.READY, None, [], 0], b"") == engine_child.READY

    def _exchange(self, what: list[object], raw: bytes) -> str:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(what).encode() + b"\n" + raw)
            self._process.stdin.flush()
            return self._process.stdout.readline().decode().strip()
        except BrokenPipeError:
            return ""

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


def opened_after(trace: Path, folder: Path, backend: Backend) -> set[str]:
    """Return the files that were opened after a child was ready, beside the graphs' and the engine's own."""
    lines = trace.read_text(errors="replace").splitlines()
    ready = next((at for at, line in enumerate(lines) if f'"/{engine_child.READY}"' in line), len(lines))
    places = [OPENED.search(line) for line in lines[ready + 1 :]]
    engine = find_spec(backend)
    assert engine is not None
    known = (*HARMLESS, str(folder), str(Path(str(engine.origin)).parent))
    return {place[1] for place in places if place is not None and not place[1].startswith(known)}


def graphs_of(bundle: Path, backend: Backend, folder: Path, components: Iterable[str], *, whole: bool) -> list[Graph]:
    """Return graphs of a bundle in pieces.

    Args:
        bundle: folder.
        backend: whose graphs.
        folder: for copies.
        components: of which.
        whole: whether to return small graphs as a whole, too.
    """
    opened = Bundle.open(bundle)
    found: list[Graph] = []
    for name in components:
        component = opened.manifest.components[name]
        of = component.graphs[backend]
        place = folder / name
        place.mkdir(parents=True)
        model, weights = bundle / of.model, None if of.weights is None else bundle / of.weights
        if weights is not None:
            weights = Path(shutil.copy(weights, place))
        found += pieces_of(model, weights, place)
        if whole and model.stat().st_size < WHOLE[model.suffix == ".xml"]:
            inputs: list[Input] = [(one.name, one.dtype, sizes(one.shape)) for one in component.inputs]
            found.append(Graph(Path(shutil.copy(model, place / f"whole{model.suffix}")), weights, inputs))
    assert all(graph.fault(graph.model.read_bytes()) is None for graph in found)
    return found


def sizes(shape: Sequence[int | str]) -> list[int]:
    """Return a shape with sizes for its free dimensions."""
    return [
        size if isinstance(size, int) else engine_child.ROWS if axis == 0 else engine_child.TOKENS
        for axis, size in enumerate(shape)
    ]


def check(graphs: list[Graph], backend: Backend, seed: int, folder: Path, *, full: bool) -> Counter[str]:
    """Change graphs, give those that the reader passes to an engine, and return how often what came of it.

    Args:
        graphs: to be changed.
        backend: the engine.
        seed: of the changes.
        folder: where the graphs are.
        full: whether to change many.
    """
    count, most = (FULL, FULL) if full else (FEW, FEW_RUN)
    fates, dead, given = Counter[str](), list[str](), 0
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    with closing(Child(backend, graphs, folder if traces() else None)) as process:
        assert len(process.graphs) > 0.8 * len(graphs)
        for _ in range(count):
            graph = chance.choice(process.graphs)
            before = graph.model.read_bytes()
            raw = (changed_ir if graph.model.suffix == ".xml" else changed_onnx)(before, chance)
            fault = graph.fault(raw)
            if raw == before:  # two changes can undo each other
                fates["as before"] += 1
            elif fault is not None:
                assert fault.isprintable()
                fates["refused by the reader"] += 1
            elif given < most:
                given += 1
                fates[said := process.ask(graph, raw)] += 1
                if not said.startswith(("ran", "loading: ", "running: ")):  # it died, or an engine spoke for itself
                    place = graph.model.with_name(f"{len(dead)}-{graph.model.name}")
                    place.write_bytes(raw)
                    dead.append(f"{place} {said}")
    assert 0.2 * count < fates["refused by the reader"] < fates.total()
    assert dead == []
    assert set[str]().union(*(opened_after(trace, folder, backend) for trace in folder.glob("trace*"))) == set()
    return fates


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("kind", ["onnxruntime int8", "openvino int8", "openvino demo"])
def test_what_the_reader_passes_ends_no_engine(kind, chunk, full, tmp_path, request):
    """OpenVINO reads IRs, and in compact bundles ONNX, as the demo is one."""
    backend, bundle = kind.split()
    if chunk > 0 and not full:
        pytest.skip("needs --counts full")
    path = DEMO if bundle == "demo" else request.getfixturevalue(bundle)
    whole = full or backend == "onnxruntime"  # OpenVINO takes 0.25 s to compile the smallest
    graphs = graphs_of(path, backend, tmp_path, COMPONENTS if full else FEW_COMPONENTS, whole=whole)
    fates = check(graphs, backend, chunk, tmp_path, full=full)
    print(kind, chunk, dict(fates))  # noqa: T201 - with -s


def test_pieces_have_all_that_the_graphs_have(int8, tmp_path):
    """Of OpenVINO's layers; pieces of ONNX stop where onnx does not know a type."""
    graphs = graphs_of(int8, "openvino", tmp_path, COMPONENTS, whole=False)
    whole = [int8 / Bundle.open(int8).manifest.components[name].graphs["openvino"].model for name in COMPONENTS]
    in_pieces, in_whole = (
        {kind for path in paths for kind in LAYER.findall(path.read_text())}
        for paths in ([graph.model for graph in graphs], whole)
    )
    assert len(in_whole) > 15
    assert in_whole <= in_pieces
