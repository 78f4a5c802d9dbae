"""Exports checkpoints in children of one process that has imported torch, diffusers and the exporter: ``python -m``.

It reads requests, one JSON object a line: ``{"kind": NAME}`` or ``{"seed": NUMBER, "networks": WHICH}``, with
``"checks_only"`` if the export shall end after its checks, and ``"backend"`` for one engine alone. It forks a child for
each, and answers with one line, an ``Outcome``. A fork copies all that was imported, so a child begins at once; and
what a child breaks or leaves behind ends with it.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"}

import torch
from tests.checkpoints import generated, kinds
from tests.checkpoints.comparison import compare
from tests.checkpoints.given import Given
from tests.checkpoints.outcome import Outcome
from tests.kept_work import COMPILED, keep_work
from tests.torch_operators import share_operators

from nano_export import exporting as _exporting
from nano_export.options import Options
from nano_export.progress import STAGES
from nano_runtime.bundle.manifest import Default
from nano_runtime.errors import NanoError
from nano_runtime.sampling.samplers import make_sampler
from nano_runtime.sampling.schedule import Schedule

exporting: Any = _exporting
_FORK = multiprocessing.get_context("fork")
_SECONDS = 300
"""Of a processor, for one checkpoint: a busy machine is no fault of the exporter. Of the clock, ten times as many."""
_SAID = ("takes its place and draws other pictures", "--graph standard cuts them")
"""Of warnings that a picture will be another one: with another sampler, or with timesteps that were cut."""


_compiled: Path | None = None


def main() -> None:
    """Serve requests until the input ends."""
    global _compiled  # noqa: PLW0603
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the exporter judges by one picture of four steps, and measures no samplers",
    )
    parser.add_argument("--work", type=Path, help="folder of traced and compiled graphs; none makes each anew")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    share_operators()
    if arguments.work is not None:
        keep_work(arguments.work)
        _compiled = arguments.work / COMPILED
    if arguments.quick:
        _hurry()
    print("ready", flush=True)  # noqa: T201 (this is a program)
    for line in sys.stdin:
        print(json.dumps(asdict(_in_child(json.loads(line)))), flush=True)  # noqa: T201


def _hurry() -> None:
    """Have the exporter judge by one short picture, and choose a default sampler without measuring."""
    prompts_for = exporting.prompts_for
    quick = {
        "JUDGE_STEPS": 4,  # the least that every sampler takes
        "prompts_for": lambda card: replace(prompts_for(card), judge=prompts_for(card).judge[:1]),
        "choose_default": lambda pipeline, _: iter([(1.0, _default(pipeline.bundle.manifest.scheduler))]),
        "choose_presets": lambda *_: iter([(1.0, {})]),
    }
    for name, value in quick.items():
        assert hasattr(exporting, name)
        setattr(exporting, name, value)


def _default(config: Mapping[str, object]) -> Default | None:
    """Return a sampler that can draw a schedule, or None: what a measurement may come to."""
    for name in ("ddim", "euler", "unipc"):
        try:
            make_sampler(name, Schedule.from_config(config), 2)
        except NanoError:
            continue
        return Default(scheduler=name, steps=2, fidelity={})
    return None


def _in_child(request: dict[str, Any]) -> Outcome:
    """Examine one checkpoint in a child of this process."""
    name, begun = next(iter(request.values())), time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-"))
    try:
        child = _FORK.Process(target=_child, args=(request, folder))
        child.start()
        child.join(10 * _SECONDS)
        if child.is_alive():
            child.kill()
            child.join()
            outcome = Outcome(str(name), "fault", message=f"not done after {10 * _SECONDS} seconds", short="too slow")
        elif (answer := folder / "outcome.json").exists():
            outcome = Outcome(**json.loads(answer.read_text()))
        else:
            log = (folder / "log").read_text(errors="replace")[-3000:]
            outcome = Outcome(
                str(name), "fault", message=f"the child ended with {child.exitcode}\n{log}", short="no answer"
            )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        return replace(outcome, seconds=round(time.monotonic() - begun, 2), cpu=round(cpu, 2))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _child(request: dict[str, Any], folder: Path) -> None:
    with (folder / "log").open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    if "kind" in request:
        name = request["kind"]
        given, fault_of = kinds.KINDS[name].given(folder / "given"), kinds.KINDS[name].fault
    else:
        name, fault_of = f"seed {request['seed']}", generated.fault
        given = generated.given(request["seed"], folder / "given", request["networks"])
    if "backend" in request:
        given = replace(given, options={**given.options, "backends": (request["backend"],)})
    outcome = replace(examine(given, name, folder, checks_only=request.get("checks_only", False)), note=given.note)
    if not request.get("checks_only", False):
        outcome = replace(outcome, short=fault_of(outcome))
    (folder / "outcome.json").write_text(json.dumps(asdict(outcome)))


def examine(given: Given, name: str, folder: Path, *, checks_only: bool) -> Outcome:
    """Draw with diffusers, export, draw with the runtime, and compare."""
    try:
        reference = given.reference()
    except Exception:  # noqa: BLE001 (whatever diffusers raises: this is no checkpoint)
        return Outcome(name, "invalid", message=traceback.format_exc(limit=-4))
    if reference is not None and not reference.finite:
        return Outcome(name, "invalid", message="diffusers draws no finite picture")
    outcome = _export(given, name, folder / "exported", asked=reference is not None, checks_only=checks_only)
    if outcome.result != "accepted" or reference is None or checks_only:
        return outcome
    try:
        given.spoil(folder / "exported" / "bundle")
        compared = compare(name, folder / "exported" / "bundle", given, reference, _compiled)
    except Exception:  # noqa: BLE001 (a traceback is a fault, whatever it is)
        return Outcome(name, "unreadable", message=traceback.format_exc(limit=-6), said=outcome.said)
    if compared.result == "differs" and any(words in line for words in _SAID for line in outcome.said):
        compared = replace(compared, result="substituted")
    return replace(compared, said=outcome.said)


class _Listener(logging.Handler):
    """Keeps what is logged for the user: warnings."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


def _export(given: Given, name: str, place: Path, *, asked: bool, checks_only: bool) -> Outcome:
    """Export into an empty folder, or run the checks at the start of an export."""
    place.mkdir()
    said: list[str] = []
    late = False
    logging.getLogger("nano_export").addHandler(_Listener(said))
    try:
        for event in exporting.export(Options(output=place / "bundle", **given.options)):
            if isinstance(event, exporting.Progress):
                said.append(event.stage)
                late = late or event.done >= STAGES["load"]
                if late and checks_only:
                    break
    except NanoError as error:
        left = list(place.iterdir())
        result = "leftover" if left else "late" if late else "refused"
        return Outcome(name, result, message=f"{type(error).__name__}: {error}", said=said, valid=asked)
    except Exception:  # noqa: BLE001 (a traceback is a fault, whatever it is)
        return Outcome(name, "fault", message=traceback.format_exc(limit=-6), said=said, valid=asked)
    return Outcome(name, "accepted", said=said, valid=asked)


if __name__ == "__main__":
    main()
