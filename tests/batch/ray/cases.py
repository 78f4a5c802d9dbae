"""What may happen to a job on a cluster. In every case all good rows are there, whole and once, and bad ones named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tests.batch.toy import lines, write_rows
from tests.runtime.fakes import make_bundle

from nano_batch.job import Job
from nano_runtime import Bundle

__all__ = ["CASES", "Case"]

WORDS = ("red", "blue", "fox", "owl", "sea", "one", "two")
COUNT = 40
THRESHOLD = "RAY_memory_usage_threshold"  # above which Ray ends processes; a share of this machine


@dataclass(frozen=True)
class Case:
    """Where a case works.

    Attributes:
        folder: empty.
        python: with ray.
        root: of the repository.
        longest_s: that a job may take.
    """

    folder: Path
    python: Path
    root: Path
    longest_s: float

    @property
    def out(self) -> Path:
        """Folder of the job."""
        return self.folder / "out"

    def prepare(self, count: int = COUNT, harm: Mapping[str, str] | None = None, **plan: Any) -> None:
        """Write rows and plan."""
        row = {"steps": 4, "guidance_scale": 1.0}
        write_rows(
            self.folder / "rows.jsonl",
            [{"id": f"r{i}", "prompt": f"a {WORDS[i % 7]} {WORDS[i // 7 % 7]} {i}", **row} for i in range(count)],
        )
        bundle = make_bundle(self.folder / "toy").path if plan.get("toy", True) else Bundle.open().path
        defaults: dict[str, Any] = {
            "nodes": 3,
            "lacking": 0,
            "toy": True,
            "seconds": 0.1,
            "kill": None,
            "after": 12,
            "rules": {},
            "idle": False,
            "taken": False,
            "address": None,
        }
        plan = {"bundle": str(bundle), "harm": dict(harm or {}), **defaults, **plan}
        (self.folder / "plan.json").write_text(json.dumps(plan))
        (self.folder / "executed.jsonl").touch()

    def change(self, **plan: Any) -> None:
        """Change parts of the plan."""
        before = json.loads((self.folder / "plan.json").read_text())
        (self.folder / "plan.json").write_text(json.dumps({**before, **plan}))

    def start(self, *before: str, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start the job in a process of its own; ``before`` stands in front of the command."""
        command = [*before, str(self.python), "-m", "tests.batch.ray.job", str(self.folder), *options]
        with (self.folder / "output.txt").open("ab") as file:
            return subprocess.Popen(
                command, cwd=self.root, stdin=subprocess.PIPE, stdout=file, stderr=file, env=self.environment()
            )

    @contextmanager
    def cluster(self) -> Iterator[None]:
        """Have jobs join a cluster of the planned nodes, which a process of its own keeps."""
        keeper, address = self.start(options=["--cluster"]), self.folder / "address"
        try:
            while not address.exists():
                assert keeper.poll() is None, "no cluster came up"
                time.sleep(0.2)
            self.change(nodes=0, address=address.read_text())
            yield
        finally:
            keeper.communicate(timeout=self.longest_s)

    def environment(self) -> dict[str, str]:
        """Return the variables of its processes."""
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.root)}

    def run(self, *before: str, error: str | None = None) -> dict[str, Any]:
        """Run the job to its end, which is this error if one is given; return what it said."""
        path = self.folder / "outcome.json"
        path.unlink(missing_ok=True)
        with self._kept():
            code = self.start(*before).wait(self.longest_s)
        assert path.exists(), f"the job ended with {code}"
        outcome: dict[str, Any] = json.loads(path.read_text())
        assert outcome.get("error") == error, outcome
        return outcome

    def run_until_killed(self) -> int:
        """Run the job until kill -9 ends it; return how many pictures are there."""
        with self._kept():
            assert self.start().wait(self.longest_s) == -signal.SIGKILL
        return len(self._times())

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Check that no picture is written again that is there."""
        before = self._times()
        yield
        after = self._times()
        assert after == {**after, **before}, "a picture that was finished was written again"

    def _times(self) -> dict[str, int]:
        """Return the time of change of each picture."""
        return {path.name: path.stat().st_mtime_ns for path in (self.out / "images").glob("*.png")}

    def check(self, bad: Mapping[str, str] | None = None, count: int = COUNT) -> str:
        """Check that all good rows are there, whole and once, and that bad ones are named with these errors."""
        good = {f"r{i}" for i in range(count)} - set(bad or {})
        paths = list((self.out / "images").iterdir())
        assert {path.stem for path in paths} == good
        assert {path.suffix for path in paths} == {".png"}
        for path in paths:
            with Image.open(path) as image:
                image.load()
        told = [line["id"] for line in lines(self.out / "metadata.jsonl")]
        assert told == [row["id"] for row in lines(self.folder / "rows.jsonl") if row["id"] in good]
        errors = lines(self.out / "errors.jsonl") if bad else []
        found = {line["id"]: line["error"] for line in errors}
        assert set(found) == set(bad or {})
        assert all(part in found[row] for row, part in (bad or {}).items()), found
        job = Job.read(self.out)
        assert job is not None
        entries = job.entries()
        assert len(job.finished(entries)) == len(good)
        assert {len(entry.done) for entry in entries.values()} <= {0, 1}
        times = self.executed()
        return f"{len(good)} of {count} rows, {sum(times.values()) - count} drawings more than rows"

    def executed(self) -> Counter[str]:
        """Return how often each row was begun."""
        return Counter(line["row"] for line in lines(self.folder / "executed.jsonl"))


def plain(case: Case) -> str:
    """Nothing happens; the second run starts no cluster."""
    case.prepare()
    outcome = case.run()
    assert case.executed() == Counter({f"r{i}": 1 for i in range(COUNT)})
    said = case.check()
    case.change(nodes=0)
    began = time.monotonic()
    case.run()
    return f"{said}; {outcome['seconds']:.0f} s; a second run {time.monotonic() - began:.1f} s"


def bytes_are_equal(case: Case) -> str:
    """Three nodes and one process draw the same bytes with the real engine."""
    case.prepare(24, toy=False, seconds=0.0)
    case.run()
    case.check(count=24)
    alone = case.folder / "alone"
    command = [str(case.python), "-m", "nano_batch.cli", str(case.folder / "rows.jsonl"), "-o", str(alone)]
    subprocess.run([*command, "--seed", "7", "--name", "{id}"], check=True, capture_output=True, cwd=case.root)
    files = sorted((alone / "images").iterdir())
    assert len(files) == 24
    for path in files:
        assert (case.out / "images" / path.name).read_bytes() == path.read_bytes(), path.name
    return "24 files are equal to the byte"


def a_row_raises(case: Case) -> str:
    """It fails alone."""
    case.prepare(harm={"r17": "raise"})
    case.run()
    return case.check({"r17": "this row raises"})


def a_row_ends_its_process(case: Case) -> str:
    """It costs three tries and itself."""
    case.prepare(harm={"r17": "end"})
    case.run()
    said = case.check({"r17": "ended its process 3 times"})
    times = case.executed()
    assert times["r17"] == 3
    assert max(times[f"r{i}"] for i in range(COUNT) if i != 17) <= 2
    return said


def a_row_takes_all_memory(case: Case) -> str:
    """Ray's watch over memory, or the system's, ends its process."""
    total, free = (_memory_kib(name) for name in ("MemTotal", "MemAvailable"))
    os.environ[THRESHOLD] = f"{1 - (free - 3e6) / total:.3f}"
    try:
        case.prepare(harm={"r17": "hog"})
        case.run()
    finally:
        del os.environ[THRESHOLD]
    return case.check({"r17": "3 times"})


def a_row_never_ends(case: Case) -> str:
    """Its process is ended when patience is."""
    case.prepare(harm={"r17": "sleep"}, rules={"patience_s": 40.0})
    case.run()
    return case.check({"r17": "did not come back within 40 seconds 3 times"})


def a_worker_is_killed(case: Case) -> str:
    """The others go on."""
    case.prepare(kill="worker", seconds=0.5)
    case.run()
    return case.check()


def a_node_is_killed(case: Case) -> str:
    """The others go on; Ray takes some 20 seconds to notice, and its process draws until then."""
    case.prepare(kill="node", seconds=4.0)
    outcome = case.run()
    assert any("is gone" in line for line in outcome["said"]), outcome
    return case.check()


def the_driver_is_killed(case: Case) -> str:
    """Run again on the same cluster, it goes on; nothing that was finished is drawn again."""
    case.prepare(kill="driver", seconds=0.3)
    there: list[int] = []
    with case.cluster():
        for more in (1, 10, 20, 20):
            case.change(after=more + case.executed().total())
            there.append(case.run_until_killed())
        case.change(kill=None)
        case.run()
    assert there[-1] > 0
    return f"{case.check()}; {', '.join(map(str, there))} were there after the kills"


def the_driver_and_its_cluster_are_killed(case: Case) -> str:
    """The driver's end is that of the nodes, which are its children; the rest as above."""
    case.prepare(kill="driver", after=20, seconds=0.5)
    there = case.run_until_killed()
    case.change(kill=None)
    case.run()
    assert there > 0
    return f"{case.check()}; {there} were there after the kill"


