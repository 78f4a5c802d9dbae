"""The lowest versions that the packages allow are named, and `make test-lowest` gets them."""

from __future__ import annotations

import re

import pytest
from tests.packaging.building import ROOT
from tests.packaging.lowest import lowest

PROJECT = """
[project]
dependencies = ["one>=1.5", "two>=2,<3"]
[project.optional-dependencies]
more = ["three[fast]>=3 ; python_version < '4'"]
loose = ["four<5"]
"""


@pytest.fixture
def pyproject(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text(PROJECT)
    return path


def test_the_lowest_versions_are_those_of_the_bounds(pyproject):
    assert lowest(pyproject) == ["one==1.5", "two==2"]
    assert lowest(pyproject, ["more"]) == ["one==1.5", "two==2", "three==3"]


def test_a_requirement_without_a_lowest_version_is_refused(pyproject):
    with pytest.raises(ValueError, match="four<5: no lowest version"):
        lowest(pyproject, ["loose"])


@pytest.mark.parametrize(
    ("project", "extras"), [("runtime", ("onnxruntime", "openvino", "signing")), ("exporter", ())], ids=str
)
def test_every_requirement_of_ours_names_its_lowest_version(project, extras):
    for line in lowest(ROOT / project / "pyproject.toml", extras):
        assert re.fullmatch(r"[A-Za-z0-9_-]+==[0-9.]+", line)
