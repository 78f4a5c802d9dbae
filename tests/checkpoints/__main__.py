"""Exports kinds and generated checkpoints, and prints what became of each: ``python -m tests.checkpoints --help``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from tests.checkpoints.client import Warm
from tests.checkpoints.outcome import Outcome


def main() -> int:
    """Run the command; its exit code is 1 if anything fell short."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--seeds", metavar="A-B", help="generated checkpoints")
    add("--kinds", metavar="WORD", help="kinds with this word in their names; 'all' is all")
    add("--networks", choices=("pools", "any", "plain"), default="pools", help="of generated checkpoints")
    add("--checks-only", action="store_true", help="end every export after the checks at its start")
    add("--backend", choices=("onnxruntime", "openvino"), help="this engine alone; both by default")
    add("--quick", action="store_true", help="judge by one picture of four steps, and measure no samplers")
    add("--work", type=Path, help="folder of traced and compiled graphs, to keep for the next run of the same exporter")
    add("--processes", type=int, default=1)
    add("--json", type=Path, help="keep the outcomes here, one a line")
    arguments = parser.parse_args()
    waiting: Queue[dict[str, Any]] = Queue()
    for request in _requests(arguments):
        waiting.put(request)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) if arguments.work is None else arguments.work
        workers = [
            threading.Thread(target=_work, args=(waiting, outcomes, work, Path(folder) / f"log{number}", arguments))
            for number in range(arguments.processes)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    _summary(outcomes)
    return 0 if all(outcome.short is None for outcome in outcomes) else 1


def _requests(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = []
    word, seeds = arguments.kinds, arguments.seeds
    if word is not None:
        from tests.checkpoints.kinds import KINDS  # noqa: PLC0415 (imports torch)

        requests += [{"kind": name} for name in KINDS if word in {"all", name} or word in name]
    if seeds is not None:
        first, _, last = seeds.partition("-")
        requests += [
            {"seed": seed, "networks": arguments.networks} for seed in range(int(first), int(last or first) + 1)
        ]
    more: dict[str, Any] = {"checks_only": arguments.checks_only}
    if arguments.backend is not None:
        more["backend"] = arguments.backend
    return [{**request, **more} for request in requests]


def _work(
    waiting: Queue[dict[str, Any]], outcomes: list[Outcome], work: Path, log: Path, arguments: argparse.Namespace
) -> None:
    warm = Warm(work, log, quick=arguments.quick)
    while True:
        try:
            request = waiting.get_nowait()
        except Empty:
            break
        outcome = warm.ask(request)
        outcomes.append(outcome)
        _say(_line(outcome))
        if arguments.json is not None:
            with arguments.json.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
    warm.close()


def _line(outcome: Outcome) -> str:
    """Return one row of the table."""
    far = " ".join(f"{backend} {far:.1e}/{outcome.pictures[backend]:.1e}" for backend, far in outcome.latents.items())
    text = far or _gist(outcome)
    mark = " " if outcome.short is None else "!"
    return f"{mark} {outcome.name:<48} {outcome.result:<11} {outcome.form:<9} {text[:150]}  {outcome.cpu:.1f} s"


def _summary(outcomes: list[Outcome]) -> None:
    """Print how many became what, and the refusals."""
    counts = Counter(f"{outcome.result} {outcome.form}".strip() for outcome in outcomes)
    _say(f"\n{len(outcomes)} checkpoints: " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    drawn = sum(outcome.result in {"drawn", "substituted"} for outcome in outcomes) / max(len(outcomes), 1)
    _say(f"{drawn:.0%} drawn; {sum(outcome.short is not None for outcome in outcomes)} fall short, marked with !")
    messages: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.message:
            messages[f"{outcome.result}: {_gist(outcome)}"].append(outcome.name)
    for message, names in sorted(messages.items(), key=lambda item: -len(item[1])):
        _say(f"{len(names):>4}  {message[:220]}  [{', '.join(names[:6])}]")


def _gist(outcome: Outcome) -> str:
    """Return the line of a message that says most: the last of a traceback, the first of an error."""
    lines = outcome.message.strip().splitlines() or [""]
    return lines[-1 if "Traceback" in outcome.message else 0]


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (this is a program)


if __name__ == "__main__":
    sys.exit(main())
