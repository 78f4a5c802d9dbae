"""Texts of a checkpoint: of a size that can be, and none of the user's own files is carried on in a bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nano_export.errors import CheckpointError, LoraError
from nano_export.options import LoraFile
from nano_export.source.adapters.lora_file import open_loras
from nano_export.source.card import read_card
from nano_export.source.json_file import read_json
from nano_export.source.licences import licence_of
from nano_export.source.scheduler import scheduler_of

HOLE = 1 << 42


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("README.md", read_card),
        ("LICENSE", lambda folder: licence_of(folder, None, "model")),
        ("config.json", lambda folder: read_json(folder / "config.json")),
    ],
)
def test_a_hole_in_a_file_is_refused_by_its_name(name, read, tmp_path):
    with (tmp_path / name).open("wb") as file:
        file.truncate(HOLE)
    with pytest.raises(CheckpointError, match=rf"{name} .* MB"):
        read(tmp_path)


def linked(folder: Path, to: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("README.md", "LICENSE"):
        to.mkdir(exist_ok=True)
        (to / name).write_text(f"{name} of the user")
        (folder / name).symlink_to(to / name)
    return folder


def test_a_link_to_a_file_of_the_user_is_not_carried_on(tmp_path, caplog):
    """The bundle with it would be published."""
    folder = linked(tmp_path / "checkpoint", tmp_path / "home")
    assert read_card(folder) is None
    assert licence_of(folder, None, "model").id == "unknown"
    assert caplog.text.count("goes without it") == 2


def test_links_within_the_hubs_cache_are_followed(tmp_path):
    """The control: all files of a snapshot there are links to those beside it."""
    repository = tmp_path / "models--someone--model"
    folder = linked(repository / "snapshots" / "0123", repository / "blobs")
    assert read_card(folder) == "README.md of the user"
    assert licence_of(folder, None, "model").text == "LICENSE of the user"


def test_of_a_schedulers_config_elsewhere_only_known_keys_are_carried_on(tmp_path):
    (tmp_path / "model" / "scheduler").mkdir(parents=True)
    said = {"_class_name": "PNDMScheduler", "beta_start": 0.001, "auths": {"hub": "secret"}, "_token": "secret"}
    (tmp_path / "mine.json").write_text(json.dumps(said))
    place = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    place.symlink_to(tmp_path / "mine.json")
    config = scheduler_of(tmp_path / "model", "text-to-image")
    assert "secret" not in str(config)
    assert config["beta_start"] == 0.001
    place.unlink()
    place.write_text(json.dumps(said))
    assert "secret" in str(scheduler_of(tmp_path / "model", "text-to-image"))  # the control: diffusers keeps all


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_pipe_beside_a_lora_is_not_waited_for(tmp_path):
    file, name = tmp_path / "adapter_model.safetensors", "base_model.model.a.lora_{}.weight"
    save_file({name.format("A"): torch.ones(4, 8), name.format("B"): torch.ones(8, 4)}, file)
    os.mkfifo(tmp_path / "adapter_config.json")
    with pytest.raises(LoraError, match="is no file"):
        open_loras(LoraFile(file, 1.0))
