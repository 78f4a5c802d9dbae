"""Runs real clients against a server with the demo: ``make serve-clients``.

    python -m tests.serve.clients.run build/serve-clients

The folder has an environment with openai and webuiapi in ``bin/python`` and, where there is Node, ``node_modules`` with
openai. Each client prints a line for everything that it did; the command leaves with 1 if one failed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(folder: Path) -> int:
    """Start a server, run the clients, stop it."""
    program = "from nano_serve.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", program, "--port", "0", "--no-history"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://localhost:\d+", server.stdout.readline())
        assert found is not None, "the server does not say where it is"
        codes = [_run([str(folder / "bin" / "python"), str(HERE / "python_clients.py"), found[0]])]
        if (node := shutil.which("node")) is not None and (folder / "node_modules").is_dir():
            script, tavern = folder / "node_client.mjs", folder / "node_modules" / "sillytavern"
            script.write_text((HERE / "node_client.mjs").read_text())  # Node looks for packages beside the script
            codes.append(_run([node, str(script), found[0]]))
            codes.append(_run([sys.executable, str(HERE / "sillytavern.py"), str(tavern), found[0]]))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(10)
    print(f"the server ended with {code}")
    return max([*codes, code])


def _run(command: list[str]) -> int:
    """Run a client, in an environment without keys of its own."""
    return subprocess.run(command, check=False, env={**os.environ, "OPENAI_API_KEY": "none"}).returncode


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
