"""SillyTavern's own server code, from npm, between us and a page: ``python sillytavern.py FOLDER URL``.

Its two sources that speak to servers like ours, A1111's and stable-diffusion.cpp's, do what its page makes them do.
Only their routes are started: the whole server builds its page for minutes first.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PORT = 18123
PROMPT = "a rocket on a black background"
PNG = b"\x89PNG"
ROUTES = """
import { setConfigFilePath } from './src/util.js';
setConfigFilePath('./default/config.yaml');
const express = (await import('express')).default;
const { router } = await import('./src/endpoints/stable-diffusion.js');
const app = express();
app.use(express.json({ limit: '200mb' }));
app.get('/version', (_request, response) => response.send('ok'));
app.use('/api/sd', router);
app.listen(Number(process.argv[2]), '127.0.0.1');
"""
DRAWING = {"width": 512, "height": 512, "steps": 10, "cfg_scale": 2, "negative_prompt": "", "seed": 7}


def ask(path: str, body: dict[str, Any], seconds: float = 120) -> Any:
    """Send what the page sends; return the answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/api/sd{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310 - http
        content = answer.read()
        return json.loads(content) if answer.headers.get_content_type() == "application/json" else content.decode()


def of_a1111(url: str) -> None:
    """Connect, list everything, choose a model, draw, and leave while it draws."""
    to = {"url": url, "auth": ""}
    assert ask("/ping", to) == "OK"
    assert "DDIM" in ask("/samplers", to)
    assert {"automatic", "karras"} <= set(ask("/schedulers", to))
    assert "None" in [one if isinstance(one, str) else one["name"] for one in ask("/upscalers", to)]
    assert isinstance(ask("/vaes", to), list)
    (model,) = ask("/models", to)
    assert ask("/set-model", {**to, "model": model["value"]}) == "OK"
    assert ask("/get-model", to) == model["value"]
    asked = {**to, **DRAWING, "prompt": PROMPT, "sampler_name": "DDIM", "scheduler": "normal", "override_settings": {}}
    drawn = ask("/generate", {**asked, "restore_faces": False, "enable_hr": False, "save_images": True})
    assert base64.b64decode(drawn["images"][0]).startswith(PNG)
    left = threading.Thread(target=_leave, args=({**asked, "steps": 900},))
    left.start()
    left.join()
    for _ in range(200):
        with urllib.request.urlopen(f"{url}/sdapi/v1/progress") as answer:  # noqa: S310 - http
            if json.load(answer)["state"]["job_count"] == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the job of a page that left goes on")


def _leave(body: dict[str, Any]) -> None:
    """Ask for a drawing, and close the page after a second."""
    try:
        ask("/generate", body, 1)
    except (TimeoutError, urllib.error.URLError):
        return
    raise AssertionError("900 steps in a second")


def of_sdcpp(url: str) -> None:
    """Connect, list models, draw."""
    assert ask("/sdcpp/ping", {"url": url}) == "OK"
    (model,) = (one["id"] for one in ask("/sdcpp/models", {"url": url})["data"])
    asked = {"url": url, **DRAWING, "prompt": PROMPT, "model": model, "sampler_name": "euler_a", "scheduler": "karras"}
    drawn = ask("/sdcpp/generate", asked)
    assert base64.b64decode(drawn["images"][0]).startswith(PNG)


def main(folder: Path, url: str) -> int:
    """Start the routes, run both sources, stop them."""
    script = folder / "nano_routes.mjs"
    script.write_text(ROUTES)
    with tempfile.TemporaryDirectory() as data:
        log = Path(data, "log")
        with log.open("w") as said:
            process = subprocess.Popen(
                [str(shutil.which("node")), script.name, str(PORT)], cwd=folder, stdout=said, stderr=said
            )
        try:
            _wait(process, log)
            for check in (of_a1111, of_sdcpp):
                check(url)
                print(f"ok   SillyTavern {check.__name__}", flush=True)
        finally:
            process.terminate()
            process.wait(20)
    return 0


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until it answers."""
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-2000:]
        if _answers():
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


def _answers() -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/version", timeout=5).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
