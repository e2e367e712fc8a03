"""The first picture of the README: typical queries, their true precision, and hits that are told apart."""

import re

import numpy as np
import pytest
from PIL import Image

from experiments.screenshots import before_after
from experiments.screenshots.panels import Panel, Row, Shown, draw_panels
from mrl_jax.search.searcher import Query, Searcher

GREEN, RED = (26, 127, 55), (207, 34, 46)


def share_of(pixels, colour):
    return (np.abs(pixels.astype(int) - colour).sum(-1) < 8).mean()


def test_the_most_typical_draw_is_shown():
    rng = np.random.default_rng(3)
    models = [{"text": rng.random(200), "image": rng.random(200) / 2} for _ in range(2)]
    chosen = before_after.typical(models, 7, 5)
    assert [m for m, _ in chosen] == ["text", "image"] * 3 + ["text"]
    assert len({row for _, row in chosen}) == 7

    def distance(queries):
        means = [(np.mean([p[m][r] for m, r in queries]), np.mean([p["text"], p["image"]])) for p in models]
        return sum(abs(a - b) for a, b in means)

    key = np.random.default_rng(5)
    draws = [key.choice(200, 7, replace=False).tolist() for _ in range(before_after.DRAWS)]
    distances = [distance([(("text", "image")[i % 2], r) for i, r in enumerate(draw)]) for draw in draws]
    assert distance(chosen) == pytest.approx(min(distances))
    assert distance(chosen) < np.median(distances) / 3  # the choice is of use


def test_hits_are_green_ticks_and_misses_red_crosses():
    picture = Image.new("RGBA", (30, 20), "blue")
    rows = [Row("a name", "a class", None), Row("another", "a class", picture)]

    def panel(hits):
        results = [[Shown("x", picture, h) for h in hits], [Shown("a long text " * 9, None, h) for h in hits]]
        return Panel("title", "training", 0.5, results)

    halves = {}
    for name, hits in (("hit", [True] * 8), ("miss", [False] * 8), ("both", [True, False] * 4)):
        assert panel(hits).hits == (2 * sum(hits), 16)
        sheet = np.asarray(draw_panels(rows, (panel(hits), panel(hits)), "heading", "foot"))[160:-60]
        assert sheet.shape[1] == 1600
        left, right = sheet[:, 240:888], sheet[:, 920:1568]
        np.testing.assert_array_equal(left, right)
        halves[name] = left
    assert share_of(halves["hit"], GREEN) > 0.02 < share_of(halves["miss"], RED)
    assert share_of(halves["hit"], RED) == 0 == share_of(halves["miss"], GREEN)
    assert share_of(halves["both"], GREEN) > 0.01 < share_of(halves["both"], RED)
    # Without colours, too: the marks differ.
    grey = [np.abs(halves[name].astype(int) - 255).sum(-1) > 300 for name in ("hit", "miss")]
    assert (grey[0] != grey[1]).mean() > 0.001


@pytest.mark.slow
def test_the_picture_shows_what_both_runs_find(tmp_path, monkeypatch, capsys):
    small = {"hidden_dims": (32,), "embed_dim": 16, "representation": "both"}
    monkeypatch.setattr(before_after, "BEFORE", small | {"loss": "ce", "learning_rate": 1e-4})
    monkeypatch.setattr(before_after, "AFTER", small | {"loss": "rc", "learning_rate": 3e-3})  # quicker than consensus
    out = tmp_path / "picture.png"
    flags = ["--epochs", "1", "--rows", "3", "--top", "5", "--workdir", str(tmp_path / "runs"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["before_after", *flags])
    before_after.main()
    with Image.open(out) as picture:
        assert picture.width == 1600
        pixels = np.asarray(picture.convert("RGB"))
    shown = capsys.readouterr().out
    for name, half in (("before", pixels[160:-60, 240:888]), ("after", pixels[160:-60, 920:1568])):
        searcher = Searcher(tmp_path / "runs" / name, checkpoint="last")
        precision = before_after.precision_of(searcher, 5)
        for m in ("text", "image"):
            for row in (0, 100, 374):
                found = searcher.answer(Query("row", f"{m}:test:{row}"), 5)["results"]
                assert precision[m][row] == pytest.approx(np.mean([r["hit"] for r in found]))
        line = next(line for line in shown.splitlines() if f"{np.mean([*precision.values()]):.0%} of all" in line)
        here = int(re.search(r"here (\d+)%", line)[1]) / 100
        green, red = share_of(half, GREEN), share_of(half, RED)
        assert green / (green + red) == pytest.approx(here, abs=0.1)
