"""The page in a real Chromium: the whole flow, by keyboard and pointer, with the demo bundle."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tests.serve.browser import Server, draw, drop, finished, judged, opened, press, screen, sent

from nano_runtime import Pipeline

pytestmark = pytest.mark.slow
ROCKET = "a rocket on a black background"
LONG = "a rocket on a black background " * 20
PREVIEWED = """() => {
    const look = () => { if (document.querySelector(".tile .soft")) window.previewed = true; };
    new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true });
}"""
MARKUP = "<img src=x onerror=document.title='mine'>"


def test_first_picture_by_keyboard_has_the_pixels_of_python(browser, tmp_path):
    with Server(tmp_path) as server, opened(browser, server.url) as page:
        assert page.locator(".nothing").is_visible()
        assert "100 things on 12 colours" in page.inner_text("#hint")
        assert page.evaluate("document.activeElement.id") == "prompt"
        page.keyboard.type(ROCKET)
        while page.evaluate("document.activeElement.id") != "seed":
            page.keyboard.press("Tab")
        page.keyboard.type("7")
        page.evaluate(PREVIEWED)  # it is there for a tenth of a second, and Playwright may look before and after
        page.keyboard.press("Control+Enter")
        page.wait_for_function("() => window.previewed")
        finished(page)
        shown = page.locator("#stage img").get_attribute("src")
        drawn = Image.open(io.BytesIO(page.request.get(server.url + shown).body()))
        expected = Pipeline.from_pretrained()(ROCKET, seed=7).images[0]
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))
        assert (
            page.get_by_role("link", name="Download").get_attribute("download")
            == "a-rocket-on-a-black-background-7.png"
        )
        screen(page, "picture")


def test_five_wait_reload_in_the_middle_and_cancel(page):
    page.evaluate("document.getElementById('steps').value = '40'")  # some seconds, also on a fast machine
    for colour in ("red", "green", "blue", "pink", "white"):
        draw(page, f"a rocket on a {colour} background", count="8")
    page.wait_for_selector("#jobs li >> nth=4")
    page.wait_for_selector(".tile .soft")
    screen(page, "queue")
    page.reload()
    page.wait_for_selector("#jobs li >> nth=4")
    assert page.input_value("#prompt") == "a rocket on a white background"
    assert page.input_value("#count") == "8"
    page.wait_for_selector(".tile .soft")
    page.locator(".tile img:not(.soft)").first.wait_for()
    page.get_by_role("button", name="Cancel: a rocket on a white").click()
    page.wait_for_selector("#jobs li >> nth=4", state="detached")
    page.keyboard.press("Escape")  # the one under way: what it has done stays
    page.get_by_text("finished pictures kept").wait_for()
    kept = page.locator("#history li").count()
    assert kept >= 4
    page.get_by_role("button", name="Cancel all").click()
    finished(page)
    assert page.locator("#history li").count() >= kept


def test_pictures_and_lost_jobs_survive_a_crash(browser, tmp_path):
    with Server(tmp_path) as server, opened(browser, server.url) as page:
        draw(page, ROCKET)
        finished(page)
        draw(page, "a cactus on an orange background", count="100")
        page.wait_for_selector(".tile .soft")
        server.kill()
        page.get_by_text("does not answer").wait_for()
        draw(page, ROCKET)
        page.get_by_text("Is nano-serve still running?").wait_for()
        server.start()
        page.wait_for_selector(".link.on")
        page.get_by_text("Not finished when the server ended:").wait_for()
        assert page.get_by_role("button", name="Draw it again").is_visible()
        page.get_by_role("button", name="Draw again").click()
        page.wait_for_selector(".tile .soft")
        assert page.locator("#history li").count() >= 1
        page.keyboard.press("Escape")
        finished(page)
        page.faults[:] = [one for one in page.faults if "ERR_" not in one]  # the browser notes the dead server


def test_a_full_queue_is_said(browser, tmp_path):
    with Server(tmp_path, "--queue", "1") as server, opened(browser, server.url) as page:
        page.locator("#more summary").click()
        for number in range(3):
            draw(page, ROCKET, count="60", steps=str(20 + number))
            page.wait_for_timeout(300)
        page.wait_for_selector("#problem:not(:empty)")
        assert "no more may wait" in page.inner_text("#problem")
        page.get_by_role("button", name="Cancel all").click()
        finished(page)
        page.faults[:] = [one for one in page.faults if "429" not in one]


def test_the_stage_follows_what_is_drawn_when_a_job_ends_without_pictures(page):
    page.evaluate("document.getElementById('steps').value = '900'")
    draw(page, ROCKET)
    page.evaluate("document.getElementById('steps').value = ''")
    draw(page, "an owl on a white background")
    page.locator("#stage").get_by_text(ROCKET).wait_for()
    page.keyboard.press("Escape")
    page.locator("#stage").get_by_text("an owl on a white background").wait_for()
    finished(page)


def test_a_dropped_file_that_is_no_picture_is_refused(page, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    drop(page, broken, shown="text=broken.png is no picture that can be read.")
    assert page.locator("dialog").count() == 0


def test_settings_of_a_dropped_picture_are_asked_for(page, tmp_path):
    draw(page, ROCKET, seed="7", negative="blue")
    finished(page)
    url = page.locator("#stage img").get_attribute("src")
    ours = tmp_path / "ours.png"
    ours.write_bytes(page.request.get(page.url.rstrip("/") + url).body())
    page.fill("#prompt", "an owl")
    page.fill("#negative", "")
    drop(page, ours)
    press(page, "Cancel")
    assert page.input_value("#prompt") == "an owl"
    drop(page, ours)
    assert ROCKET in page.locator("dialog table").inner_text()
    screen(page, "drop")
    press(page, "Replace my settings")
    assert [page.input_value(f"#{one}") for one in ("prompt", "negative", "seed")] == [ROCKET, "blue", "7"]
    page.get_by_role("button", name="Undo").click()
    assert page.input_value("#prompt") == "an owl"
    theirs = tmp_path / "theirs.png"
    written = PngImagePlugin.PngInfo()
    written.add_text(
        "parameters", "a cat\nNegative prompt: dog\nSteps: 12, Sampler: Euler, CFG scale: 5, Seed: 9, Size: 8x8"
    )
    Image.new("RGB", (8, 8)).save(theirs, pnginfo=written)
    drop(page, theirs)
    press(page, "Replace my settings")
    found = [page.input_value(f"#{one}") for one in ("prompt", "negative", "seed", "steps", "guidance", "sampler")]
    assert found == ["a cat", "dog", "9", "12", "5", "euler"]
    plain = tmp_path / "plain.png"
    Image.new("RGB", (200, 100), "navy").save(plain)
    drop(page, plain)
    assert "does not say" in page.locator("dialog").inner_text()
    press(page, "Start from it")
    assert page.locator("#start img").get_attribute("alt") == "Start picture: plain.png"
    page.faults[:] = [one for one in page.faults if "404" not in one]  # Chromium notes the answer that nothing is said


@pytest.mark.parametrize("by", ["mouse", "touch", "keys"])
def test_a_mask_is_painted_where_the_pointer_is(browser, server, by):
    with opened(browser, server.url, has_touch=True) as page:
        draw(page, "a penguin on a blue background", seed="3")
        finished(page)
        before = pixels(page, server)
        page.get_by_role("button", name="Start from it").click()
        page.get_by_role("button", name="Paint a mask").click()
        page.fill("#brush-size", "40")
        canvas = page.locator("dialog canvas")
        box = canvas.bounding_box()
        where = {"x": box["width"] / 4, "y": box["height"] / 4}
        if by == "mouse":
            page.mouse.move(box["x"] + where["x"], box["y"] + where["y"])
            page.mouse.down()
            page.mouse.up()
        elif by == "touch":
            canvas.tap(position=where)
        else:
            canvas.focus()
            for _ in range(16):
                page.keyboard.press("ArrowLeft")
                page.keyboard.press("ArrowUp")
            page.keyboard.press("Space")
        share = page.locator("dialog .quiet").inner_text()
        assert share.startswith("8 %")  # 40 pixels across, of 128 x 128
        canvas.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.75})
        assert not page.locator("dialog .quiet").inner_text().startswith("8 %")
        page.keyboard.press("Control+z")
        assert page.locator("dialog .quiet").inner_text() == share
        page.get_by_role("button", name="Eraser").click()
        canvas.click(position=where)
        assert "Nothing is painted" in page.locator("dialog .quiet").inner_text()
        page.get_by_role("button", name="Undo").click()
        if by == "mouse":
            screen(page, "mask")
        press(page, "Use this mask")
        draw(page, "a pizza on a blue background")
        finished(page)
        moved = np.abs(pixels(page, server) - before).max(axis=2)
        rows, columns = np.nonzero(moved)
        assert rows.size > 100
        assert max(rows.max(), columns.max()) <= 32 + 20 + 8  # the brush, and its soft edge
        page.reload()
        page.wait_for_selector("#start .mask")


def test_siblings_delete_and_settings(page):
    draw(page, "a cactus on an orange background", seed="11")
    finished(page)
    sent(page, page.get_by_role("button", name="Siblings").click)
    finished(page)
    assert page.locator(".tile img").count() == 4
    page.locator(".tile").nth(1).click()
    assert "0.2" in page.locator(".facts").inner_text()
    count = page.locator("#history li").count()
    page.get_by_role("button", name="Use settings").click()
    assert "Variation 0.2" in page.locator("#kept").text_content()
    page.get_by_role("button", name="Delete").click()
    press(page, "Keep it")
    assert page.locator("#history li").count() == count
    page.locator("#history li button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    press(page, "Delete")
    page.locator(f"#history li >> nth={count - 1}").wait_for(state="detached")


def test_a_sheet_of_two_settings(page):
    page.fill("#prompt", ROCKET)
    page.locator("#more summary").click()
    page.get_by_role("button", name="X/Y sheet").click()
    page.fill("#across-values", "7, x")
    page.get_by_role("button", name="Draw the sheet").click()
    page.get_by_text("“x” is not a whole number").wait_for()
    page.fill("#across-values", "7, 8, 9")
    page.fill("#down-values", "1, 2")
    page.get_by_role("button", name="Draw the sheet").click()
    page.get_by_text("6 of 6 drawn").wait_for(timeout=60_000)
    assert page.locator(".sheet img").nth(4).get_attribute("alt") == "Seed 8, Guidance 2"
    finished(page)
    screen(page, "sheet")
    with page.expect_download() as loaded:
        page.get_by_role("button", name="Download the sheet").click()
    with Image.open(loaded.value.path()) as image:
        assert image.size == (130 + 3 * 132, 28 + 2 * 132)
    page.locator(".sheet button").nth(4).click()
    assert [page.locator(".facts dd").nth(one).inner_text() for one in (0, 3)] == ["8", "2"]
    page.reload()
    page.get_by_role("button", name="Last sheet").click()
    page.locator(".sheet img >> nth=5").wait_for()
    assert page.locator(".sheet img").count() == 6


def test_what_is_typed_is_judged_and_shown_as_text(page):
    page.fill("#prompt", LONG)
    page.locator("#cut:not([hidden])").wait_for()
    assert "rocket" in page.locator("#cut s").inner_text()
    assert page.locator("#tokens").inner_text().startswith("120 / 75")
    page.fill("#prompt", "a zebra on a red background")
    assert "“zebra”" in page.inner_text("#hint")
    page.locator("#suggestions button").first.click()
    assert page.input_value("#prompt") == "an otter on a red background"
    draw(page, MARKUP)
    finished(page)
    assert page.title() != "mine"
    assert MARKUP in page.locator("#stage .prompt").inner_text()
    draw(page, "a {red|blue} rocket on a black background")
    finished(page)
    assert page.locator("#stage .note").inner_text().startswith("{red|blue} in the prompt is read as words: ")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_every_state_is_accessible_and_fits(browser, server, theme, width):
    view = {"viewport": {"width": width, "height": 860}, "color_scheme": theme}
    with opened(browser, server.url, bypass_csp=True, **view) as page:
        judged(page, "empty")
        page.locator("#more summary").click()
        page.locator("#words summary").click()
        judged(page, "unfolded")
        page.locator("#more summary").click()
        page.locator("#words summary").click()
        draw(page, ROCKET, count="100", seed="7")  # more than a quick machine draws meanwhile
        draw(page, LONG, count="4")
        page.wait_for_selector(".tile .soft")
        judged(page, "drawing")
        page.locator(".tile img:not(.soft)").first.wait_for()
        page.get_by_role("button", name="Cancel all").click()
        finished(page)
        judged(page, "cancelled")
        page.locator("#more summary").click()
        page.get_by_role("button", name="X/Y sheet").click()
        judged(page, "sheet's axes")
        page.fill("#across-values", "1, 2")
        page.fill("#down-values", "1, 2")
        page.get_by_role("button", name="Draw the sheet").click()
        page.get_by_text("4 of 4 drawn").wait_for(timeout=60_000)
        judged(page, "sheet")
        page.locator("#more summary").click()
        draw(page, ROCKET, count="1", seed="7")
        finished(page)
        judged(page, "picture")
        if theme == "dark" and width != 768:
            page.evaluate(f"scrollTo(0, {120 if width == 360 else 0})")
            screen(page, "phone" if width == 360 else "dark")
        page.get_by_role("button", name="Delete").click()
        judged(page, "delete")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Start from it").click()
        page.get_by_role("button", name="Paint a mask").click()
        page.locator("dialog canvas").click()
        judged(page, "mask")
        press(page, "Use this mask")
        page.wait_for_selector("#start .mask")
        judged(page, "start picture")


def pixels(page, server) -> np.ndarray:
    """Return the picture on the stage, int16 [height, width, 3]."""
    shown = page.locator("#stage .canvas > img").get_attribute("src")
    image = Image.open(io.BytesIO(page.request.get(server.url + shown).body()))
    return np.asarray(image.convert("RGB")).astype(np.int16)
