"""Measures what nano-serve promises: the figures V1 to V23 that a machine can measure, as a Markdown table.

    python -m bench.serve                        every figure with its own count; hours
    python -m bench.serve --only V7 --count 50   some of them, more briefly
    python -m bench.serve --timed                those that need a quiet machine

Counts and faults are measured with a pipeline of formulas, which runs the same code around it; times with the demo, or
with --bundle. V2 needs a package registry, V5 and V10 need Chromium and Playwright, V6 wrk, V13 --schemathesis, V23
strace. V18 is `make serve-clients`, and V19 and V20 are `make serve-page`.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import traceback
from pathlib import Path

from bench.serve import drawing, faults, machine, page, strangers  # noqa: F401 - each adds figures to the table
from bench.serve.figures import FIGURES, Choices


def main() -> int:
    """Measure and print; 1 if a figure fell short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(FIGURES), metavar="V7", help="repeat it for several")
    parser.add_argument("--timed", action="store_true", help="only figures that are times")
    parser.add_argument("--count", type=int, help="repetitions, instead of each figure's own")
    parser.add_argument("--bundle", type=Path, help="instead of the demo, where a real model draws")
    parser.add_argument("--threads", type=int, default=2, help="of the engine (default: %(default)s)")
    parser.add_argument("--schemathesis", type=Path, help="the program schemathesis")
    parser.add_argument("--isolate", action="store_true", help="where a real model draws, in a process of its own")
    options = parser.parse_args()
    further = ("--isolate",) if options.isolate else ()
    choices = Choices(options.count, options.bundle, options.threads, options.schemathesis, further)
    chosen = [
        one
        for one in FIGURES.values()
        if (options.only is None or one.name in options.only) and (one.timed or not options.timed)
    ]
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {platform.processor() or platform.machine()}, Python")
    print("\n| # | figure | proposed | measured | holds |\n|---|---|---|---|---|", flush=True)
    held = True
    for one in sorted(chosen, key=lambda found: int("".join(filter(str.isdigit, found.name)))):
        count = one.count if choices.count is None else choices.count
        try:
            found = one.measure(choices, count)
        except Exception as error:  # noqa: BLE001 - the other figures are measured all the same
            traceback.print_exc()
            print(f"| {one.name} | {one.title} | {one.proposed} | not measured: {error!r} | |", flush=True)
            held = False
            continue
        held = held and found.holds
        word = "yes" if found.holds else "**no**"
        print(f"| {one.name} | {one.title} | {one.proposed} | {found.text} | {word} |", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
