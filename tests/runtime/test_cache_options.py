"""Where the commands keep compiled graphs: where they are told to, in the user's cache folder, or nowhere."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from nano_runtime.cli.cache_options import CacheOptions, add_cache_options, cache_folder


def folder(*arguments: str) -> Path | None:
    parser = argparse.ArgumentParser()
    add_cache_options(parser)
    return cache_folder(parser.parse_args(arguments, namespace=CacheOptions()))


def test_the_command_line_decides():
    assert folder("--cache", "here") == Path("here")
    assert folder("--no-cache") is None
    assert folder("--cache", "here", "--no-cache") is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
def test_the_default_is_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder() == tmp_path / "nano-runtime"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".cache" / "nano-runtime"
    assert list(tmp_path.iterdir()) == []  # asking makes nothing


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
def test_the_default_folder_is_closed_to_others_and_a_named_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own, named = tmp_path / "nano-runtime", tmp_path / "named"
    for path in (own, own / "conditioning", named):
        path.mkdir()
        path.chmod(0o777 if path.name == "conditioning" else 0o755)
    assert (folder(), folder("--cache", str(named))) == (own, named)
    assert (own.stat().st_mode & 0o777, named.stat().st_mode & 0o777) == (0o700, 0o755)
    assert (own / "conditioning").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
@pytest.mark.parametrize("inner", [".", "conditioning"])
def test_a_default_folder_that_others_may_change_is_not_used(inner, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "nano-runtime" / "conditioning").mkdir(parents=True, mode=0o700)
    changed = (tmp_path / "nano-runtime" / inner).stat().st_ino
    stat = Path.stat

    def of_somebody_else(path: Path, **options: bool) -> os.stat_result:
        status = stat(path, **options)
        values = list(status)
        if status.st_ino == changed:
            values[4] += 1  # the user's number
        return os.stat_result(values)

    monkeypatch.setattr(Path, "stat", of_somebody_else)
    assert folder() is None
    assert "others may change" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_the_current_folder_gets_nothing(variable, monkeypatch):
    """Neither variable may make a folder where the command happens to run."""
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv(variable, "nowhere")
    found = folder()
    assert found is None or found.is_absolute()
