"""The page's files: small, served as what they are, free of anything from elsewhere, and of sound syntax."""

from __future__ import annotations

import re
import shutil
import subprocess
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
