"""Which sampler and steps a call gets that does not say."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.cli import bundle as nano_bundle
from nano_runtime.drawing.defaults import Defaults
from nano_runtime.errors import ManifestError
from nano_runtime.sampling.schedule import Schedule

DEFAULT = {"scheduler": "dpmpp_2m_karras", "steps": 9, "fidelity": {"image_psnr_db": 40.1}}


def edit(folder: Path, **changes: object) -> None:
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    (folder / MANIFEST_NAME).write_text(json.dumps({**document, **changes}))


def defaults(folder: Path) -> Defaults:
    bundle = Bundle.open(folder)
    return Defaults.of(bundle, Schedule.from_config(bundle.manifest.scheduler))


def test_what_was_measured_stands_in_for_what_is_not_said(folder):
    edit(folder, default=DEFAULT)
    found = defaults(folder)
    assert found.own == "pndm"
    assert found.settle(None, None) == (9, "dpmpp_2m_karras")
    assert found.settle(30, None) == (30, "dpmpp_2m_karras")
    assert found.settle(None, "dpmpp_2m_karras") == (9, "dpmpp_2m_karras")
    assert found.settle(None, "pndm") == (20, "pndm")  # nobody measured how many that one needs
    assert found.settle(8, "euler") == (8, "euler")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_bundle_that_does_not_say_draws_with_its_own_sampler_in_twenty_steps(folder, version):
    edit(folder, format_version=version)
    assert defaults(folder).settle(None, None) == (20, "pndm")
    assert defaults(folder).settle(None, "euler") == (20, "euler")
    assert defaults(folder).settle(7, None) == (7, "pndm")


def test_a_sampler_that_is_not_implemented_is_replaced_and_named(folder, caplog):
    edit(folder, scheduler={"_class_name": "NoSuchScheduler", "skip_prk_steps": True}, default=DEFAULT)
    with caplog.at_level(logging.WARNING):
        assert defaults(folder).own == "euler"
    assert "NoSuchScheduler" in caplog.text
    assert defaults(folder).settle(None, None) == (9, "dpmpp_2m_karras")


@pytest.mark.parametrize(("kind", "said"), [("SASolverScheduler", True), ("PNDMScheduler", False)])
def test_info_says_that_a_class_is_replaced(folder, capsys, kind, said):
    edit(folder, scheduler={"_class_name": kind})
    assert nano_bundle.main(["info", str(folder)]) == 0
    assert (f"{kind} (not implemented: euler takes its place)" in capsys.readouterr().out) is said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scheduler": "plms"}, "there is no scheduler 'plms'"),
        ({"scheduler": "lcm", "steps": 51}, "51 steps cannot be run"),
        ({"scheduler": "ddim", "steps": 1001}, "steps"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"scheduler": ""}, "scheduler"),
        ({"sampler": "ddim"}, "sampler"),
    ],
)
def test_a_default_that_cannot_be_drawn_is_the_manifests_fault(folder, change, why):
    edit(folder, default={**DEFAULT, **change})
    with pytest.raises(ManifestError, match=why):
        defaults(folder)


def test_info_shows_it(folder, capsys):
    assert nano_bundle.main(["info", str(folder)]) == 0
    assert "default     20 steps of the scheduler\n" in capsys.readouterr().out
    edit(folder, default=DEFAULT)
    assert nano_bundle.main(["info", str(folder)]) == 0
    assert "default     9 steps of dpmpp_2m_karras (40.1 dB from the finished picture)\n" in capsys.readouterr().out
