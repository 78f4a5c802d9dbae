"""A job on a test cluster of this machine, whose rows and processes come to harm as a file says.

    python -m tests.batch.ray.job FOLDER [--cluster]

``FOLDER/plan.json`` says how many nodes there are and what is killed when; ``FOLDER/rows.jsonl`` has the rows, and
``FOLDER/out`` gets the job. Everything but the graphs (see ``tests.batch.toy``) and the harm is the real thing. With
``--cluster`` there is no job: the nodes are there until the standard input ends, and jobs join them whose plan has the
address that ``FOLDER/address`` gets.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.batch.ray.harmed import LACKS, Harmed

from nano_batch import Draw, Wanted
from nano_batch.job import Log
from nano_batch.naming import Naming
from nano_batch.on_ray.drawing import OnRay
from nano_batch.on_ray.rules import Rules
from nano_batch.running import Asked, Voice, run
from nano_batch.shards import Shard
from nano_runtime import DrawOptions, NanoError

STORE_BYTES = 80 << 20


@contextmanager
def cluster(count: int, lacking: int = 0) -> Iterator[Any]:
    """Yield a cluster of nodes with one processor each; the last ones lack the bundle."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - not for `--help`

    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    made = None
    while made is None:
        with suppress(Exception):  # after 30 seconds, on a machine that is busy
            made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        while (started := len(made.list_all_nodes())) < count:
            with suppress(Exception):  # see above
                made.add_node(**node, env_vars={LACKS: "1"} if started >= count - lacking else {})
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


@contextmanager
def taken(made: Any) -> Iterator[None]:
    """Take all processors of a cluster."""
    import ray  # noqa: PLC0415 - see above

    ray.init(address=made.address, log_to_driver=False)
    try:
        holders = [ray.remote(Holder).options(num_cpus=1).remote() for _ in made.list_all_nodes()]
        ray.get([holder.wait.remote() for holder in holders])
        yield
    finally:
        ray.shutdown()  # a cluster does not end under a process that is connected


class Holder:
    """Has a processor."""

    def wait(self) -> None:
        """Answer when it has it."""


def kill(what: str, made: Any, executed: Path) -> None:
    """Kill a process of a cluster, or this one."""
    if what == "driver":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "worker":
        os.kill(json.loads(executed.read_text().splitlines()[-1])["pid"], signal.SIGKILL)
    else:
        node, process = (made.head_node, "gcs_server") if what == "head" else (made.worker_nodes.pop(), "raylet")
        for one in node.all_processes[process]:
            os.kill(one.process.pid, signal.SIGKILL)


def kill_after(count: int, what: str, made: Any, executed: Path) -> None:
    """Kill something when so many pictures have been begun."""
    while len(executed.read_text().splitlines()) < count:
        time.sleep(0.05)
    kill(what, made, executed)


@dataclass
class Watch:
    """An engine, and the seconds from its first answer to its last."""

    engine: OnRay
    first: float | None = None
    seconds: float = 0.0

    def __call__(
        self, draw: Draw, pictures: Sequence[Wanted], log: Log, told: Callable[[list[dict[str, Any]]], None]
    ) -> None:
        """Draw."""

        def timed(records: list[dict[str, Any]]) -> None:
            now = time.monotonic()
            self.first = now if self.first is None else self.first
            self.seconds = now - self.first
            told(records)

        self.engine(draw, pictures, log, timed)


def main(folder: Path) -> int:
    """Run the job, and say in ``outcome.json`` what became of it."""
    plan = json.loads((folder / "plan.json").read_text())
    draw = Harmed(plan["bundle"], folder / "out")
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        print(line, flush=True)  # Ray may end this process

    def drawn(made: Any, address: str | None) -> dict[str, Any]:
        if plan["kill"]:
            words = plan["after"], plan["kill"], made, folder / "executed.jsonl"
            threading.Thread(target=kill_after, args=words, daemon=True).start()
        rules = Rules(**{"address": address, "patience_s": 300.0, **plan["rules"]})
        asked = Asked(
            rows=str(folder / "rows.jsonl"),
            folder=folder / "out",
            defaults=DrawOptions(),
            pictures={},
            given={},
            seed=7,
            naming=Naming("{id}"),
            shard=Shard(0, 1),
            prune=False,
        )
        began, watch = time.monotonic(), Watch(OnRay(rules, say))
        try:
            outcome = run(asked, draw, watch, Voice(lambda _path: None, say))
        except NanoError as error:
            return {"error": type(error).__name__, "what": error.what, "seconds": time.monotonic() - began}
        seconds = time.monotonic() - began
        return {"finished": outcome.finished, "failed": outcome.failed, "seconds": seconds, "drawing": watch.seconds}

    if plan["nodes"] == 0:  # the cluster that the engine starts itself, or one that is there
        outcome = drawn(None, plan["address"])
    else:
        with cluster(plan["nodes"], plan["lacking"]) as made, taken(made) if plan["taken"] else nullcontext():
            outcome = drawn(made, made.address)
    (folder / "outcome.json").write_text(json.dumps({**outcome, "said": said}))
    return 0


def offer(folder: Path) -> int:
    """Keep a cluster until the standard input ends."""
    plan = json.loads((folder / "plan.json").read_text())
    with cluster(plan["nodes"], plan["lacking"]) as made:
        (folder / "address").write_text(made.address)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cluster", action="store_true")
    given = parser.parse_args()
    sys.exit((offer if given.cluster else main)(given.folder))