def two_drivers_share_a_folder(case: Case) -> str:
    """The second is refused, the first goes on."""
    case.prepare(nodes=0, seconds=0.3)
    first = case.start()
    while not case.executed():
        time.sleep(0.2)
        assert first.poll() is None
    case.run(error="BusyFolderError")
    assert first.wait(case.longest_s) == 0
    assert case.executed() == Counter({f"r{i}": 1 for i in range(COUNT)})
    return case.check()


def little_shared_memory(case: Case) -> str:
    """64 MB, as containers of Docker have."""
    case.prepare(nodes=0)
    script = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    case.run("unshare", "--mount", "sh", "-c", script, "sh")
    return case.check()


def a_node_lacks_the_bundle(case: Case) -> str:
    """It is named, and the others draw."""
    case.prepare(lacking=1)
    outcome = case.run()
    assert [line for line in outcome["said"] if "does not draw" in line and "nowhere" in line], outcome
    return case.check()


def no_node_can_draw(case: Case) -> str:
    """The job ends, and says why of each."""
    case.prepare(nodes=2, rules={"cpus": 8})
    outcome = case.run(error="NoNodeError")
    assert outcome["what"].count("--ray-cpus asks for 8 processors, and it has 1") == 2
    return outcome["what"]


def the_processors_are_taken(case: Case) -> str:
    """Others have them: the job says that it waits, and ends when patience does."""
    case.prepare(taken=True, rules={"patience_s": 45.0})
    outcome = case.run(error="StalledError")
    assert any("waiting for the cluster" in line for line in outcome["said"]), outcome
    return outcome["what"]


