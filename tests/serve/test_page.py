"""The page's files: small, served as what they are, free of anything from elsewhere, and of sound syntax."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

import nano_serve
from nano_serve.http.guard import CSP

PAGE = Path(nano_serve.__file__).parent / "page"
FILES = sorted(PAGE.iterdir())
MOST_BYTES = 100_000
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
NAMESPACE = "http://www.w3.org/2000/svg"  # a name, which nothing fetches


def test_the_page_weighs_little():
    assert len(FILES) > 10
    assert sum(path.stat().st_size for path in FILES) <= MOST_BYTES


def test_every_file_is_served_as_what_it_is(served):
    for path in FILES:
        answer = served.ask("GET", "/" if path.name == "index.html" else f"/page/{path.name}")
        assert (answer.status_code, answer.content) == (200, path.read_bytes()), path.name
        assert answer.headers["content-type"].startswith(TYPES[path.suffix])
        assert answer.headers["content-security-policy"] == CSP
    assert "unsafe" not in CSP
    assert CSP.startswith("default-src 'none'; script-src 'self'; style-src 'self';")


def test_all_modules_are_asked_for_at_once():
    """Else a browser learns of one from another, and asks for them one after the other."""
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    named = re.findall(r'(?:modulepreload" href|src)="/page/([a-z]+[.]js)"', text)
    assert sorted(named) == sorted(path.name for path in PAGE.glob("*.js"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere(path):
    text = path.read_text(encoding="utf-8").replace(NAMESPACE, "")
    assert not re.search(r"(https?:|wss?:)?//[a-z0-9]+\.", text, re.IGNORECASE)
    assert not re.search(r"url\(|@import|\beval\(|new Function|innerHTML|outerHTML|document\.write", text)
    for found in re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", text):
        assert found == "/" or (PAGE / found.removeprefix("/page/")).is_file(), found
    for found in re.findall(r"""^import .* from "([^"]*)";$""", text, re.MULTILINE):
        assert (PAGE / found.removeprefix("./")).is_file(), found


def test_the_policy_is_not_broken_by_the_markup():
    """No style, no handler and no script stand in the document itself: the policy would drop them."""
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\s(style|on[a-z]+)=", text)
    assert re.findall(r"<script[^>]*>", text) == ['<script type="module" src="/page/app.js">']
    assert "<style" not in text


def test_every_file_begins_with_its_job():
    for path in PAGE.glob("*.js"):
        assert path.read_text(encoding="utf-8").startswith("// "), path.name


@pytest.mark.skipif(shutil.which("node") is None, reason="node checks the syntax of modules, and is not here")
def test_modules_are_of_sound_syntax():
    node = [str(shutil.which("node")), "--input-type=module", "--check"]
    for path in PAGE.glob("*.js"):
        done = subprocess.run(node, input=path.read_bytes(), capture_output=True, check=False)
        assert done.returncode == 0, f"{path.name}: {done.stderr.decode()}"
    broken = subprocess.run(node, input=b"import {", capture_output=True, check=False)
    assert broken.returncode != 0


TOLD = """
let now = 1000;
const timers = [];
Object.defineProperty(globalThis, "performance", { value: { now: () => now } });
globalThis.document = { hidden: false, addEventListener() {} };
globalThis.setTimeout = (run, ms) => timers.push([now + ms, run]);
globalThis.requestAnimationFrame = (run) => timers.push([now + 16, run]);
globalThis.fetch = () => new Promise(() => {});
const heard = {};
globalThis.EventSource = class { addEventListener(name, run) { heard[name] = run; } };
const { begin, store, watch } = await import("STORE");
const frames = [];
watch(() => frames.push([now, store.jobs.get("one")?.progress.call]));
begin(() => false);
const tell = (name, data) => heard[name]({ data: JSON.stringify(data) });
function pass(ms) {
  const end = now + ms;
  for (;;) {
    const next = timers.filter(([at]) => at <= end).sort(([one], [other]) => one - other)[0];
    if (!next) return (now = end);
    timers.splice(timers.indexOf(next), 1);
    now = next[0];
    next[1]();
  }
}
tell("hello", { jobs: [], bundles: [], samplers: [], limits: {} });
pass(1000);
frames.length = 0;
tell("job", { id: "one", status: "generating", previews: [], pictures: [], progress: { call: 0 } });
for (let call = 1; call <= 40; call++) (pass(25), tell("progress", { job: "one", call }));
pass(500);
console.log(JSON.stringify(frames));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs a module of the page, and is not here")
def test_steps_are_shown_ten_times_a_second_and_the_first_and_last_at_once(tmp_path):
    """A browser without a graphics card spent more than a drawing's time on a frame for each of its steps."""
    for name in ("api", "store"):
        text = (PAGE / f"{name}.js").read_text(encoding="utf-8").replace("./api.js", "./api.mjs")
        (tmp_path / f"{name}.mjs").write_text(text, encoding="utf-8")
    script = TOLD.replace("STORE", (tmp_path / "store.mjs").as_uri())
    node = [str(shutil.which("node")), "--input-type=module"]
    done = subprocess.run(node, input=script.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    frames = json.loads(done.stdout)
    assert frames[:2] == [[2016, 0], [2041, 1]]
    assert frames[-1][1] == 40
    assert 10 <= len(frames) <= 13
    assert all(other - one >= 84 for (one, _), (other, _) in pairwise(frames[1:]))
