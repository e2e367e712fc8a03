"""The page in a real browser."""

import numpy as np
import pytest
from browser import NARROW, WIDE, new_page, overflow
from PIL import Image
from report_runs import HOSTILE
from toy import SIZES, toy_arrays

from mrl_jax import load_dataset
from mrl_jax.audit.run import audit_data
from mrl_jax.report import write_audit_page, write_report

pytestmark = pytest.mark.slow

DRAWN = "document.documentElement.dataset.drawn === 'yes'"


@pytest.fixture(params=[("light", (1280, 900)), ("dark", NARROW)], ids=["wide light", "narrow dark"])
def shown(request, browser, hostile_page):
    scheme, size = request.param
    with new_page(browser, size) as (page, faults):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.goto(hostile_page.as_uri())
        page.wait_for_function(DRAWN)
        yield page
        assert faults == []
        assert page.evaluate("window.hacked") is None


def test_every_chart_is_drawn_and_nothing_overflows(shown):
    charts = shown.locator(".chart")
    assert charts.count() > 8
    for i in range(charts.count()):
        box = charts.nth(i).locator("svg").first.bounding_box()
        assert box["width"] > 150
        assert box["height"] > 50
    assert overflow(shown) <= 0


def test_colours_follow_the_scheme(shown):
    paper = "getComputedStyle(document.body).backgroundColor"
    label = "getComputedStyle(document.querySelector('.chart .role-axis-label text')).fill"
    before = shown.evaluate(paper), shown.evaluate(label)
    dark = shown.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    shown.evaluate("delete document.documentElement.dataset.drawn")
    shown.emulate_media(color_scheme="light" if dark else "dark")
    shown.wait_for_function(DRAWN)
    after = shown.evaluate(paper), shown.evaluate(label)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_table_sorts_by_click_and_by_key(shown):
    table = shown.locator("#classes table").first
    values = "t => [...t.tBodies[0].rows].map(r => Number(r.cells[3].dataset.sort))"
    head = table.locator("thead button").nth(3)
    head.click()
    first = table.evaluate(values)
    assert first == sorted(first, reverse=True)
    assert table.locator("thead th").nth(3).get_attribute("aria-sort") == "descending"
    head.focus()
    shown.keyboard.press("Enter")
    assert table.evaluate(values) == sorted(first)
    table.locator("thead button").nth(1).click()
    names = table.evaluate("t => [...t.tBodies[0].rows].map(r => r.cells[1].textContent)")
    order = "names => [...names].sort((a, b) => a.localeCompare(b, undefined, {numeric: true}))"
    assert names == shown.evaluate(order, names)


def test_pointing_at_a_sample_shows_it(shown):
    point = shown.locator("#map .chart").first.locator(".mark-symbol.role-mark path").first
    point.scroll_into_view_if_needed()
    shown.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # scrolled by then
    place = point.bounding_box()
    shown.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    tooltip = shown.locator("#tooltip")
    tooltip.wait_for(state="visible")
    text = tooltip.inner_text()
    assert text.startswith(f"{HOSTILE[1]} text of ")
    for word in ("id: ", "modality: ", "class: "):
        assert word in text
    box, width = tooltip.bounding_box(), shown.viewport_size["width"]
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    shown.mouse.move(1, 1)
    tooltip.wait_for(state="hidden")


def test_hits_and_misses_are_framed(shown):
    colour = "e => getComputedStyle(e).borderTopColor + getComputedStyle(e).borderTopStyle"
    hits, misses = (shown.locator(f"#examples li.{kind}") for kind in ("hit", "miss"))
    assert hits.count() > 0
    if misses.count():
        assert hits.first.evaluate(colour) != misses.first.evaluate(colour)


def test_pages_of_several_runs_and_of_a_sweep(browser, swept, tmp_path):
    runs = sorted((swept / "runs").iterdir())[:2]
    pages = [write_report(runs, tmp_path / "runs.html"), write_report(swept, tmp_path / "sweep.html")]
    for path, size, section in zip(pages, (NARROW, WIDE), ("comparison", "sweep-1"), strict=True):
        with new_page(browser, size) as (page, faults):
            page.goto(path.as_uri())
            page.wait_for_function(DRAWN)
            assert page.locator(f"#{section} .chart svg").count() >= 1
            assert page.locator(".chart:not(:has(svg))").count() == 0
            assert overflow(page) <= 0
            assert faults == []


def test_a_picture_is_in_the_file_once_and_shown_where_it_belongs(browser, noisy, arrays, tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (9, 9), (200, 0, 0)).save(tmp_path / "pictures" / "id.png")
    ids = {f"{split}_ids": np.array(["id"] * n) for split, n in SIZES.items()}
    path = write_report(noisy, tmp_path / "page.html", data=arrays | ids, pictures=tmp_path / "pictures")
    assert path.read_text("utf-8").count("data:image/webp") <= 1
    with new_page(browser) as (page, faults):
        page.goto(path.as_uri())
        page.wait_for_function(DRAWN)
        shown = page.locator("#examples img.picture")
        assert shown.count() > 10
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth === 9)")
        assert faults == []


def test_the_suspects_of_an_audit_sort_filter_and_show_their_pictures(browser, tmp_path):
    arrays = toy_arrays()
    rng = np.random.default_rng(1)
    for m in ("sound", "touch"):
        flip = rng.random(SIZES["train"]) < 0.3
        arrays[f"train_{m}_labels"] = (arrays["train_labels"] + flip) % 3
    arrays["train_ids"] = np.array([f"id-{i}" for i in range(SIZES["train"])])
    del arrays["train_labels"]
    (tmp_path / "pictures").mkdir()
    for i in range(SIZES["train"]):
        Image.new("RGB", (9, 9), (4 * i, 0, 200)).save(tmp_path / "pictures" / f"id-{i}.png")
    path = write_audit_page(audit_data(load_dataset(arrays)), tmp_path / "a.html", pictures=tmp_path / "pictures")
    with new_page(browser, NARROW) as (page, faults):
        page.goto(path.as_uri())
        page.wait_for_function(DRAWN)
        assert overflow(page) <= 0
        assert page.locator("#classes .chart svg, #transition .chart svg").count() == 4
        table = page.locator("#suspects table")
        assert table.locator("tbody th img").count() == table.locator("tbody tr").count() > 10
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth === 9)")
        texts = "map(r => [...r.cells].map(c => c.textContent.trim()))"
        rows = f"t => [...t.tBodies[0].rows].filter(r => r.offsetParent).{texts}"
        everyone = table.evaluate(rows)
        table.locator("thead button", has_text="p(wrong)").click()
        table.locator("thead button", has_text="p(wrong)").click()
        ascending = [float(row[4].rstrip("%")) for row in table.evaluate(rows)]
        assert ascending == sorted(ascending) != [float(row[4].rstrip("%")) for row in everyone]
        choices = page.locator("#suspects select")
        choices.nth(0).select_option("touch")
        choices.nth(1).select_option("1")
        shown = table.evaluate(rows)
        assert {(row[1], row[2]) for row in shown} == {("touch", "1")}
        assert len(shown) == sum(row[1:3] == ["touch", "1"] for row in everyone) < len(everyone)
        assert page.locator("#suspects output").inner_text() == f"{len(shown)} of {len(everyone)} rows"
        choices.nth(0).select_option("")
        choices.nth(1).select_option("")
        assert len(table.evaluate(rows)) == len(everyone)
        assert faults == []
