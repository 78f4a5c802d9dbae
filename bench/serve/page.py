"""What a user of the page waits for, by the browser's own clock; needs Chromium and Playwright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.serve.figures import Choices, Measured, figure, highest, p
from bench.serve.servers import Running, real
from tests.serve.browser import chromium, finished, opened

_PROMPT = "an otter on a teal background"
_WATCH = """() => {
    addEventListener("keydown", (event) => {
        if (event.key === "Enter") { window.asked = performance.now(); window.seen = undefined; }
    }, true);
    window.asked = 0;
    const painted = (list) => {
        for (const { renderTime } of list.getEntries()) if (renderTime > window.asked) window.seen ??= renderTime;
    };
    new PerformanceObserver(painted).observe({ type: "element" });
    const mark = () => document.querySelector(".tile .soft[src]")?.setAttribute("elementtiming", "preview");
    new MutationObserver(mark).observe(document, { subtree: true, childList: true, attributeFilter: ["src"] });
}"""
_SEEN = "() => typeof window.seen === 'number'"
_MANY = """async () => {
    const asked = { prompt: "an otter on a teal background", num_inference_steps: 900, num_images_per_prompt: 100 };
    await fetch("/api/v1/jobs", { method: "POST", body: JSON.stringify(asked),
        headers: { "content-type": "application/json" } });
}"""


@figure("V5", "first preview after Enter, warm", "≤ 1 UNet call + 50 ms", 20, timed=True)
def preview(choices: Choices, count: int) -> Measured:
    """Press Ctrl+Enter so often, and take when the first preview was painted; a call's time is that of the same jobs.

    Neither Playwright nor the page does anything else meanwhile: both have only the cores that draw.
    """
    times: list[float] = []
    with _page(choices) as (server, page):
        page.evaluate(_WATCH)
        for number in range(count + 1):  # the first loads
            page.fill("#seed", str(number))
            page.fill("#prompt", _PROMPT)
            page.wait_for_timeout(500)  # its tokens are counted
            page.keyboard.press("Control+Enter")
            page.wait_for_timeout(700)
            page.wait_for_function(_SEEN)
            times.append(page.evaluate("window.seen - window.asked") / 1e3)
            finished(page)
        call = _call(server)
    late = sum(one > call + 0.05 for one in times[1:])
    return Measured(f"{highest(times[1:])}; a call takes {1e3 * call:.1f} ms; {late} later", late <= count // 20)


@contextmanager
def _page(choices: Choices) -> Iterator[tuple[Running, Any]]:
    """Give a server, and its page in Chromium."""
    with (
        real(choices.bundle, *choices.serving) as server,
        chromium() as browser,
        opened(browser, f"http://localhost:{server.port}") as page,
    ):
        yield server, page


def _call(server: Running) -> float:
    """Return the seconds of a UNet call, from the jobs that ended."""
    jobs = server.client().get("/api/v1/jobs")["jobs"]
    took = [(job["completed"] - job["started"]) / job["progress"]["calls"] for job in jobs if job["pictures"]]
    return p(took, 50)


@figure("V10", "page reload during a drawing: to the newest preview", "100/100, ≤ 300 ms", 100, timed=True)
def reload(choices: Choices, count: int) -> Measured:
    """Reload in the middle of a job of many pictures; the job and its previews must be there again."""
    times: list[float] = []
    with _page(choices) as (_, page):
        page.add_init_script(f"({_WATCH})()")
        page.evaluate(_MANY)
        for _ in range(count):
            page.wait_for_timeout(300)
            page.reload(wait_until="commit")
            page.wait_for_function(_SEEN)
            times.append(page.evaluate("window.seen") / 1e3)
    good = sum(one <= 0.3 for one in times)  # noqa: PLR2004 - proposed
    return Measured(f"{len(times)}/{count} attached again, {good} within 300 ms; {highest(times)}", good == count)
