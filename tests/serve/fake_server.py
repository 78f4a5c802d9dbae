"""A server with formulas for graphs, to be killed; prints its port.

python -m tests.serve.fake_server BUNDLE PICTURES
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path

from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime import Bundle, Pipeline
from nano_serve.http.app import application
from nano_serve.http.guard import Access
from nano_serve.http.server import listen, serve
from nano_serve.studio import Settings, Studio

if __name__ == "__main__":
    bundle, pictures = map(Path, sys.argv[1:])
    settings = Settings([bundle], pictures, queue=1000)

    def opened(folder: Path) -> Pipeline:
        """Open the bundle; what its graphs ran is not kept."""
        graphs = FakeGraphs(Bundle.open(folder))
        graphs.runs, graphs.log = deque(maxlen=1), deque(maxlen=1)  # type: ignore[assignment]
        return pipeline_of(graphs)

    studio = Studio(settings, opened)
    sockets = listen("localhost", 0)
    port = sockets[0].getsockname()[1]
    serve(sockets, Access(), lambda: (application(studio, Access()), studio), lambda: print(port, flush=True))  # noqa: T201
