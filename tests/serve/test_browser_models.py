"""The page in Chromium with models that cannot edit or fail, with a token, and beside a foreign page."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from tests.runtime.fakes import make_bundle
from tests.serve.browser import ROOT, Server, beside, draw, finished, judged, opened, screen

from nano_runtime import Bundle

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-sixteen-and-more"  # noqa: S105 - of a test


@pytest.fixture(scope="module")
def url(tmp_path_factory, browser):  # noqa: ARG001 - without a browser, no server
    """A server with three bundles: two that draw, one of them without an encoder, and one that has no memory."""
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder / "paints", name="paints")
    whole = Bundle.open(folder / "paints").manifest.components
    without = {name: one for name, one in whole.items() if name != "vae_encoder"}
    make_bundle(folder / "plain", name="plain", components=without)
    make_bundle(folder / "broken", name="broken")
    command = [sys.executable, "-m", "tests.serve.fake_server", str(folder / "pictures")]
    command += [str(folder / name) for name in ("paints", "plain", "broken")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    yield f"http://localhost:{process.stdout.readline().strip()}"
    process.terminate()
    process.wait(20)
    process.stdout.close()


def test_a_model_that_cannot_edit_offers_no_start_picture(browser, url):
    with opened(browser, url) as page:
        draw(page, "a red fox", seed="7")
        finished(page)
        page.get_by_role("button", name="Start from it").click()
        page.get_by_role("button", name="Paint a mask").wait_for()  # the picture is fetched first
        page.select_option("#bundle", label="plain")
        page.get_by_text("cannot start from a picture").wait_for()
        page.get_by_role("button", name="Start from it").wait_for(state="detached")
        draw(page, "a blue owl", seed="7")
        finished(page)
        facts = page.locator(".facts").inner_text()
        assert "plain" in facts
        assert "Strength" not in facts
        assert page.get_by_role("button", name="Start from it").count() == 0
        page.locator("#history li button").nth(1).click()
        page.locator(".facts").get_by_text("paints").wait_for()
        page.get_by_role("button", name="Use settings").click()
        assert page.locator("#bundle option:checked").inner_text() == "paints"
        assert page.get_by_role("button", name="Start from it").is_visible()
        page.reload()
        page.wait_for_selector(".link.on")
        assert page.locator("#bundle option:checked").inner_text() == "paints"


def test_a_job_that_fails_says_why_and_what_to_do(browser, url):
    with opened(browser, url) as page:
        page.select_option("#bundle", label="broken")
        draw(page, "a red fox")
        page.locator("#stage .problem").wait_for()
        assert "memory" in page.locator("#stage .problem").inner_text()
        screen(page, "failed")
        page.get_by_role("button", name="Use settings").click()
        assert page.input_value("#prompt") == "a red fox"
        page.select_option("#bundle", label="paints")
        draw(page, "a blue owl")
        finished(page)
        assert "paints" in page.locator(".facts").inner_text()


def test_a_bundle_that_cannot_be_loaded_says_so_and_is_tried_again(browser, tmp_path: Path):
    """Also after a reload: the reason was lost, as if nothing had been asked for."""
    bundle = tmp_path / "drawer"
    shutil.copytree(Path(str(files("nano_runtime") / "demo")), bundle)
    with Server(tmp_path / "pictures", "--bundle", str(bundle)) as server, opened(browser, server.url) as page:
        unet = (bundle / "unet" / "model.onnx").rename(tmp_path / "elsewhere")
        draw(page, "a rocket on a black background", seed="7")
        said = page.locator("#stage .problem")
        said.get_by_text("drawer/unet/model.onnx is not the file the manifest describes: it is missing.").wait_for()
        assert page.locator(".toast").count() == 0  # it stands on the stage already
        again = beside(page, server.url)
        again.locator("#stage .problem").wait_for()
        assert again.inner_text("#stage .problem") == said.inner_text()
        again.get_by_role("button", name="Use settings").wait_for()
        page.get_by_role("button", name="Try again").click()
        page.locator("#stage progress").or_(said).first.wait_for()
        finished(page)
        unet.rename(bundle / "unet" / "model.onnx")
        page.get_by_role("button", name="Try again").click()
        page.locator(".facts").get_by_text("7", exact=True).wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_without_the_token_is_asked_for_it(browser, tmp_path: Path, theme):
    with Server(tmp_path, "--token", TOKEN) as server:
        for width in (360, 1440):
            view = {"viewport": {"width": width, "height": 640}, "color_scheme": theme}
            context = browser.new_context(bypass_csp=True, **view)
            page = context.new_page()
            page.goto(server.url)
            judged(page, f"token, {theme}, {width}")
            page.fill("#token", "another")
            page.keyboard.press("Enter")
            page.get_by_text("not the server\u2019s token").wait_for()
            judged(page, f"wrong token, {theme}, {width}")
            context.close()
        page = browser.new_context(color_scheme=theme).new_page()
        faults: list[str] = []
        page.on("console", lambda one: faults.append(one.text) if one.type in {"error", "warning"} else None)
        page.goto(server.url)
        assert page.evaluate("getComputedStyle(document.querySelector('main')).borderTopLeftRadius") == "16px"
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector(".link.on")
        assert page.url == f"{server.url}/"
        assert [one for one in faults if "401" not in one] == []
        page.context.close()


def test_a_token_is_taken_out_of_the_address_and_kept(browser, tmp_path: Path):
    with _locked(browser, tmp_path) as (server, page):
        assert page.url == f"{server.url}/"
        draw(page, "an otter on a teal background")
        finished(page)
        page.reload()
        page.wait_for_selector(".link.on")
        assert page.locator("#history li").count() == 1
        assert page.evaluate("document.cookie") == ""
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]
        page.context.clear_cookies()
        server.kill()
        server.start()
        page.get_by_text("wants a token").wait_for()
        page.get_by_role("link", name="Enter it").click()
        page.fill("#token", TOKEN)
        page.get_by_role("button", name="Open").click()
        page.wait_for_selector(".link.on")
        page.faults[:] = [one for one in page.faults if "ERR_" not in one and "401" not in one]


def test_a_foreign_page_reads_draws_and_stops_nothing_unless_it_is_allowed(browser, tmp_path: Path):
    """KoboldAI Lite and its like run in a page of their own; so does whoever wants to do harm."""
    with _foreign_page() as page_url:
        for allowed in (False, True):
            options = ("--allow-origin", page_url) if allowed else ()
            with Server(tmp_path, *options) as server:
                page = browser.new_context().new_page()
                page.goto(page_url)
                read = f"{server.url}/sdapi/v1/sd-models"
                assert page.evaluate(_READ, read) == ("demo" if allowed else "refused")
                drawn = {"prompt": "an otter on a teal background", "seed": 7, "steps": 2}
                found = page.evaluate(_DRAW, [f"{server.url}/sdapi/v1/txt2img", drawn])
                assert found.startswith("iVBOR" if allowed else "refused")
                page.evaluate(_FORMS, server.url)
                page.context.close()
                jobs = browser.new_context().request.get(f"{server.url}/api/v1/jobs").json()["jobs"]
                assert len(jobs) == int(allowed)


_READ = """(url) => fetch(url).then((one) => one.json()).then((one) => one[0].model_name, () => "refused")"""
_DRAW = """([url, body]) => fetch(url, { method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify(body) }).then((one) => one.json()).then((one) => one.images[0], () => "refused")"""
_FORMS = """async (url) => {
    const ended = (one) => new Promise((done) => ((one.onload = one.onerror = done), setTimeout(done, 2000)));
    const image = new Image();
    const seen = ended(image);
    image.src = `${url}/sdapi/v1/interrupt`;
    await seen;
    const blind = { method: "POST", mode: "no-cors", body: JSON.stringify({ prompt: "owl" }) };
    for (const path of ["api/v1/jobs", "sdapi/v1/txt2img"]) await fetch(`${url}/${path}`, blind).catch(() => null);
    const frame = document.body.appendChild(document.createElement("iframe"));
    const form = document.body.appendChild(document.createElement("form"));
    Object.assign(frame, { name: "there" });
    Object.assign(form, { action: `${url}/api/v1/jobs`, method: "post", enctype: "text/plain", target: "there" });
    const field = form.appendChild(document.createElement("input"));
    Object.assign(field, { name: '{"prompt": "owl", "x', value: '": 1}' });
    const sent = ended(frame);
    form.submit();
    await sent;
}"""


@contextmanager
def _foreign_page():
    """Give the address of an empty page of another server."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>foreign</title>")

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def _locked(browser, pictures):
    """Give a server that wants a token, and its page, opened as ``--open`` does."""
    with Server(pictures, "--token", TOKEN) as server, opened(browser, server.url, f"/?token={TOKEN}") as page:
        yield server, page