def the_head_is_killed(case: Case) -> str:
    """The other nodes draw what they can; the job ends, in some way, and goes on when it is run again."""
    case.prepare(80, kill="head", after=8, seconds=4.0)
    began = time.monotonic()
    code = case.start().wait(case.longest_s)
    seconds = time.monotonic() - began
    output = (case.folder / "output.txt").read_text()
    assert "the head node of the cluster does not answer" in output
    there = len(list((case.out / "images").iterdir()))
    case.change(kill=None, seconds=0.0)
    case.run()
    return f"{case.check(count=80)}; the first run ended after {seconds:.0f} s with {code}, {there} were there"


def a_tenth_of_5000_is_killed(case: Case) -> str:
    """A row in every tenth unit of four kills its process the first time: none is lost, none is there twice."""
    count = 5000
    case.prepare(count, harm={f"r{i}": "kill once" for i in range(0, count, 40)}, seconds=0.0)
    outcome = case.run()
    assert outcome["failed"] == 0
    return f"{case.check(count=count)}; {outcome['seconds']:.0f} s"


def one_node_and_two(case: Case) -> str:
    """Pictures a minute of the demo with one and two nodes of one processor; on two idle cores, nearly twice."""
    rates = []
    for nodes in (1, 2):
        part = Case(case.folder / str(nodes), case.python, case.root, case.longest_s)
        part.folder.mkdir()
        part.prepare(240, toy=False, seconds=0.0, nodes=nodes)
        part.run()
        part.check(count=240)
        times = sorted(path.stat().st_mtime for path in (part.out / "images").iterdir())
        rates.append(60 * 160 / (times[-40] - times[39]))  # without start and end
    return f"{rates[0]:.0f} and {rates[1]:.0f} pictures a minute, {rates[1] / rates[0]:.2f} times"


def rows_a_second_of_the_driver(case: Case) -> str:
    """Nothing is drawn: how many pictures a second the driver gives out, logs and counts, with three processes."""
    count = 20000
    case.prepare(count, idle=True, seconds=0.0)
    outcome = case.run()
    assert outcome["finished"] == 0  # no file is there, so none is believed
    size = (case.out / "log" / "local.jsonl").stat().st_size
    return f"{count / outcome['drawing']:.0f} pictures a second, {size / count:.0f} bytes of log each"


def _memory_kib(name: str) -> float:
    """Read a line of the system's account of memory."""
    found = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith(f"{name}:"))
    return float(found.split()[1])


CASES: list[Callable[[Case], str]] = [
    plain,
    bytes_are_equal,
    a_row_raises,
    a_row_ends_its_process,
    a_row_takes_all_memory,
    a_row_never_ends,
    a_worker_is_killed,
    a_node_is_killed,
    the_driver_is_killed,
    the_driver_and_its_cluster_are_killed,
    two_drivers_share_a_folder,
    little_shared_memory,
    a_node_lacks_the_bundle,
    no_node_can_draw,
    the_processors_are_taken,
    the_head_is_killed,
    a_tenth_of_5000_is_killed,
    one_node_and_two,
    rows_a_second_of_the_driver,
]
