"""A server with formulas for graphs, to be killed; prints its port. A bundle in a folder ``broken`` cannot draw.

python -m tests.serve.fake_server PICTURES BUNDLE...
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.runtime.fakes import FORMULAS, FakeGraphs, pipeline_of

from nano_runtime import Bundle, Pipeline
from nano_runtime.errors import OutOfMemoryError
from nano_serve.http.app import application
from nano_serve.http.guard import Access
from nano_serve.http.server import listen, serve
from nano_serve.studio import Settings, Studio

MOST_JOBS = 1000


def run(
    bundles: Sequence[Path],
    pictures: Path,
    told: Callable[[int], None],
    call_seconds: float = 0.0,
    queue: int = MOST_JOBS,
) -> None:
    """Serve until a signal.

    Args:
        bundles: folders, made by ``make_bundle``.
        pictures: folder for the history.
        told: is called with the port.
        call_seconds: that a UNet call takes at least.
        queue: jobs that may wait.
    """

    def unet(**feeds: Any) -> dict[str, np.ndarray]:
        time.sleep(call_seconds)
        return FORMULAS["hoisted"]["unet"](**feeds)

    def broken(**_feeds: Any) -> dict[str, np.ndarray]:
        raise OutOfMemoryError("running the unet")

    def opened(folder: Path) -> Pipeline:
        graphs = FakeGraphs(Bundle.open(folder), instead={"unet": broken if folder.name == "broken" else unet})
        graphs.runs, graphs.log = deque(maxlen=1), deque(maxlen=1)  # type: ignore[assignment] # nothing is kept
        return pipeline_of(graphs)

    studio = Studio(Settings(bundles, pictures, queue=queue), opened)
    sockets = listen("localhost", 0)
    port = sockets[0].getsockname()[1]
    serve(sockets, Access(), lambda: (application(studio, Access()), studio), lambda: told(port))


if __name__ == "__main__":
    run([Path(one) for one in sys.argv[2:]], Path(sys.argv[1]), lambda port: print(port, flush=True))  # noqa: T201
