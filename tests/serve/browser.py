"""A real server in a process of its own, and a real Chromium that can resolve no name but this machine's."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
AXE = ROOT / "build" / "page-tools" / "package" / "axe.min.js"
SCREENS = os.environ.get("NANO_SCREENSHOTS")  # folder; `make serve-page` sets it
_RULES = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]
_START = "import sys; from nano_serve.cli import main; sys.exit(main(sys.argv[1:]))"
_ARGUMENTS = [
    "--no-sandbox",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-color-profile=srgb",
]

_BROKEN_WORDS = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (texts.nextNode()) {
        const place = texts.currentNode.parentElement.closest("h1, h2, button, a, label, summary, dt, th");
        if (!place || texts.currentNode.parentElement.closest(".what")) continue;
        for (const word of texts.currentNode.data.matchAll(/\\S+/g)) {
            const range = document.createRange();
            range.setStart(texts.currentNode, word.index);
            range.setEnd(texts.currentNode, word.index + word[0].length);
            if (range.getClientRects().length > 1) found.push(word[0]);
        }
    }
    return found;
}"""
_END_ALL = """async () => {
    const { jobs } = await (await fetch("/api/v1/jobs")).json();
    await Promise.all(jobs.map((job) => fetch(`/api/v1/jobs/${job.id}`, { method: "DELETE" })));
}"""

_ALL_ENDED = """async () => {
    for (;;) {
        const { jobs } = await (await fetch("/api/v1/jobs")).json();
        if (!jobs.some((job) => job.status === "queued" || job.status === "generating")) break;
        await new Promise((done) => setTimeout(done, 100));
    }
    return (await (await fetch("/api/v1/pictures?limit=1")).json()).pictures[0]?.id ?? null;
}"""


class Server:
    """A ``nano-serve`` that can be killed and started again with the same port and pictures."""

    def __init__(self, history: Path, *options: str) -> None:
        self.history, self.options, self.port = history, options, "0"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it says where it is."""
        command = [sys.executable, "-c", _START, "--port", self.port, "--history", str(self.history), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://localhost:(\d+)", self.process.stdout.readline())
        assert found is not None
        self.url, self.port = found[0], found[1]

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Server:  # noqa: PYI034 - Self is of Python 3.11
        """Use it."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End it, whatever happened."""
        if kind is None:
            assert self.stop() == 0
        else:
            self.kill()

    def stop(self) -> int:
        """End it as Ctrl-C does; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@contextmanager
def chromium() -> Iterator[Any]:
    """Give the browser; the test is skipped with the reason where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str, start: str = "", **options: Any) -> Iterator[Any]:
    """Give a page in a fresh profile, opened at ``url + start``; nothing may go wrong or be asked elsewhere."""
    faults: list[str] = []
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
    page = _tab(context, url, start, faults)
    yield page
    page.evaluate(_END_ALL)
    context.close()
    assert faults == []


def beside(page: Any, url: str) -> Any:
    """Open a further tab of the same browser; what goes wrong in it is found with the first one's faults."""
    return _tab(page.context, url, "", page.faults)


def _tab(context: Any, url: str, start: str, faults: list[str]) -> Any:
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("console", lambda one: faults.append(one.text) if one.type in {"error", "warning"} else None)
    page.on("pageerror", lambda one: faults.append(str(one)))
    own = (url, "data:", "blob:")
    page.on("request", lambda one: None if one.url.startswith(own) else faults.append(one.url))
    page.goto(url + start)
    page.wait_for_selector(".link.on")
    page.faults = faults
    return page


def judged(page: Any, state: str) -> None:
    """Check a state: by axe-core, and that nothing is too wide or broken within a word; needs ``bypass_csp``."""
    if not AXE.is_file():
        pytest.skip("needs axe-core: make serve-page fetches it")
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=str(AXE))
    page.wait_for_timeout(250)
    found = page.evaluate(f"axe.run(document, {{runOnly: {_RULES}}})")
    broken = {one["id"]: [node["target"] for node in one["nodes"]] for one in found["violations"]}
    assert broken == {}, state
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state
    assert page.evaluate(_BROKEN_WORDS) == [], state


def draw(page: Any, prompt: str, **fields: str) -> None:
    """Type a prompt and press Ctrl+Enter; the server has answered when this returns, if it is there."""
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.fill("#prompt", prompt)
    sent(page, lambda: page.keyboard.press("Control+Enter"))


def sent(page: Any, act: Callable[[], None]) -> None:
    """Do what sends a job, and wait for the server's answer."""
    with page.expect_request(lambda one: one.method == "POST" and one.url.endswith("/jobs")) as asked:
        act()
    asked.value.response()
    page.wait_for_timeout(150)  # some frames


def finished(page: Any) -> None:
    """Wait until nothing waits or is drawn, and the page shows it."""
    newest = page.evaluate(_ALL_ENDED)
    page.wait_for_selector("#queue", state="hidden")
    if newest is not None:  # a tab behind others is given few frames on a busy machine
        page.wait_for_selector(f"#history [data-id='{newest}']", state="attached")
    page.wait_for_timeout(300)


def drop(page: Any, *paths: Path, shown: str = "dialog[open]") -> None:
    """Drop files on the page, as a file manager does, and wait for what is shown then."""
    named = [[path.read_bytes().hex(), path.name] for path in paths]
    page.evaluate(
        """(named) => {
            const moved = new DataTransfer();
            for (const [hex, name] of named) {
                const bytes = Uint8Array.from(hex.match(/../g), (two) => parseInt(two, 16));
                moved.items.add(new File([bytes], name, { type: "image/png" }));
            }
            for (const kind of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(
                    new DragEvent(kind, { dataTransfer: moved, bubbles: true, cancelable: true }));
        }""",
        named,
    )
    page.wait_for_selector(shown)


def press(page: Any, name: str) -> None:
    """Press a button of the dialog, and wait until it is closed."""
    page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()
    page.wait_for_selector("dialog", state="detached")
    page.wait_for_timeout(150)


def sheet(page: Any, across: str, down: str) -> None:
    """Have a sheet drawn of the values of its two axes."""
    page.locator("#more summary").click()
    page.get_by_role("button", name="X/Y sheet").click()
    page.fill("#across-values", across)
    page.fill("#down-values", down)
    page.get_by_role("button", name="Draw the sheet").click()


def screen(page: Any, name: str, *, whole: bool = False) -> None:
    """Make a screenshot for the docs, if they are wanted."""
    if SCREENS is None:
        return
    from PIL import Image  # noqa: PLC0415

    page.mouse.move(0, 0)
    page.wait_for_timeout(350)
    target = Path(SCREENS) / f"{name}.webp"
    target.parent.mkdir(parents=True, exist_ok=True)
    raw = target.with_suffix(".png")
    page.screenshot(path=str(raw), full_page=whole)
    with Image.open(raw) as image:
        image.convert("RGB").save(target, quality=82, method=6)
    raw.unlink()
