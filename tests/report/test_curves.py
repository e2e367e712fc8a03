"""Learning curves: whatever losses a run has, from one epoch on."""

import numpy as np
import pytest
from matplotlib import figure as mpl

from mrl_jax.report.curves import plot_curves

RESULT = {"valid": {"best": {"epoch": 1}}, "chance": {"a->b": 0.2, "b->a": 0.3}}


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
    plot_curves(tmp_path / "curves.png", lines(40, ["loss", "reconstruction", "entropy"]), RESULT, "title")
    left, right = figures[0].axes
    assert legend(left) == ["total", "reconstruction", "entropy"]
    assert legend(right) == ["a → b", "b → a", "best average, epoch 1", "chance"]
    np.testing.assert_array_equal(left.lines[1].get_ydata(), 1 / np.arange(1, 41))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_points_of_a_run_of_one_epoch_have_markers(figures, tmp_path):
    plot_curves(tmp_path / "curves.png", lines(1, ["loss"]), RESULT, "title")
    left, right = figures[0].axes
    assert [line.get_marker() for line in (left.lines[0], *right.lines[:2])] == ["o", "o", "o"]
    assert right.get_xlim()[0] < 1 < right.get_xlim()[1]


def test_without_training_losses_only_the_validation_panel_is_drawn(figures, tmp_path):
    plot_curves(tmp_path / "curves.png", lines(1, []), RESULT, "title")
    (only,) = figures[0].axes
    assert only.get_ylabel() == "validation mAP"
    assert legend(only)[:2] == ["a → b", "b → a"]


def test_a_drawing_that_fails_leaves_the_old_picture_and_no_other_file(monkeypatch, tmp_path):
    def fail(self, path, **kwargs):
        path.write_bytes(b"half")
        raise RuntimeError

    plot_curves(tmp_path / "curves.png", lines(2, ["loss"]), RESULT, "title")
    before = (tmp_path / "curves.png").read_bytes()
    monkeypatch.setattr(mpl.Figure, "savefig", fail)
    with pytest.raises(RuntimeError):
        plot_curves(tmp_path / "curves.png", lines(3, ["loss"]), RESULT, "title")
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    assert (tmp_path / "curves.png").read_bytes() == before
