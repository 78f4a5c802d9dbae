"""A program that kills whole exports at random moments (signal 9), and looks at what is left.

    python -m tests.exporter.killed FOLDER --count 500                                          tiny: half an hour
    python -m tests.exporter.killed FOLDER --count 10 --model synthetic --kept 0 --threads 2    full size: an hour, 8 GB

``--kept X`` is the share of exports that do not trace the graphs again and draw in one step: neither writes anything,
and they take nine tenths of the time, so more of these kills find the disk in use. It prints a line of JSON, and fails
where a bundle is not whole or the next export not a success.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from tests.exporter import whole

# For both kinds of weights, without OpenVINO, which takes as long as everything else; at full size as people do it.
EXPORTS = {
    "tiny": (("tiny", "--backend", "onnxruntime"), ("tiny", "--int8", "--backend", "onnxruntime")),
    "synthetic": (("synthetic", "--int8"),),
}
STEPS = 1  # of the pictures that an export draws, where it does not trace
LONGER = 1.05  # than the last export of the same kind took, at most: some moments are after the end


@dataclass
class Killing:
    """One place, exported into again and again.

    Attributes:
        target: the bundle.
        kept: what some exports need not compute again.
        seconds: that an export of each kind took last.
        came: what came of the kills.
    """

    target: Path
    kept: whole.Kept | None
    seconds: dict[tuple[tuple[str, ...], bool], float] = field(default_factory=dict)
    came: Counter[str] = field(default_factory=Counter)

    def complete(self, export: tuple[str, ...], *, kept: bool) -> None:
        """Export to the end: into what a kill left, too, without help, and leave nothing but the bundle."""
        before, began = whole.identity(self.target), time.monotonic()
        child = self._start(export, kept=kept)
        child.join()
        self.seconds[export, kept] = time.monotonic() - began
        log = self._log.read_text()
        assert child.exitcode == 0, log
        assert whole.identity(self.target) not in {None, before}
        assert whole.left_over(self.target) == []

    def kill(self, export: tuple[str, ...], share: float, *, kept: bool) -> None:
        """Kill an export after a share of its time."""
        before = whole.identity(self.target)
        child = self._start(export, kept=kept)
        child.join(share * self.seconds[export, kept])
        if child.exitcode is None:
            child.kill()
            child.join()
        assert child.exitcode in {0, -signal.SIGKILL}, self._log.read_text()
        after = whole.identity(self.target)  # fails for half a bundle
        unfinished = any(".staging-" in name for name in whole.left_over(self.target))
        self.came["ended before"] += child.exitcode == 0
        self.came["found something unfinished"] += child.exitcode != 0 and unfinished
        self.came["nothing there" if after is None else "the old one" if after == before else "the new one"] += 1

    def _start(self, export: tuple[str, ...], *, kept: bool) -> whole.Process:
        return whole.start(self.target, self._log, export, self.kept if kept else None, lambda run: run())

    @property
    def _log(self) -> Path:
        return self.target.parent.with_suffix(".log")


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--model", choices=EXPORTS, default="tiny")
    parser.add_argument("--kept", type=float, default=0.95)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    whole.started_with(options.threads)
    dice, exports = random.Random(options.seed), EXPORTS[options.model]  # noqa: S311 - to be repeated, not to be secret
    place = options.folder / "place"
    place.mkdir()
    killing = Killing(place / "bundle", whole.Kept(options.model, STEPS) if options.kept > 0 else None)
    gc.freeze()
    kinds = [kept for kept, used in ((False, options.kept < 1), (True, options.kept > 0)) if used]
    for export, kept in product(exports, kinds):
        killing.complete(export, kept=kept)  # for how long it takes
    for number in range(options.count):
        export, kept = exports[number % len(exports)], dice.random() < options.kept
        killing.kill(export, dice.uniform(0, LONGER), kept=kept)
        killing.came["traced anew"] += not kept
        if dice.random() < 0.25:  # the others: kills upon kills
            killing.complete(export, kept=kinds[-1])
            killing.came["next ones that succeeded"] += 1
        if (number + 1) % max(1, options.count // 10) == 0:
            print(json.dumps({"kills": number + 1, **killing.came}), flush=True)  # noqa: T201 - this is a program
    killing.complete(exports[0], kept=kinds[-1])
    assert killing.came["found something unfinished"] > options.count / 2, "the kills came too early or too late"
    print(json.dumps({"kills": options.count, **killing.came, "done": True}))  # noqa: T201 - this is a program
    return 0


if __name__ == "__main__":
    sys.exit(main())
