"""The file of a page: escaping, size, and what a missing package says."""

import configparser
import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import HOSTILE, ODD, Page

from mrl_jax import InputError
from mrl_jax.report import page as page_module
from mrl_jax.report.blocks import Cell, Chart, Code, Facts, Hit, Note, Section, Table, Tile
from mrl_jax.report.charts import bars, forest, heat_map, intervals, lines, points, stacked
from mrl_jax.report.page import Page as Content
from mrl_jax.report.page import check_packages, render, script_json
from mrl_jax.report.samples import Sample

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("text", [*HOSTILE, "<!-- <script>", "]]>", "\u2028\u2029", "\\u003c", "日本 😀"])
def test_json_in_a_script_cannot_end_it_and_comes_back(text):
    found = script_json({text: [text]})
    assert not set("<>&\u2028\u2029") & set(found)
    assert json.loads(found) == {text: [text]}


def test_json_has_no_numbers_that_javascript_does_not_read():
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json([float("nan")])


def hostile_content(text):
    sample = Sample(text, text, text, text, text, None)
    cells = [
        (Cell(text, None, "", text), Cell(text, sample=sample, more=text), Cell(text, hits=[Hit(sample, text, True)]))
    ]
    blocks = [
        Note(text),
        Code(text, text),
        Facts([(text, text)]),
        Table(text, (text, text, text), cells, filters=(0,)),
    ]
    blocks.append(Chart(text, text, lines({text: [(0, 1)]}, text, text)))
    sections = [Section("a", text, text, blocks)]
    return Content(text, text, text, "", text, [Tile(text, text, text)], sections, [{"id": text}])


@pytest.mark.parametrize("text", HOSTILE)
def test_every_text_is_escaped(text, no_library):
    page = Page(render(hostile_content(text)))
    plain = Page(render(hostile_content("plain")))
    assert page.tags == plain.tags
    assert page.text.count(text) >= 20
    assert page.data["items"] == [{"id": text}]


@pytest.mark.slow
def test_a_page_of_hostile_data(hostile_page):
    page = Page(hostile_page.read_text("utf-8"))
    assert page.tags.count("script") == 3
    assert "<b>sound" not in page.html
    assert "<script>window.hacked" not in page.html
    assert any(item["k"] == HOSTILE[0] for item in page.data["items"])
    assert {item["m"] for item in page.data["items"]} == set(ODD)
    for name in HOSTILE:
        assert name in page.text


@pytest.mark.slow
def test_the_file_is_small_and_complete(hostile_page):
    html = hostile_page.read_text("utf-8")
    assert 800_000 < len(html.encode()) < 1_500_000  # without pictures, most of it is the library
    assert "vegaEmbed" in html
    for attribute in ('src="http', 'href="http', "@import", "url(http"):
        assert attribute not in html


def test_a_wheel_holds_the_templates():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", "utf-8")
    patterns = settings["options.package_data"]
    files = [p for p in (ROOT / "mrl_jax").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    others = {p for p in files if p.suffix != ".py"}
    held = {
        p
        for package, listed in patterns.items()
        for pattern in listed.split()
        for p in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    assert len(others) >= 4
    assert others <= held


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(page_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs Jinja2 and .*; run: pip install jinja2 vl-convert-python"):
        check_packages()


def test_charts_are_json_without_gaps():
    hard = {"a.b[0]": [(1, 0.5), (2, float("nan"))]}
    charts = [
        lines(hard, "epoch", "loss", rules={"kept": 1}, levels={"chance": 0.1}, whole=True),
        bars([], "p", "share"),
        heat_map(np.array([[0.5, np.nan]]), ["a"], ["b", "c"], "row", "column", "mAP"),
        points([{"x": 0, "y": 1, "k": "a", "m": "b", "i": 0, "w": "right"}], ["a"], ["b"], wrong=True),
        intervals([("a", 0.5, 0.4, 0.6)], "mAP", {"chance": 0.1}),
        forest([("a", 0.1, -0.1, 0.3)], "difference"),
        stacked([("a", [("x", 0.4), ("y", 0.6)])], "share", {"x": "var(--good)", "y": "var(--bad)"}),
    ]
    for chart in charts:
        assert json.loads(script_json(chart))["width"] == "container"
    values = charts[0]["layer"][-1]["data"]["values"]
    assert values == [{"s": "a.b[0]", "x": 1.0, "y": 0.5}, {"s": "a.b[0]", "x": 2.0, "y": None}]
    assert len(charts[2]["data"]["values"]) == 1


def test_a_map_of_many_classes_has_a_short_legend():
    """A longer one makes the library warn on the console, and runs out of the picture."""
    names = [f"class {i}" for i in range(200)]
    colour = points([], names, ["a", "b"])["encoding"]["color"]
    assert colour["legend"]["values"] == names[:24]
    assert len(colour["scale"]["range"]) == 200
