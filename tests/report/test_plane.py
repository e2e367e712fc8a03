"""The map: which samples, and where."""

import numpy as np
import pytest

from mrl_jax.report.plane import even_sample, in_plane


@pytest.mark.parametrize("most", [1, 7, 30, 200])
def test_samples_are_even_over_classes(most):
    labels = np.repeat([0, 1, 2], [100, 5, 40])
    taken = even_sample(labels, most)
    assert len(taken) == min(most, 145)
    assert len(set(taken.tolist())) == len(taken)
    assert (np.diff(taken) > 0).all()
    counts = np.bincount(labels[taken], minlength=3)
    full = counts == [100, 5, 40]
    assert np.ptp(counts[~full]) <= 1 if (~full).any() else True
    assert counts[~full].min(initial=100) >= counts[full].max(initial=0) - 1


def clusters():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    rows = {m: 4 * np.eye(8)[labels] + 0.3 * rng.normal(size=(60, 8)) for m in ("a", "b")}
    return rows, labels


def test_the_map_is_the_same_in_every_call_and_keeps_neighbours():
    rows, labels = clusters()
    first, how = in_plane(rows)
    again, _ = in_plane(rows)
    assert how == "t-SNE"
    for m in rows:
        np.testing.assert_array_equal(first[m], again[m])
    xy, y = np.concatenate([first["a"], first["b"]]), np.tile(labels, 2)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + np.diag(np.full(len(xy), np.inf))
    assert (y[distance.argmin(axis=1)] == y).mean() > 0.95


@pytest.mark.parametrize(
    "rows",
    [np.eye(4), np.ones((20, 3)), np.arange(20.0)[:, None], np.zeros((1, 5))],
    ids=["few", "equal", "one column", "one row"],
)
def test_few_or_equal_samples_have_places(rows):
    found, _ = in_plane({"m": rows})
    assert found["m"].shape == (len(rows), 2)
    assert np.isfinite(found["m"]).all()
