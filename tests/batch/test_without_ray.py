"""Ray is an extra: without it the engine says what to install, and nothing else knows it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nano_batch import Draw, cli
from nano_batch.on_ray import crew, extra
from nano_batch.on_ray.cluster import Node
from nano_batch.on_ray.errors import NoNodeError
from nano_batch.on_ray.rules import Rules


def test_the_engine_says_what_to_install_before_it_reads_a_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(extra, "find_spec", lambda _name: None)
    assert cli.main([str(tmp_path / "no-rows.csv"), "-o", str(tmp_path / "out"), "--engine", "ray"]) == 4
    hint = 'with: pip install "./runtime[ray]" in the clone of the repository, or else pip install "ray>=2.60"'
    assert hint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--ray-address", "--ray-cpus", "--ray-patience"])
def test_each_of_its_options_asks_for_it(option, tmp_path, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda _name: None)
    assert cli.main([str(tmp_path / "no-rows.csv"), "-o", str(tmp_path / "out"), option, "4"]) == 4


@pytest.mark.parametrize("words", [["--ray-cpus", "0"], ["--ray-patience", "-1"], ["--ray-cpus", "1.5"]])
def test_numbers_are_checked(words, tmp_path):
    assert cli.main([str(tmp_path / "no-rows.csv"), "-o", str(tmp_path / "out"), *words]) == 2


def test_no_module_imports_ray():
    modules = "nano_batch, nano_batch.cli, nano_batch.running, nano_batch.on_ray.drawing"
    program = f"import {modules}; import sys; raise SystemExit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_all_nodes_that_are_too_small_are_told_also_two_of_one_machine(tmp_path, monkeypatch):
    nodes = [Node("1", "host (192.0.2.2)", 1), Node("2", "host (192.0.2.2)", 2)]
    monkeypatch.setattr(crew, "has_head", lambda _ray: True)
    monkeypatch.setattr(crew, "nodes_of", lambda _ray: nodes)
    with pytest.raises(NoNodeError, match="no node can draw") as caught:
        crew.Crew(None, Draw(tmp_path, tmp_path), Rules(cpus=8), print).look()
    assert "asks for 8 processors, and it has 1; host (192.0.2.2): " in caught.value.what
    assert caught.value.what.endswith("asks for 8 processors, and it has 2")
