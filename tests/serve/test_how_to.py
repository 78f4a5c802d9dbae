"""What the how-to tells people to type, typed: curl against a server of formulas, the unit's command line parsed."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from base64 import b64decode

import pytest
from PIL import Image
from tests.docs.documents import ROOT, blocks_of
from tests.serve.conftest import until

from nano_runtime import open_picture
from nano_serve import cli

HOW_TO = ROOT / "docs" / "how-to" / "serve.md"
ADDRESS = "http://localhost:7860"


def test_the_commands_of_curl_draw(running, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    commands = [one for block in blocks_of(HOW_TO) for one in block.commands() if one.startswith("curl ")]
    assert len(commands) == 4
    Image.new("RGB", (32, 32), "teal").save(tmp_path / "otter.png")
    Image.new("RGBA", (32, 32)).save(tmp_path / "mask.png")
    for command in commands:
        asked = shlex.split(command.replace(ADDRESS, f"http://localhost:{running.port}"))
        said = subprocess.run(
            [*asked, "--silent", "--show-error", "--fail"], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        answer = json.loads(said.stdout)
        if "id" in answer:
            job = running.served.studio.job(answer["id"])
            until(lambda job=job: job.ended)  # type: ignore[misc]
            assert job.status == "completed"
        else:
            pictures = answer["images"] if "images" in answer else [one["b64_json"] for one in answer["data"]]
            assert len([open_picture(b64decode(one)) for one in pictures]) == 1


def test_the_unit_of_systemd_starts_the_command():
    (unit,) = (block for block in blocks_of(HOW_TO) if block.language == "ini")
    fields = dict(line.split("=", 1) for line in unit.text.splitlines() if "=" in line)
    program, *arguments = shlex.split(fields["ExecStart"])
    assert program.endswith("/nano-serve")
    assert cli._parser().parse_args(arguments).bundle  # noqa: SLF001 - without starting it
    assert int(fields["TimeoutStopSec"]) > 5
