"""Checkpoints as people have them: each is drawn as diffusers draws it, on every engine, or refused in words.

``make test`` tries a handful, ``make test-checkpoints`` all kinds and 200 generated ones.
"""

from __future__ import annotations

import sys

import pytest
from tests.checkpoints.client import Warm
from tests.checkpoints.kinds import KINDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks with torch loaded")

FEW = (
    "scheduler: PNDM, as Stable Diffusion 1.5",
    "scheduler: DPM-Solver++ with -Infinity",
    "files: NaN in a weight",
    "files: links to nowhere",
    "control: another schedule",
)
"""The kinds of every test run: most have the same networks, which are traced once."""
SEEDS = (1,)
PENDING: dict[str, str] = {}
"""Kinds that fall short, and why."""


def cases() -> list[object]:
    """Return the names of all kinds; those beyond the few are slow."""
    slow = {name: [] if name in FEW else [pytest.mark.slow] for name in KINDS}
    pending = {name: [pytest.mark.xfail(reason=why)] for name, why in PENDING.items()}
    return [pytest.param(name, marks=[*slow[name], *pending.get(name, [])]) for name in KINDS]


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    warm = Warm(folder / "work", folder / "log", quick=True)
    yield warm
    warm.close()


@pytest.mark.parametrize("name", cases())
def test_kind(warm, name):
    assert warm.ask({"kind": name}).short is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_generated(warm, seed):
    assert warm.ask({"seed": seed, "networks": "plain"}).short is None
