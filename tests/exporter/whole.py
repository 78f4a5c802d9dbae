"""Whole exports in child processes of one that has imported torch: quick enough to kill or to fail hundreds of them.

Tracing takes four fifths of an export's time and touches no file. What it computes, and the original's pictures, can be
kept from once before, so that a child comes to the writing at once; all that writes is always the real thing.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from nano_export import cli, quantizing
from nano_export import exporting as _exporting
from nano_export.judge.prompts import Prompts, prompts_for
from nano_export.networks.graph_sources import graph_sources, unet_form
from nano_export.source.checkpoint import open_checkpoint
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Default

__all__ = ["Kept", "Process", "identity", "left_over", "start", "started_with"]

exporting: Any = _exporting
"""The exporter's own module, whose functions ``Kept.use`` replaces."""
Process = multiprocessing.context.ForkProcess
_FORK = multiprocessing.get_context("fork")


class Kept:
    """The graphs and pictures of a built-in model, computed once; used by the process that calls ``use``.

    Args:
        model: built-in name.
        steps: of the pictures that an export draws to judge and to choose, then of one prompt each; None leaves both.
    """

    def __init__(self, model: str, steps: int | None = None) -> None:
        self._steps = steps
        self._graphs: dict[tuple[str, ...], Any] = {}
        self._pictures: dict[tuple[str, ...], list[Any]] = {}
        self._checkpoint, checkpoint = open_checkpoint(model, None), open_checkpoint(model, None)  # tracing changes one
        judge_steps = exporting.JUDGE_STEPS if steps is None else steps
        for prompt in prompts_for(checkpoint.card).judge:
            self._pictures[(prompt,)] = [*exporting.draw_references(checkpoint, [prompt], judge_steps, 7.5, 128)]
        for source in graph_sources(checkpoint, unet_form(checkpoint, "hoisted", 128), 128):
            names = (source.input_names, source.output_names)
            self._graphs[(*names[0], *names[1])] = exporting.to_onnx(source.module, source.inputs, *names)

    def use(self) -> None:
        """Let this process's exports take what was kept."""
        _replace(
            exporting,
            load=lambda _: self._checkpoint,
            to_onnx=lambda _module, _inputs, names, outputs: self._graphs[tuple(names + outputs)],
            draw_references=lambda _checkpoint, prompts, *_: self._pictures[tuple(prompts)],
        )
        if self._steps is not None:
            few = Default(scheduler="ddim", steps=max(self._steps, 2), fidelity={})  # one call of two stays guided
            _replace(
                exporting,
                prompts_for=_one_prompt,
                JUDGE_STEPS=self._steps,
                choose_default=lambda *_: iter([(1.0, few)]),
            )
            _replace(quantizing, _CALIBRATION_STEPS=self._steps)


def _replace(module: ModuleType, **replacements: object) -> None:
    """Let a module use other things by its names; a name that it does not have fails."""
    for name, replacement in replacements.items():
        assert hasattr(module, name), f"{module.__name__} has no {name} to replace"
        setattr(module, name, replacement)


def _one_prompt(card: str | None) -> Prompts:
    prompts = prompts_for(card)
    return Prompts(calibration=prompts.calibration[:1], judge=prompts.judge[:1])


def start(target: Path, log: Path, options: Sequence[str], kept: Kept | None, within: Callable[..., Any]) -> Process:
    """Start ``nano-export`` in a child; its exit code is the command's, its output goes into a file.

    Args:
        target: the bundle.
        log: the file.
        options: of the command line, the model first.
        kept: what not to compute again.
        within: called with the command as a function without arguments, to run it.
    """
    child = _FORK.Process(target=_child, args=(target, log, options, kept, within))
    child.start()
    return child


def _child(target: Path, log: Path, options: Sequence[str], kept: Kept | None, within: Callable[..., Any]) -> None:
    with log.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if kept is not None:
        kept.use()
    sys.exit(within(lambda: cli.main([*options, "-o", str(target), "--force"])))


def started_with(threads: int) -> None:
    """Use so many processors from here on, in children too; one leaves no threads behind that a fork would lose."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)


def identity(target: Path) -> int | None:
    """Return what tells one bundle at a place from the next, None for none; fail if it is not all there."""
    if not target.exists():
        return None
    assert [str(fault) for fault in Bundle.open(target).faults()] == []
    return target.stat().st_ino


def left_over(target: Path) -> list[str]:
    """Return the names of what is beside a bundle."""
    return sorted(path.name for path in target.parent.iterdir() if path != target)
