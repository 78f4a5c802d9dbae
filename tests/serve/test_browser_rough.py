"""The page in Chromium, handled roughly: held keys, many and huge files, odd words, odd storage, a server that goes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.serve.browser import Server, draw, drop, finished, opened, press, sent, sheet

pytestmark = pytest.mark.slow
ROCKET = "a rocket on a black background"
RIGHT_TO_LEFT = "\u0635\u0627\u0631\u0648\u062e \u0623\u062d\u0645\u0631"
MOST_KEPT = 1_500_000  # characters of a start picture
LINES = """(one) => {
    const all = document.createRange();
    all.selectNodeContents(one);
    return all.getClientRects().length;
}"""
FITS = "(one) => one.scrollWidth <= one.clientWidth"


@pytest.mark.parametrize("place", ["#prompt", "#count", "#draw"])
def test_a_key_that_is_held_down_sends_one_job(page, place):
    """It repeats thirty times a second, and filled the queue in half of one."""
    asked = []
    page.on(
        "request", lambda one: asked.append(one.url) if one.method == "POST" and one.url.endswith("/jobs") else None
    )
    page.fill("#prompt", ROCKET)
    page.locator(place).focus()
    if place == "#prompt":
        page.keyboard.down("Control")
    for _ in range(20):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    finished(page)
    assert len(asked) == 1
    page.locator("#prompt").press("End")
    for _ in range(3):
        page.keyboard.down("Enter")
    assert page.input_value("#prompt") == ROCKET + 3 * "\n"  # new lines repeat


def test_of_many_files_the_first_is_taken_and_that_is_said(page, tmp_path: Path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (20 + number, 20), "navy").save(path)
    drop(page, *paths)
    page.get_by_text("only the first is opened").wait_for()
    assert page.inner_text("dialog h2") == "0.png"
    drop(page, paths[1])  # one question at a time
    assert page.locator("dialog").count() == 1
    assert page.locator("#drop").is_hidden()
    press(page, "Cancel")
    page.faults[:] = [one for one in page.faults if "404" not in one]  # Chromium notes the answer that nothing is said


def test_a_picture_of_another_format_is_refused_at_once(page, tmp_path: Path):
    """It was offered to start from, and then could not be drawn from."""
    Image.new("RGB", (20, 20), "navy").save(tmp_path / "one.gif")
    page.set_input_files("#file", tmp_path / "one.gif")
    page.get_by_text("Only PNG, JPEG and WebP pictures are read.").wait_for()
    assert page.locator("dialog").count() == 0


def test_a_large_picture_is_made_smaller_so_that_it_is_kept(page, tmp_path: Path):
    """One of 20 MB and more made the tab crash, and any of more than 1 MB was lost with a reload."""
    noise = np.random.default_rng(1).integers(0, 256, (2500, 3000, 3), np.uint8)
    photo = Image.fromarray(noise[:500, :750]).resize((3000, 2000), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.jpg", quality=95)
    assert (tmp_path / "photo.jpg").stat().st_size > 1e6
    Image.fromarray(noise).save(tmp_path / "huge.png", compress_level=0)
    assert (tmp_path / "huge.png").stat().st_size > 20e6
    for name, said in (("huge.png", "too large to look for"), ("photo.jpg", "does not say how")):
        page.set_input_files("#file", tmp_path / name)
        page.locator("dialog").get_by_text(said).wait_for()
        press(page, "Start from it")
        draw(page, ROCKET)
        finished(page)
        assert "Strength" in page.locator(".facts").inner_text() or page.get_by_text("Drawn from another").is_visible()
    assert len(page.locator("#start img").get_attribute("src")) < MOST_KEPT
    page.reload()
    page.wait_for_selector(".link.on")
    assert page.locator("#start img").get_attribute("alt") == "Start picture: photo.jpg"
    page.faults[:] = [one for one in page.faults if "404" not in one]


@pytest.mark.parametrize("width", [360, 1280])
def test_long_words_stay_in_their_place(browser, server, tmp_path: Path, width):
    with opened(browser, server.url, viewport={"width": width, "height": 740}) as page:
        page.fill("#prompt", "x" * 400)
        page.locator("#cut:not([hidden])").wait_for()
        assert page.locator("#cut").evaluate(FITS)
        draw(page, "x" * 400, seed="1234567890")
        finished(page)
        assert page.locator("#seed").evaluate(FITS)
        assert page.locator("#stage .prompt").evaluate(FITS)
        assert page.locator("#stage .note").inner_text().endswith("x\u2026")  # no full stop after it
        url = page.locator("#stage img").get_attribute("src")
        ours = tmp_path / "ours.png"
        ours.write_bytes(page.request.get(server.url + url).body())
        page.fill("#prompt", "an owl " * 60)
        drop(page, ours)
        for head in ("Setting", "Yours", "Prompt"):  # they were broken between letters
            assert page.locator("dialog").get_by_text(head, exact=True).evaluate(LINES) == 1
        assert page.locator("dialog").evaluate(FITS)
        press(page, "Cancel")
        page.fill("#prompt", ROCKET)
        sheet(page, "1, 2, 3, 4, 5", "1")
        page.get_by_text("5 of 5 drawn").wait_for()
        finished(page)
        assert page.locator(".sheet tbody th").evaluate(LINES) == 1
        assert page.locator(".stage .scroll").evaluate(FITS) or width == 360


def test_words_from_right_to_left_begin_at_the_right(page):
    page.fill("#prompt", RIGHT_TO_LEFT)
    one, other = RIGHT_TO_LEFT.split()
    page.get_by_text(f"\u2068\u201c{one}\u201d\u2069, \u2068\u201c{other}\u201d\u2069").wait_for()
    draw(page, RIGHT_TO_LEFT, seed="7")
    finished(page)
    for place in ("#prompt", "#stage .prompt"):
        assert page.locator(place).evaluate("(one) => getComputedStyle(one).direction") == "rtl"
    named = page.get_by_role("link", name="Download").get_attribute("download")
    assert named == f"{one}-{other}-7.png"


@pytest.mark.parametrize("kept", ["[]", "5", '"x"', "null", '{"jobs": 3, "start": {"url": 5}}', "{"])
def test_what_another_version_kept_in_the_browser_does_no_harm(browser, server, kept):
    with opened(browser, server.url) as page:
        page.add_init_script(
            f"for (const name of ['fields', 'sheet']) localStorage.setItem(`nano-serve.${{name}}`, {json.dumps(kept)});"
            "sessionStorage.clear();"
        )
        page.reload()
        page.wait_for_selector(".link.on")
        draw(page, ROCKET)
        finished(page)


@pytest.mark.parametrize("kind", ["none", "full"])
def test_a_browser_that_keeps_nothing_draws(browser, server, kind):
    with opened(browser, server.url) as page:
        page.add_init_script(_NO_STORAGE if kind == "none" else _FULL_STORAGE)
        page.reload()
        page.wait_for_selector(".link.on")
        draw(page, ROCKET)
        finished(page)
        page.get_by_role("button", name="Start from it").click()
        page.wait_for_selector("#start img")


def test_the_lock_takes_the_seed_of_the_picture_that_is_shown(browser, tmp_path: Path):
    with Server(tmp_path) as server, opened(browser, server.url) as page:
        page.locator("#lock").click()  # there is no picture yet: a new seed
        assert page.input_value("#seed").isdigit()
        assert page.locator("#lock").get_attribute("aria-pressed") == "true"
        for seed in ("11", "12"):
            draw(page, ROCKET, seed=seed)
            finished(page)
        assert page.locator("#history [aria-current=true]").count() == 1
        assert page.locator("#history button").first.get_attribute("aria-current") == "true"
        page.locator("#history button").nth(1).click()
        page.locator(".facts").get_by_text("11", exact=True).wait_for()
        assert page.locator("#history button").nth(1).get_attribute("aria-current") == "true"
        page.fill("#seed", "")
        page.locator("#lock").click()
        assert page.input_value("#seed") == "11"


def test_keys_go_on_from_the_next_picture_after_one_was_deleted(browser, tmp_path: Path):
    with Server(tmp_path) as server, opened(browser, server.url) as page:
        draw(page, ROCKET, count="4")
        finished(page)
        names = page.eval_on_selector_all("#history button", "all => all.map((one) => one.dataset.id)")
        page.locator("#history button").nth(1).focus()
        for gone in names[1:3]:
            page.keyboard.press("Delete")
            press(page, "Delete")
            page.wait_for_selector(f"#history [data-id='{gone}']", state="detached")
        assert page.evaluate("document.activeElement.dataset.id") == names[3]
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.activeElement.dataset.id") == names[0]


def test_escape_does_not_throw_away_what_is_painted(page):
    draw(page, ROCKET)
    finished(page)
    page.get_by_role("button", name="Start from it").click()
    page.get_by_role("button", name="Paint a mask").click()
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.get_by_role("button", name="Paint a mask").click()
    page.locator("dialog canvas").click()
    painted = page.locator("dialog .quiet").inner_text()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").get_by_role("button", name="Undo").click()
    page.get_by_role("dialog").get_by_role("button", name="Redo").click()
    assert page.locator("dialog .quiet").inner_text() == painted
    press(page, "Use this mask")
    page.wait_for_selector("#start .mask")


def test_the_rest_of_a_sheet_is_drawn_after_the_server_was_lost(browser, tmp_path: Path):
    """Its cells stayed empty: the new server knew nothing of the jobs that they waited for."""
    with Server(tmp_path) as server, opened(browser, server.url) as page:
        page.fill("#prompt", ROCKET)
        page.locator("#more summary").click()
        page.fill("#steps", "60")
        page.get_by_role("button", name="X/Y sheet").click()
        page.fill("#across-values", "1, 2, 3, 4, 5, 6, 7, 8")
        page.select_option("#down", "")
        sent(page, page.get_by_role("button", name="Draw the sheet").click)
        page.locator(".sheet img").first.wait_for()
        server.kill()
        page.get_by_text("does not answer").wait_for()
        server.start()
        page.wait_for_selector(".link.on")
        page.get_by_role("button", name="Forget all").click()
        page.wait_for_selector("#queue", state="hidden")
        page.get_by_role("button", name="Draw the rest").click()
        page.get_by_text("8 of 8 drawn").wait_for(timeout=60_000)
        finished(page)
        page.faults[:] = [one for one in page.faults if "ERR_" not in one]


def test_the_head_of_a_narrow_page_has_room_for_a_lost_server(browser, tmp_path: Path):
    with Server(tmp_path) as server, opened(browser, server.url, viewport={"width": 360, "height": 740}) as page:
        server.kill()
        page.get_by_text("does not answer").wait_for()
        page.evaluate("document.querySelector('#bundle option').text = 'a-bundle-with-a-long-name-int8'")
        assert page.locator(".brand").evaluate(FITS)
        boxes = [page.locator(one).bounding_box() for one in (".brand", "#bundle", "#link")]
        for place, one in enumerate(boxes):
            for other in boxes[place + 1 :]:
                beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
                assert beside or one["y"] + one["height"] <= other["y"], boxes
        server.start()
        page.wait_for_selector(".link.on")
        page.faults[:] = [one for one in page.faults if "ERR_" not in one]


def test_what_is_pressed_is_seen_in_forced_colours(browser, server):
    with opened(browser, server.url, forced_colors="active") as page:
        outline = "(one) => getComputedStyle(one).outlineStyle"
        assert page.locator("#lock").evaluate(outline) == "none"
        page.locator("#dice").click()
        assert page.locator("#lock").evaluate(outline) == "solid"


_NO_STORAGE = """for (const name of ["localStorage", "sessionStorage"])
    Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });"""
_FULL_STORAGE = """Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };"""
