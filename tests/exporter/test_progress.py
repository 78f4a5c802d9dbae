"""The stages' shares are a whole, and a bar never goes back."""

from __future__ import annotations

import pytest

from nano_export.progress import STAGES, progress


def test_the_shares_are_a_whole():
    assert sum(STAGES.values()) == pytest.approx(1)


def test_it_never_goes_back():
    seen = [progress(stage, "", done).done for stage in STAGES for done in (0.0, 0.5, 1.0)]
    assert seen[0] == 0
    assert seen == pytest.approx(sorted(seen))
    assert seen[-1] == pytest.approx(1)
