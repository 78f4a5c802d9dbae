"""The page in a real Firefox: the first picture by keyboard, its previews, and nothing that went wrong."""

from __future__ import annotations

import pytest
from tests.serve.browser import Server
from tests.serve.firefox import firefox

pytestmark = pytest.mark.slow
CONTROL, ENTER = "\ue009", "\ue007"  # of the WebDriver standard
WATCH = """
    window.faults = [];
    addEventListener("error", (event) => window.faults.push(event.message));
    addEventListener("unhandledrejection", (event) => window.faults.push(String(event.reason)));
    document.addEventListener("securitypolicyviolation", (event) => window.faults.push(event.violatedDirective));
    window.soft = 0;
    new MutationObserver(() => { if (document.querySelector(".tile .soft")) window.soft += 1; })
        .observe(document.body, { childList: true, subtree: true, attributes: true });
    return true;
"""


def test_the_first_picture(tmp_path):
    (tmp_path / "profile").mkdir()
    with Server(tmp_path / "pictures") as server, firefox(tmp_path / "profile") as page:
        page.open(server.url)
        page.wait("return document.querySelector('.link.on') !== null")
        page.script(WATCH)
        page.type("#prompt", "a rocket on a black background")
        page.type("#prompt", CONTROL + ENTER)
        size = page.wait(
            "const one = document.querySelector('#stage .details') && document.querySelector('#stage img');"
            "return one?.src.includes('/pictures/') && one.complete && one.naturalWidth"
        )
        assert size == 128
        assert page.script("return window.soft") > 0
        page.wait("return document.querySelectorAll('#history li').length === 1")
        assert page.script("return [...window.faults]") == []
        page.open(server.url)
        page.wait("return document.querySelectorAll('#history li').length === 1")
        assert page.script("return document.getElementById('prompt').value") == "a rocket on a black background"
