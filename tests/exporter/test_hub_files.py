"""LoRAs from the Hub: the real client against a small Hub on loopback, and without any Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.exporter.test_hub import Hub, Repository

FILES = {
    "someone/style": {"pytorch_lora_weights.safetensors": b"a LoRA", "picture.png": b"", "README.md": b"# Style"},
    "someone/peft": {
        f"{network}/{name}": f"{name} of {network}".encode()
        for network in ("unet", "text_encoder")
        for name in ("adapter_model.safetensors", "adapter_config.json", "optimizer.bin")
    },
    "someone/many": {"a.safetensors": b"a", "b.safetensors": b"b"},
    "someone/pickles": {"style.bin": b"a pickle"},
}
# The client reads its settings when it is imported, so it runs in a process of its own.
CLIENT = """
import json, sys
from pathlib import Path
from nano_export.source.adapters.lora_place import find
from nano_runtime.errors import NanoError
for given in sys.argv[1:]:
    try:
        print(json.dumps([[found.name, found.path.read_text()] for found in find(Path(given))]))
    except NanoError as error:
        print(json.dumps([type(error).__name__, error.what]))
"""
STYLE = [["someone/style/pytorch_lora_weights.safetensors", "a LoRA"]]
B = [["someone/many/b.safetensors", "b"]]


@pytest.fixture
def hub():
    hub = Hub({name: Repository(f"{index}" * 40, files) for index, (name, files) in enumerate(FILES.items())})
    hub.start()
    yield hub
    hub.stop()


def ask(environment: dict[str, str], *given: str) -> list[list[list[str]]]:
    """Find LoRAs in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    answer = subprocess.run(
        [sys.executable, "-c", CLIENT, *given],
        env={**kept, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1,localhost", **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_loras_are_fetched_and_found_again_without_a_network(hub, tmp_path):
    online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
    style, peft, one, many, pickle, missing, nowhere = ask(
        online,
        "someone/style",
        "someone/peft",
        "someone/many/b.safetensors",
        "someone/many",
        "someone/pickles",
        "someone/style/other.safetensors",
        "someone/nowhere",
    )
    assert style == STYLE
    networks = ("unet", "text_encoder")
    name = "adapter_model.safetensors"
    assert peft == [[f"someone/peft/{network}/{name}", f"{name} of {network}"] for network in networks]
    assert one == B
    assert "it holds 2 .safetensors files" in many[1]
    assert "someone/pickles/style.bin cannot be merged: it is a pickle" in pickle[1]
    assert "someone/style on the Hub has no file other.safetensors" in missing[1]
    assert nowhere[0] == "HubFilesError"
    configs = {f"{network}/adapter_config.json" for network in networks}
    weights = {f"{network}/{name}" for network in networks}
    assert hub.fetched() == {"pytorch_lora_weights.safetensors", "b.safetensors"} | configs | weights

    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    assert ask(offline, "someone/style", "someone/many/b.safetensors") == [STYLE, B]
    unreachable = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    style, nowhere = ask(unreachable, "someone/style", "someone/nowhere")
    assert style == STYLE
    assert nowhere[0] == "NetworkError"
