"""Several tabs of the page in one Chromium, with the demo bundle: all show what the server has."""

from __future__ import annotations

import pytest
from tests.serve.browser import beside, draw, finished, opened, press, sheet

pytestmark = pytest.mark.slow
ROCKET = "a rocket on a black background"
CACTUS = "a cactus on an orange background"
LONG = "100"  # pictures: more than are drawn while a test looks
MOST_CONNECTIONS = 6  # of a browser to one server
_UNSEEN = """() => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
_SEEN = """() => {
    delete document.hidden;
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture
def tabs(browser, server):
    with opened(browser, server.url) as first:
        yield first, beside(first, server.url)


def test_two_tabs_show_one_queue_and_one_history(tabs):
    """A job of each is cancelled in the other; pictures that are drawn stay in both."""
    one, other = tabs
    draw(one, ROCKET, count=LONG)
    draw(other, CACTUS, count=LONG)
    for tab in tabs:
        tab.wait_for_selector("#jobs li >> nth=1")
        assert tab.locator("#jobs .what").all_inner_texts() == [ROCKET, CACTUS]
        tab.locator("#history li").first.wait_for()
    other.get_by_role("button", name=f"Cancel: {ROCKET}").click()
    for tab in tabs:
        tab.wait_for_selector("#jobs li >> nth=1", state="detached")
        tab.get_by_text("finished pictures kept").or_(tab.get_by_text("finished picture kept")).first.wait_for()
    one.get_by_role("button", name=f"Cancel: {CACTUS}").click()
    for tab in tabs:
        finished(tab)
    assert names(one) == names(other) != []


def test_a_picture_deleted_in_one_tab_is_gone_in_the_other(tabs, server):
    """From the history, from its job while that goes on, and from the table of a sheet."""
    one, other = tabs
    one.fill("#prompt", ROCKET)
    sheet(one, "7, 8", "1")
    one.get_by_text("2 of 2 drawn").wait_for()
    finished(one)
    delete(other, names(other)[0])
    one.get_by_text("1 of 2 drawn").wait_for()
    assert one.locator(".sheet img").count() == 1
    draw(one, ROCKET, count=LONG)
    one.locator("#jobs .row-main").click()
    one.locator(".tile img:not(.soft)").first.wait_for()
    first = one.locator(".tile img:not(.soft)").first.get_attribute("src")
    delete(other, first.rpartition("/")[2])
    for tab in tabs:
        tab.locator(f"#history [data-id='{first.rpartition('/')[2]}']").wait_for(state="detached")
    drawn = one.locator("#history li").count()
    one.locator(f"#history li >> nth={drawn + 3}").wait_for()  # the job goes on, and is told of again
    assert one.locator(f"img[src='{first}']").count() == 0
    one.reload()
    one.locator(".tile img:not(.soft)").first.wait_for()
    assert one.locator(f"img[src='{first}']").count() == 0
    assert one.request.get(server.url + first).status == 404


def test_one_tab_is_reloaded_while_the_other_draws(tabs):
    """It shows the job again, and each keeps what was typed in it."""
    one, other = tabs
    one.fill("#prompt", "an owl")
    draw(other, ROCKET, count="40")
    for _ in range(3):
        one.reload()
        one.wait_for_selector("#jobs li")
        one.locator(".tile img").first.wait_for()
        assert one.input_value("#prompt") == "an owl"
    for tab in tabs:
        finished(tab)
    assert names(one)[:40] == names(other)[:40]
    other.fill("#prompt", CACTUS)
    assert beside(one, one.url).input_value("#prompt") == CACTUS  # a new tab begins with what was typed last


def test_what_happens_while_the_history_is_on_its_way_counts(tabs):
    """Its answer is older than the events that came before it."""
    one, other = tabs
    draw(other, ROCKET, count="2")
    finished(other)
    gone = names(other)[0]
    held = []
    one.route("**/api/v1/pictures?*", lambda route: held.append((route, route.fetch())))
    one.reload()
    one.wait_for_selector(".link.on")
    draw(other, CACTUS, count="1")
    finished(other)
    delete(other, gone)
    one.wait_for_timeout(500)
    for route, answer in held:
        route.fulfill(response=answer)
    one.unroute("**/api/v1/pictures?*")
    assert held != []
    one.locator(f"#history [data-id='{names(other)[1]}']").wait_for()
    shown = names(one)
    assert gone not in shown
    assert shown == names(other)[: len(shown)]  # a page of them


def test_tabs_that_nobody_sees_leave_their_connections_to_others(tabs, server):
    """Else the seventh would not even load. What happened meanwhile is shown when one is seen again."""
    one, other = tabs
    draw(other, ROCKET)
    finished(other)
    gone = names(other)[0]
    one.locator(f"#history [data-id='{gone}']").click()
    for _ in range(MOST_CONNECTIONS + 2):
        one.evaluate(_UNSEEN)
        tab = beside(one, server.url)
        tab.evaluate(_UNSEEN)
    one.wait_for_timeout(6000)
    delete(other, gone)
    draw(other, CACTUS)
    finished(other)
    assert gone in names(one)
    one.evaluate(_SEEN)
    one.locator(f"#history [data-id='{names(other)[0]}']").wait_for()
    one.locator(f"#history [data-id='{gone}']").wait_for(state="detached")
    shown = names(one)
    assert shown == names(other)[: len(shown)]
    assert one.locator(f"#stage img[src$='{gone}']").count() == 0


def names(tab) -> list[str]:
    """Return the ids of the pictures in a tab's history."""
    return tab.eval_on_selector_all("#history button", "all => all.map((one) => one.dataset.id)")


def delete(tab, name: str) -> None:
    """Delete a picture in a tab."""
    tab.locator(f"#history [data-id='{name}']").click()
    tab.locator(f"#stage .canvas > img[src$='{name}']").wait_for()
    tab.get_by_role("button", name="Delete").click()
    press(tab, "Delete")
    tab.locator(f"#history [data-id='{name}']").wait_for(state="detached")
