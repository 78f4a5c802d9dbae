"""The process of a ``worker``: holds one loaded pipeline, and draws when asked. It is confined, and speaks JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from nano_runtime.benchmark.cold_start import anonymous_bytes
from nano_runtime.benchmark.records import Case, Settings
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import UNET, UNET_SHALLOW
from nano_runtime.engines import EngineOptions
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.errors import NanoError
from nano_runtime.errors.told import told
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.machine import peak_rss_bytes
from nano_runtime.system.messages import Channel, ChannelError
from nano_runtime.system.timing import Stopwatch

__all__ = ["main"]

_PROFILED_CALLS = 3  # of the pipeline; the first of them is slower, so one would not do


def main(case: str, digest: str, settings: str, place: str) -> None:
    """Serve until the parent is gone.

    Args:
        case: its fields, as JSON.
        digest: of its bundle.
        settings: their fields, as JSON.
        place: folder for the profiles of an engine.
    """
    channel = Channel.of_standard_streams()
    tempfile.tempdir = place
    logging.getLogger(Pipeline.__module__).setLevel(logging.ERROR)  # what the demo can draw is no matter of time
    given = json.loads(case)
    with suppress(ChannelError):
        try:
            _work(channel, Case(**{**given, "bundle": Path(given["bundle"])}), digest, Settings(**json.loads(settings)))
        except (MemoryError, NanoError) as error:
            channel.send(told(error))
    os._exit(0)  # the engine's own end may take long, and nobody waits for it


def _work(channel: Channel, case: Case, digest: str, settings: Settings) -> None:
    """Draw for every number that comes, and at the end tell of memory and operators."""
    watch = Stopwatch()
    pipe = Pipeline.from_pretrained(case.bundle, case.backend, case.threads, case.precision, expect_digest=digest)
    manifest = pipe.bundle.manifest
    plan = pipe.plan(settings.options(case, 0, manifest))
    rows = {UNET: 0, UNET_SHALLOW: 0}
    for call in plan.calls:
        rows[call.component] += call.rows(1)
    channel.send({"guided": plan.guided, "rows": rows, "open_ms": watch.timings().total_ms})
    while (run := channel.receive()[0].get("draw")) is not None:
        timings = pipe(settings.options(case, run, manifest)).timings
        kinds: dict[str, Any] = {"verify": timings.verify_ms, "load": timings.load_ms, "run": timings.run_ms}
        channel.send({"total": timings.total_ms, **{kind: dict(found) for kind, found in kinds.items()}})
    memory = {"peak": peak_rss_bytes(), "anonymous": anonymous_bytes()}
    pipe.close()
    channel.send({**memory, "layers": _profile(case, settings) if settings.profile else {}})


def _profile(case: Case, settings: Settings) -> dict[str, list[tuple[str, tuple[int, ...], float]]]:
    """Draw with engines that record the time of each operator; return its kind, shape and milliseconds."""
    options = EngineOptions(case.threads, case.precision, profile=True)
    graphs = LoadedGraphs(Bundle.open(case.bundle), case.backend, options)
    pipe = Pipeline(graphs, keep_loaded=True)
    for run in range(_PROFILED_CALLS):
        pipe(settings.options(case, run, graphs.bundle.manifest))
    return {
        name: [(one.operator, one.shape, one.ms) for one in layers] for name, layers in graphs.layer_times().items()
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
