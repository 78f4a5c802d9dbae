"""Runs jobs that come to harm on a test cluster, and the examples of the documents: ``make batch-ray``.

    python -m tests.batch.ray.run build/batch-ray [CASE...]

The folder has an environment with ray, daft and pyspark in ``bin/python``. Each case prints a line with the seconds
that it took; the command leaves with 1 if one failed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

from tests.batch.ray import cases, pipelines
from tests.batch.ray.cases import Case

ROOT = Path(__file__).parents[3]
LONGEST_S = 900


def main(environment: Path, names: list[str]) -> int:
    """Run cases; return how many failed."""
    python = environment.absolute() / "bin" / "python"
    failed = 0
    for case in [*cases.CASES, *pipelines.CASES]:
        if names and case.__name__ not in names:
            continue
        folder = Path(tempfile.mkdtemp(prefix="nano-ray-"))
        began = time.monotonic()
        try:
            result = case(Case(folder, python, ROOT, LONGEST_S)) or ""
        except Exception:  # noqa: BLE001 - the others are to run, too
            traceback.print_exc()
            result, failed = f"FAILED: see {folder}", failed + 1
        else:
            shutil.rmtree(folder)
        print(f"{case.__name__:28} {time.monotonic() - began:6.0f} s  {result}", flush=True)
    print(f"processes of Ray that are left: {_left()}")
    return min(failed, 1)


def _left() -> int:
    """Count processes of Ray: of nodes, and those that draw. Agents of killed nodes end by themselves in a minute."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes()
            found += b"raylet/raylet" in words or b"gcs_server" in words or b"ray::Worker" in words
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
