"""Learning curves: whatever losses a run has, from one epoch on."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import figure as mpl
from matplotlib import font_manager
from matplotlib.text import Text

from mrl_jax.display import drawing
from mrl_jax.display.curves import plot_curves
from mrl_jax.eval.output import plot_precision_recall

RESULT = {"valid": {"best": {"epoch": 1}}}


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved, save = [], mpl.Figure.savefig

    def record(self, *args, **kwargs):
        saved.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(mpl.Figure, "savefig", record)
    return saved


def lines(epochs, losses):
    valid = {"map": {"a->b": 0.4, "b->a": 0.5}, "average": 0.45}
    return [{"epoch": i + 1, "train": {name: 1.0 / (i + 1) for name in losses}, "valid": valid} for i in range(epochs)]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_every_loss_of_the_log_is_drawn_in_its_order(figures, tmp_path):
    plot_curves(tmp_path / "curves.png", lines(40, ["loss", "reconstruction", "entropy"]), RESULT, "title", 0.2)
    left, right = figures[0].axes
    assert legend(left) == ["total", "reconstruction", "entropy"]
    assert legend(right) == ["a → b", "b → a", "best average, epoch 1", "chance"]
    np.testing.assert_array_equal(left.lines[1].get_ydata(), 1 / np.arange(1, 41))
    assert list(right.lines[-1].get_ydata()) == [0.2, 0.2]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_points_of_a_run_of_one_epoch_have_markers(figures, tmp_path):
    plot_curves(tmp_path / "curves.png", lines(1, ["loss"]), RESULT, "title", 0.2)
    left, right = figures[0].axes
    assert [line.get_marker() for line in (left.lines[0], *right.lines[:2])] == ["o", "o", "o"]
    assert right.get_xlim()[0] < 1 < right.get_xlim()[1]


def test_without_training_losses_only_the_validation_panel_is_drawn(figures, tmp_path):
    plot_curves(tmp_path / "curves.png", lines(1, []), RESULT, "title", 0.2)
    (only,) = figures[0].axes
    assert only.get_ylabel() == "validation mAP"
    assert legend(only)[:2] == ["a → b", "b → a"]


def test_a_drawing_that_fails_leaves_the_old_picture_and_no_other_file(monkeypatch, tmp_path):
    def fail(self, path, **kwargs):
        path.write_bytes(b"half")
        raise RuntimeError

    plot_curves(tmp_path / "curves.png", lines(2, ["loss"]), RESULT, "title", 0.2)
    before = (tmp_path / "curves.png").read_bytes()
    monkeypatch.setattr(mpl.Figure, "savefig", fail)
    with pytest.raises(RuntimeError):
        plot_curves(tmp_path / "curves.png", lines(3, ["loss"]), RESULT, "title", 0.2)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    assert (tmp_path / "curves.png").read_bytes() == before


def many(modalities, epochs=3):
    """Log and result of a run in which query i has i / 10 in every direction."""
    values = {f"{a}->{b}": i / 10 for i, a in enumerate(modalities) for b in modalities if a != b}
    valid = {"map": values, "average": sum(values.values()) / len(values)}
    log = [{"epoch": e + 1, "train": {"loss": 1.0}, "valid": valid} for e in range(epochs)]
    return log, {"valid": {"best": {"epoch": 1}}}


def inside(figure, box):
    """Whether what is drawn lies in the picture."""
    extent, (width, height) = box.get_window_extent(), figure.canvas.get_width_height()
    return extent.x0 >= 0 and extent.y0 >= 0 and extent.x1 <= width and extent.y1 <= height


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 16])
def test_up_to_6_directions_have_lines_beyond_that_queries_and_their_mean(figures, tmp_path, capfd, count):
    names = [f"m{i}" for i in range(count)]
    plot_curves(tmp_path / "c.png", *many(names), "title", 0.2)
    figure = figures[0]
    right = figure.axes[1]
    drawn = right.lines[:-2]  # without best and chance
    if count <= 3:
        assert len(drawn) == count * (count - 1)
    else:
        assert legend(right)[:count] == names
        assert legend(right)[count] == f"mean of {count * (count - 1)} directions"
        for i, line in enumerate(drawn[:-1]):
            np.testing.assert_allclose(line.get_ydata(), i / 10)
        np.testing.assert_allclose(drawn[-1].get_ydata(), (count - 1) / 20)
        assert drawn[-1].get_linewidth() > drawn[0].get_linewidth()
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn}
    assert len(looks) == len(drawn)
    assert all(inside(figure, axes.get_legend()) for axes in figure.axes)
    assert right.get_window_extent().width > 300  # of 600 pixels
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("names", [["图像", "文本"], ["图像", "文本", "음성", "テキスト", "text"]])
def test_names_without_a_font_are_numbered_and_a_note_says_so(figures, tmp_path, monkeypatch, capfd, names):
    monkeypatch.setattr("mrl_jax.display.drawing._fonts", lambda: [])
    drawing._family_of.cache_clear()
    plot_curves(tmp_path / "c.png", *many(names), "数据 5", 0.2)
    drawing._family_of.cache_clear()
    labels = legend(figures[0].axes[1])
    if len(names) == 2:
        assert labels[:2] == ["modality 1 → modality 2", "modality 2 → modality 1"]
    else:
        assert labels[:5] == ["modality 1", "modality 2", "modality 3", "modality 4", "text"]
    assert figures[0].get_suptitle() == "?? 5"
    assert "no installed font can draw their names" in figures[0].get_supxlabel()
    assert capfd.readouterr() == ("", "")


def test_names_are_drawn_with_an_installed_font_that_has_them(figures, tmp_path, monkeypatch, capfd):
    file, names = tmp_path / "wide.ttf", "图像文本"
    pen = TTGlyphPen(None)
    for i, point in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
        (pen.lineTo if i else pen.moveTo)(point)
    pen.closePath()
    square, glyphs = pen.glyph(), [".notdef", *(f"u{ord(c)}" for c in names)]
    font = FontBuilder(1000)
    font.setupGlyphOrder(glyphs)
    font.setupCharacterMap({ord(c): f"u{ord(c)}" for c in names})
    font.setupGlyf(dict.fromkeys(glyphs, square))
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Noto Sans CJK SC", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(file)
    manager = font_manager.fontManager
    known = list(manager.ttflist)
    manager.addfont(file)
    for cached in (drawing._family_of, drawing._fonts):
        cached.cache_clear()
    try:
        plot_curves(tmp_path / "c.png", *many(["图像", "文本"]), "图 title", 0.2)
    finally:
        manager.ttflist[:] = known
        for cached in (drawing._family_of, drawing._fonts):
            cached.cache_clear()
        manager._findfont_cached.cache_clear()
    texts = figures[0].axes[1].get_legend().get_texts()
    assert [t.get_text() for t in texts[:2]] == ["图像 → 文本", "文本 → 图像"]
    assert texts[0].get_fontfamily() == ["DejaVu Sans", "Noto Sans CJK SC"]
    assert figures[0].get_suptitle() == "图 title"
    assert figures[0].get_supxlabel() == ""
    assert capfd.readouterr() == ("", "")


def test_names_are_no_mathematics_and_none_is_left_out_of_the_legend(figures, tmp_path, capfd):
    names = ["_left", r"$\frac$", "a" * 60 + "1" * 10, "a" * 61 + "1" * 10, "x\ny"]
    plot_curves(tmp_path / "c.png", *many(names), r"$\alpha$ _x_ " + "long " * 100, 0.2)
    labels = legend(figures[0].axes[1])
    short = "a" * 17 + "…" + "1" * 10
    assert labels[:5] == [" _left", r"$\frac$", f"{short} (3)", f"{short} (4)", "x y"]
    assert not any(text.get_parse_math() for text in figures[0].findobj(Text))
    lines = figures[0].get_suptitle().splitlines()
    assert lines[0].startswith(r"$\alpha$ _x_ long")
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert inside(figures[0], figures[0]._suptitle)
    assert capfd.readouterr() == ("", "")


def test_precision_recall_curves_are_drawn_alike(figures, tmp_path, capfd):
    modalities = ["图像" if drawing.drawable("图像") else "image", "b", "c", "d", "e"]
    curves = {f"{a}->{b}": [i / 10] * 11 for i, a in enumerate(modalities) for b in modalities if a != b}
    plot_precision_recall(tmp_path / "p.png", curves, "/a/path" * 40)
    (axes,) = figures[0].axes
    assert legend(axes) == [*modalities, "mean of 20 directions"]
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), 0.2)
    np.testing.assert_allclose(axes.lines[3].get_ydata(), 0.3)
    assert inside(figures[0], axes.get_legend())
    assert axes.get_window_extent().width > 300
    plot_precision_recall(tmp_path / "q.png", dict(list(curves.items())[:6]), "")
    assert legend(figures[1].axes[0]) == [d.replace("->", " → ") for d in list(curves)[:6]]
    assert capfd.readouterr() == ("", "")
