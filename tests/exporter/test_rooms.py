"""The rooms of the exporter: no circle between them, short files, and functions with few arguments."""

from __future__ import annotations

from pathlib import Path

from tests.rooms import arrows, circle, line_counts, parameter_counts

import nano_export

PACKAGE = Path(nano_export.__file__).parent
MOST_LINES, MOST_PARAMETERS = 400, 8


def test_no_room_imports_itself_by_way_of_others():
    graph = arrows(PACKAGE)
    assert sum(map(len, graph.values())) > 20  # there are arrows
    assert circle(graph) is None


def test_no_file_is_long():
    counts = line_counts(PACKAGE)
    assert len(counts) > 30
    assert {name: count for name, count in counts.items() if count > MOST_LINES} == {}


def test_no_function_takes_many_arguments():
    counts = parameter_counts(PACKAGE)
    assert max(counts.values()) > 4  # they are counted
    assert {name for name, count in counts.items() if count > MOST_PARAMETERS} == set()
