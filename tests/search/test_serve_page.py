"""The search page in a real browser: by text, picture, row and click, with the keyboard, narrow, and without faults."""

import re

import pytest
from browser import NARROW, WIDE, new_page, overflow

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(browser, request):
    """Open a page of a server; at the end nothing may have been complained of."""
    contexts = []

    def open_page(server, path="/", size=WIDE):
        context = new_page(browser, size)
        page, faults = context.__enter__()
        contexts.append((context, faults))
        page.set_default_timeout(15_000)
        page.goto(server.url + path)
        page.wait_for_selector("#results li")
        return page

    yield open_page
    for context, faults in contexts:
        context.__exit__(None, None, None)
        assert faults == []


def settled(page):
    page.wait_for_selector("#results:not(.busy) h2")
    return page


def tiles(page):
    return page.locator("#results .tile")


def has(page, selector, count):
    """Wait until the page has so many of an element; a string of JavaScript would need a laxer policy of the page."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_count(count, timeout=15_000)


def search(page, text):
    page.fill("#text", text)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#results h2:text-is('“{text}”')")
    return settled(page)


def test_a_stranger_is_told_what_the_page_is_and_has_rows_to_begin_with(opened, emoji_server):
    page = opened(emoji_server)
    assert "Retrieval is by class" in page.inner_text("header")
    assert "9 classes" in page.inner_text("#run")
    assert tiles(page).count() == 12
    assert page.evaluate("document.activeElement.id") == "text"
    assert page.title() == "emoji: search by class"


def test_a_text_finds_pictures_whose_neighbours_are_a_click_away(opened, emoji_server):
    page = search(opened(emoji_server), "red flag")
    assert tiles(page).count() == 10
    assert page.locator(".tile img").count() == 10
    assert page.evaluate("[...document.images].every((x) => x.complete && x.naturalWidth > 0)")
    assert page.locator(".tile.hit, .tile.miss").count() == 0  # the class of a text is not known
    assert "Flags" in page.inner_text(".classes")
    name = tiles(page).first.locator(".name").inner_text()
    tiles(page).first.click()
    page.wait_for_selector(f"#results h2:text-is('{name}')")
    hits, misses = page.locator(".tile.hit").count(), page.locator(".tile.miss").count()
    assert (hits + misses, tiles(page).count()) == (10, 10)
    assert f"{hits} of 10 results have its class" in page.inner_text(".asked")
    assert "row=image%3Atest%3A" in page.url
    page.go_back()
    page.wait_for_selector("#results h2:text-is('“red flag”')")
    assert page.input_value("#text") == "red flag"


def test_frames_are_green_for_hits_and_red_for_misses(opened, emoji_server):
    page = settled(opened(emoji_server, "/?row=image:test:3&gallery=text&top=50"))
    page.wait_for_selector(".tile.hit")
    colours = {
        kind: page.locator(f".tile.{kind}").first.evaluate("(x) => getComputedStyle(x).borderTopColor")
        for kind in ("hit", "miss")
    }
    assert colours == {"hit": "rgb(26, 127, 55)", "miss": "rgb(207, 34, 46)"}
    assert page.locator(".tile.hit .mark").first.inner_text() == "✓ hit"
    assert page.locator(".tile.miss .mark").first.inner_text() == "✗ miss"


def test_a_picture_is_the_query(opened, emoji_server, tmp_path):
    page = opened(emoji_server)
    small = emoji_server.ask("/api/picture/0/test/7").body
    (tmp_path / "flag.png").write_bytes(small)
    page.set_input_files("#file", tmp_path / "flag.png")
    page.wait_for_selector("#results h2:text-is('Your picture')")
    settled(page)
    expected = emoji_server.ask("/api/search", "POST", small, content_type="image/png").json
    assert page.locator(".tile .words").all_inner_texts() == [r["name"] for r in expected["results"]]
    assert page.evaluate("document.querySelector('.asked img').naturalWidth") == 72
    page.select_option("#top", "5")  # the picture is sent again
    has(page, "#results .tile", 5)
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    page.wait_for_selector("#error:not([hidden])")
    assert "this is no picture" in page.inner_text("#error")


def test_a_picture_can_be_dropped(opened, emoji_server):
    page = opened(emoji_server)
    page.evaluate("""async () => {
        const picture = await (await fetch('/api/picture/0/test/7')).blob();
        const data = new DataTransfer();
        data.items.add(new File([picture], 'flag.png', { type: 'image/png' }));
        document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
    }""")
    page.wait_for_selector("#results h2:text-is('Your picture')")
    assert tiles(page).count() == 10


def test_a_row_is_found_and_picked(opened, emoji_server):
    page = opened(emoji_server)
    page.click("#pick")
    page.wait_for_selector("#rows button")
    page.fill("#find", "cat")
    has(page, "#rows button:not(:has-text('cat'))", 0)
    name = page.locator("#rows button").first.inner_text()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#results h2:text-is('{name}')")
    page.select_option("#gallery", "text_de")
    page.wait_for_selector("#results .quiet:has-text('image → text_de')")
    assert tiles(page).count() == 10
    page.fill("#find", "no such thing")
    page.wait_for_selector("#rows li:text-is('no such row')")
    page.fill("#find", "")
    page.wait_for_selector("#more:not([hidden])")
    page.click("#more")
    has(page, "#rows li", 120)


def test_another_modality_of_the_text_and_other_numbers(opened, emoji_server):
    page = search(opened(emoji_server), "Katze")
    with page.expect_response("**/api/search?*") as answer:
        page.select_option("#as", "text_de")
    assert answer.value.json()["query"]["modality"] == "text_de"
    with page.expect_response("**/api/search?*"):
        page.select_option("#top", "20")
    has(page, "#results .tile", 20)


def test_everything_works_with_the_keyboard(opened, emoji_server):
    page = search(opened(emoji_server), "red flag")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className").startswith("tile"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    name = page.evaluate("document.activeElement.querySelector('.name').textContent")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#results h2:text-is('{name}')")
    assert page.evaluate("document.activeElement.id") == "results"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"


@pytest.mark.parametrize(
    "path", ["/", "/?text=cat&top=50", "/?row=text:test:3&gallery=text", "/?row=image:test:1&top=20"]
)
def test_narrow_windows_show_all_of_it(opened, emoji_server, path):
    page = settled(opened(emoji_server, path, NARROW))
    page.click("#pick")
    page.wait_for_selector("#rows button")
    assert overflow(page) <= 0


def test_dark_and_light_follow_the_system(browser, emoji_server):
    colours = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(emoji_server.url)
        colours[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.close()
    assert colours == {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 18, 22)"}


def test_names_from_data_are_text(opened, toy_server):
    page = settled(opened(toy_server, "/?row=sound:test:5&gallery=sound&top=100"))
    page.on("dialog", lambda _: pytest.fail("a script of the data ran"))
    assert page.inner_text("#results h2") == "<script>alert(1)</script>"
    page.fill("#find", "<script>")
    has(page, "#rows button", 1)
    assert page.inner_text("#rows button") == "<script>alert(1)</script>"
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("#results b").count() == 0
    assert "<b>high</b>" in page.inner_text(".asked")
    page.fill("#find", "TEXT OF")
    has(page, "#rows button:has-text('text of')", 1)
    text = "<b>text of test-1</b><img src=x onerror=alert(1)>"
    assert page.inner_text("#rows button") == text
    page.click("#rows button")
    page.wait_for_selector(f"#results h2:text-is('{text}')")
    assert page.locator("img[src=x]").count() == 0
    has(page, "b", 2)  # those of the page


def test_a_run_without_texts_and_pictures_says_so_and_offers_its_rows(opened, toy_server):
    page = opened(toy_server)
    assert page.is_disabled("#text")
    assert page.is_disabled("#file")
    assert "features of a typed text cannot be computed" in page.inner_text("#closed")
    page.wait_for_selector("#rows button")
    page.click("#any")
    page.wait_for_selector(".tile.hit, .tile.miss")
    assert "row=sound" in page.url


def test_a_wrong_address_is_answered_by_a_word(browser, toy_server):
    with new_page(browser) as (page, faults):
        page.goto(toy_server.url + "/?row=sound:test:99")
        page.wait_for_selector("#error:not([hidden])")
        assert page.inner_text("#error") == "row 'sound:test:99': test has 27 rows of sound, 0 to 26"
        assert all("400" in fault for fault in faults)


def test_the_page_of_the_api(browser, toy_server):
    for size in (WIDE, NARROW):
        with new_page(browser, size) as (page, faults):
            page.goto(toy_server.url + "/docs")
            assert re.search(r"GET\s+/api/search", page.inner_text("main"))
            assert overflow(page) <= 0
            assert faults == []
