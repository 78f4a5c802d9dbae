"""A bundle of formulas, and rows of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.runtime.fakes import make_bundle

from nano_runtime import Bundle


@pytest.fixture(scope="session")
def formulas(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Formulas for graphs; see ``tests.runtime.fakes``."""
    return make_bundle(tmp_path_factory.mktemp("formulas") / "formulas")


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away what a scheduler would say of shards, and the user's cache folder."""
    for name in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
