"""Times bundles and engines against each other, and against the best that this machine could do.

``cases`` lists the combinations, ``measure`` draws them in turns, each in a ``worker``; ``records`` has the samples.
``probe`` measures what the machine can do, with the graph of ``product``; ``limits`` computes the least time of a
bundle from that. ``layers`` sorts an engine's profile into the groups of layers that the limits know. ``cold_start``
times fresh processes. Drawing needs nothing in here.
"""

from __future__ import annotations

from nano_runtime.benchmark.cases import cases_of
from nano_runtime.benchmark.measure import measure
from nano_runtime.benchmark.records import Case, Measured, Settings, Step, as_document

__all__ = ["Case", "Measured", "Settings", "Step", "as_document", "cases_of", "measure"]
