"""Times bundles and engines against each other, and against what this machine could do at best.

``measure`` draws; ``probe`` finds out what the machine can do, with the graph of ``product``; ``limits`` says what
follows for a bundle; ``layers`` sorts an engine's profile into the groups of layers that the limits know; ``start``
times fresh processes. Drawing needs nothing in here.
"""

from __future__ import annotations

from nano_runtime.benchmark.measure import Case, Measured, Settings, Step, measure

__all__ = ["Case", "Measured", "Settings", "Step", "measure"]
