"""What the sections on retrieval show, against other computations of the same numbers."""

import numpy as np
import pytest

from mrl_jax import evaluate, load_run
from mrl_jax.report.blocks import Chart, Table
from mrl_jax.report.retrieved import class_map, confused_pairs, confusion, curves, example_queries, hardest, retrieve
from mrl_jax.report.sections.results import by_class, precision_recall, results

pytestmark = pytest.mark.slow


def test_confusion_by_hand():
    """Two queries of class 0, one of class 2, none of class 1; two results each."""
    table = confusion(np.array([0, 2, 0]), np.array([[0, 1], [2, 0], [1, 1]]), 3)
    np.testing.assert_array_equal(table, [[0.25, 0.75, 0], [np.nan] * 3, [0.5, 0, 0.5]])
    assert confused_pairs(table, 5) == [(0, 1, 0.75), (2, 0, 0.5)]


def test_confusion_of_a_run_from_sorted_similarities(noisy_opened):
    z, y = noisy_opened.embedded.embeddings, noisy_opened.embedded.labels
    found = retrieve(noisy_opened.embedded, noisy_opened.metric)["sound->touch"]
    order = np.argsort(-(z["sound"] @ z["touch"].T), axis=1, kind="stable")[:, :10]
    expected = np.zeros((3, 3))
    for a, rows in zip(y["sound"], order, strict=True):
        for row in rows:
            expected[a, y["touch"][row]] += 1
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(confusion(found.query_labels, found.labels, 3), expected)


def test_map_by_class_is_that_of_evaluate_and_its_mean_is_map(noisy, noisy_opened, arrays):
    scores = evaluate(load_run(noisy), arrays)
    for name, values in noisy_opened.per_query.items():
        labels = noisy_opened.embedded.labels[name.split("->")[0]]
        found = class_map(values["ap"], labels, 3)
        expected = [of["map"] for of in scores["classes"][name].values()]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        weights = np.bincount(labels)
        assert np.average(found, weights=weights) == pytest.approx(scores["map"][name])


def heat_cells(chart):
    return {(v["r"], v["c"]): v["v"] for v in chart.spec["data"]["values"]}


def test_heat_map_on_the_page_is_the_table(noisy_opened):
    retrieved = retrieve(noisy_opened.embedded, noisy_opened.metric)
    section = by_class(noisy_opened, retrieved)
    charts = [b for b in section.blocks if isinstance(b, Chart)]
    cells = heat_cells(charts[0])
    assert len(cells) == 6
    for name, values in noisy_opened.per_query.items():
        found = class_map(values["ap"], noisy_opened.embedded.labels[name.split("->")[0]], 3)
        for k, class_name in enumerate(noisy_opened.run.class_names):
            assert cells[class_name, name.replace("->", " → ")] == pytest.approx(found[k], rel=1e-4)
    for chart in charts[1:]:
        for class_name in noisy_opened.run.class_names:
            row = [v for (r, _), v in heat_cells(chart).items() if r == class_name]
            assert sum(row) == pytest.approx(1.0, abs=1e-3)


def test_of_many_directions_the_mean_is_shown(noisy_opened, monkeypatch):
    retrieved = retrieve(noisy_opened.embedded, noisy_opened.metric)
    each = [confusion(r.query_labels, r.labels, 3) for r in retrieved.values()]
    monkeypatch.setattr("mrl_jax.report.sections.results.DIRECTIONS", 1)
    charts = [b for b in by_class(noisy_opened, retrieved).blocks if isinstance(b, Chart)]
    assert [c.title for c in charts[1:]] == ["Classes among the first 10 results, mean of all directions"]
    names = noisy_opened.run.class_names
    for (a, b), value in heat_cells(charts[1]).items():
        expected = np.mean([t[names.index(a), names.index(b)] for t in each])
        assert value == pytest.approx(expected, rel=1e-4)
    (chart,) = precision_recall(noisy_opened).blocks
    assert {v["s"] for v in chart.spec["layer"][0]["data"]["values"]} == {
        "sound, mean of galleries",
        "touch, mean of galleries",
    }


def test_the_table_of_scores_is_that_of_evaluate(noisy, noisy_opened, arrays):
    scores = evaluate(load_run(noisy), arrays)
    table = next(b for b in results(noisy_opened).blocks if isinstance(b, Table))
    at = list(table.head).index
    rows = {row[0].text: row for row in table.rows}
    for name, values in scores["metrics"].items():
        row = rows[name.replace("->", " → ")]
        for title, key in (("mAP", "map"), ("P@10", "precision@10"), ("MRR", "mrr")):
            cell = row[at(title)]
            low, high = values["ci"][key]
            assert cell.sort == values[key]
            assert (cell.text, cell.more) == (f"{values[key]:.3f}", f"[{low:.3f}, {high:.3f}]")
        assert row[-1].sort == scores["chance"][name]
    assert rows["mean of directions"][1].sort == scores["average"]


def test_curves_begin_and_end_as_they_must(noisy_opened):
    for curve in curves(noisy_opened.embedded, noisy_opened.metric).values():
        assert len(curve) == 101
        assert (np.diff(curve) <= 1e-9).all()
    (chart,) = precision_recall(noisy_opened).blocks
    names = {v["s"] for v in chart.spec["layer"][0]["data"]["values"]}
    assert names == {"sound → touch", "touch → sound"}


def test_hardest_classes_in_order():
    maps = np.array([[0.9, 0.1, np.nan, 0.5], [0.8, 0.3, np.nan, 0.1]])
    assert hardest(maps, 2) == [1, 3]
    assert hardest(maps, 9) == [0, 1, 3]


def test_examples_run_from_bad_to_good_and_differ():
    ap, labels = np.linspace(0, 1, 50), np.arange(50) % 5
    chosen = example_queries(ap, labels, 5)
    assert len(set(chosen)) == 5
    assert (np.diff(ap[chosen]) > 0).all()
    assert len(set(labels[chosen])) == 5
    assert len(example_queries(ap[:2], labels[:2], 2)) == 2
    assert example_queries(ap[:1], labels[:1], 1) == [0]
