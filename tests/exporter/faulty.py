"""A program that lets every single file operation of a whole export fail, one export for each, and looks at the rest.

    python -m tests.exporter.faulty FOLDER [--errors ENOSPC ...] [--how once lasting] [--before old nothing] [--every N]

``--how`` says whether all later operations fail, too, ``--before`` what is in the place of the bundle, ``--every N``
takes every N-th operation only. It prints a line of JSON for each kind of fault, and fails where a bundle is not whole,
an error not clear, or the next export not a success.
"""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any

from tests.exporter import whole
from tests.faults import ERRORS, SHORT, failing

EXPORT = ("tiny", "--backend", "onnxruntime")
STEPS = 1  # of the pictures that an export draws: they write nothing
KINDS = {"short": SHORT, **{errno.errorcode[error]: error for error in ERRORS}}


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--errors", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--how", nargs="+", choices=("once", "lasting"), default=["once", "lasting"])
    parser.add_argument("--before", nargs="+", choices=("old", "nothing"), default=["old"])
    parser.add_argument("--first", type=int, help="number of the operation to begin with")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    whole.started_with(1)
    kept = whole.Kept("tiny", STEPS)
    gc.freeze()  # or every child looks through all of it
    for error, how, before in product(options.errors, options.how, options.before):
        chance = random.Random(error).randint(1, options.every)  # noqa: S311 - to be repeated, not to be secret
        numbers = count(chance if options.first is None else options.first, options.every)
        seen = sweep(options.folder, kept, error, numbers, lasting=how == "lasting", replacing=before == "old")
        print(json.dumps({"error": error, "how": how, "before": before, **seen}), flush=True)  # noqa: T201 - a program
    return 0


def sweep(
    folder: Path, kept: whole.Kept, error: str, numbers: Iterator[int], *, lasting: bool, replacing: bool
) -> dict[str, Any]:
    """Let one operation after the other fail, until there are no more, and count what came of it."""
    place = folder / f"{error}-{lasting:d}{replacing:d}"
    place.mkdir()
    target = place / "bundle"
    came: Counter[str] = Counter()
    for tried, first in enumerate(numbers):
        put_before(target, kept, there=replacing)
        old = whole.identity(target)
        code, said, struck = export(target, kept, first, KINDS[error], lasting=lasting)
        new = whole.identity(target)
        check_end(error, first, code, said, (old, new), lasting=lasting)
        came["done all the same" if code == 0 else "told"] += 1
        came["not there afterwards"] += code != 0 and replacing and new is None
        if tried % 50 == 0:
            check_next(target, kept, (error, first))
            came["next ones that succeeded"] += 1
        if not struck:
            break
    shutil.rmtree(place)
    return {"operations": first - 1, "exports": came["told"] + came["done all the same"], **came}


def put_before(target: Path, kept: whole.Kept, *, there: bool) -> None:
    """Have an old bundle in the place of the next one, or nothing."""
    if there and not target.exists():
        assert export(target, kept, 0, 0, lasting=False)[0] == 0
    elif not there and target.exists():
        shutil.rmtree(target)


def check_end(
    error: str, first: int, code: int, said: str, bundles: tuple[int | None, int | None], *, lasting: bool
) -> None:
    """Check how an export ended of which an operation failed, and what is in the bundle's place, before and after."""
    old, new = bundles
    told = "\n".join(line for line in said.splitlines() if not re.match(r" *\d+% ", line))
    case = (error, first, code, told)
    assert "Traceback" not in said, case
    if code == 0:
        assert new not in {None, old}, case
        return
    assert code == 4, case
    assert "nano-export: " in told, case
    assert KINDS[error] == SHORT or os.strerror(KINDS[error]) in told, case
    # The names are put on the disk when the new one is there; and from then on, renaming back can fail, too.
    assert new is not None or old is None or lasting, case


def check_next(target: Path, kept: whole.Kept, case: tuple[str, int]) -> None:
    """Check that the next export needs no help, and leaves nothing."""
    assert export(target, kept, 0, 0, lasting=False)[0] == 0, case
    assert whole.left_over(target) == [], case


def export(target: Path, kept: whole.Kept, first: int, error: int, *, lasting: bool) -> tuple[int, str, int]:
    """Return the exit code of an export, what it said, and how many operations failed."""
    log, note = target.parent.with_suffix(".log"), target.parent.with_suffix(".count")
    within = partial(failing_export, target.parent, note, first, error, lasting=lasting)
    child = whole.start(target, log, EXPORT, kept, within)
    child.join()
    assert child.exitcode is not None
    return child.exitcode, log.read_text(), int(note.read_text())


def failing_export(place: Path, note: Path, first: int, error: int, run: Any, *, lasting: bool) -> int:
    """Run an export in which an operation fails, and leave a note of how many did."""
    try:
        with failing(place, first, error, lasting=lasting) as faults:
            return run()
    finally:
        note.write_text(str(faults.struck))


if __name__ == "__main__":
    sys.exit(main())
