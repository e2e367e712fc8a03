"""The report on embeddings: hand values, float64 references, every protocol, pairs, classes, intervals."""

import dataclasses
import json

import numpy as np
import pandas
import pytest
import reference
import tolerances
from numpy.testing import assert_allclose

from mrl_jax import InputError
from mrl_jax.eval.embedded import check_embedded
from mrl_jax.eval.evaluate import evaluate_embeddings
from mrl_jax.eval.scores import Options, full_report
from mrl_jax.retrieval.measure import expected_average_precision

QUICK = Options(k=(1, 2, 5), bootstrap=0)
ALL = dataclasses.replace(QUICK, protocol=("cross", "others", "within"))


def angles(*degrees):
    turned = np.deg2rad(degrees)
    return np.column_stack([np.cos(turned), np.sin(turned)])


def clusters(n=30, classes=3, dim=6, modalities=("a", "b", "c"), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    means = rng.normal(size=(classes, dim))
    return {m: means[labels] + rng.normal(size=(n, dim)) for m in modalities}, labels


def test_hand_values():
    # The query of class 0 at 0 degrees sees its own class at ranks 1 and 3, the one of class 1 at ranks 1 and 2.
    z = {"a": angles(0, 90), "b": angles(10, 20, 40, 80)}
    scores = evaluate_embeddings(z, {"a": [0, 1], "b": [0, 1, 0, 1]}, options=QUICK)
    metrics = scores["metrics"]["a->b"]
    first, second = (1 + 2 / 3) / 2, (1 + 2 / 3) / 2  # from 90 degrees: classes 1, 0, 1, 0
    assert_allclose(metrics["map"], (first + second) / 2, **tolerances.HAND)
    assert_allclose([metrics["map@2"], metrics["map_min@2"]], [1.0, 0.5], **tolerances.HAND)
    assert_allclose([metrics[f"precision@{k}"] for k in (1, 2, 5)], [1, 1 / 2, 2 / 5], **tolerances.HAND)
    assert_allclose([metrics[f"recall@{k}"] for k in (1, 2, 5)], [1 / 2, 1 / 2, 1], **tolerances.HAND)
    assert_allclose(metrics["r_precision"], 1 / 2, **tolerances.HAND)
    assert_allclose(metrics["ndcg"], (1 + 1 / 2) / (1 + 1 / np.log2(3)), **tolerances.HAND)
    assert_allclose(metrics["mrr"], 1.0)
    assert_allclose(metrics["curve"], [1] * 6 + [2 / 3] * 5, **tolerances.HAND)
    assert metrics["queries"] == 2
    assert_allclose(scores["chance"]["a->b"], (1 + 5 / 6 + 3 / 4 + 7 / 12 + 1 / 2 + 5 / 12) / 6)  # all orders of 2 in 4
    one, other = (scores["classes"]["a->b"][k] for k in ("0", "1"))
    assert_allclose([one["map"], other["map"]], [first, second], **tolerances.HAND)
    assert one["queries"] == other["queries"] == 1
    assert set(one) == set(metrics)  # every metric, by class too
    assert scores["instances"] == {}  # two rows and four: nothing pairs


@pytest.mark.slow
def test_map_equals_the_reference_in_every_protocol():
    z, labels = clusters()
    scores = evaluate_embeddings(z, labels, options=ALL)
    expected = {}
    for a in z:
        rest = [m for m in z if m != a]
        expected |= {f"{a}->{b}": reference.mean_average_precision(z[a], z[b], labels, labels) for b in rest}
        together = np.concatenate([z[m] for m in rest])
        expected[f"{a}->others"] = reference.mean_average_precision(z[a], together, labels, np.tile(labels, 2))
        without = [np.arange(30) != i for i in range(30)]
        own = [
            reference.mean_average_precision(z[a][i : i + 1], z[a][keep], labels[i : i + 1], labels[keep])
            for i, keep in enumerate(without)
        ]
        expected[f"{a}->{a}"] = np.mean(own)
    assert set(scores["map"]) == set(expected)
    for direction, value in expected.items():
        assert abs(scores["map"][direction] - value) < tolerances.PRECISION
    cross = [v for d, v in scores["map"].items() if "others" not in d and d[0] != d[-1]]
    assert len(cross) == 6
    assert_allclose(scores["average"], np.mean(cross))
    own = expected_average_precision([(labels == y).sum() - 1 for y in labels], 29)
    assert_allclose(scores["chance"]["a->a"], own.mean())
    together = expected_average_precision([2 * (labels == y).sum() for y in labels], 60)
    assert_allclose(scores["chance"]["a->others"], together.mean())


def test_multi_hot_labels_share_what_one_hot_rows_say():
    z, labels = clusters()
    plain, hot = (evaluate_embeddings(z, y, options=ALL) for y in (labels, np.eye(3)[labels]))
    assert hot["map"] == plain["map"]
    assert hot["classes"] == plain["classes"]
    several = np.eye(3, dtype=bool)[labels]
    several[:, 2] |= several[:, 0]  # whoever has class 0 has class 2 too
    several[0] = False  # and one has none
    scores = evaluate_embeddings(z, several, class_names=["x", "y", "z"], options=QUICK)
    relevant = (several.astype(int) @ several.T.astype(int)) > 0
    similarity = reference._unit(z["a"]) @ reference._unit(z["b"]).T
    values = [reference.average_precision(s, r) for s, r in zip(similarity, relevant, strict=True)]
    assert abs(scores["map"]["a->b"] - np.mean(values)) < tolerances.PRECISION
    assert abs(scores["classes"]["a->b"]["z"]["map"] - np.mean(np.array(values)[several[:, 2]])) < tolerances.PRECISION
    assert set(scores["classes"]["a->b"]) <= {"x", "y", "z"}


@pytest.mark.slow
def test_pairs_by_row_by_id_and_where_some_have_none():
    z, labels = clusters(n=12, modalities=("a", "b"))
    scores = evaluate_embeddings(z, labels, options=QUICK)["instances"]["a->b"]
    similarity = reference._unit(z["a"]) @ reference._unit(z["b"]).T
    ranks = (similarity >= np.diag(similarity)[:, None]).sum(axis=1)
    assert scores == {
        **{f"recall@{k}": pytest.approx(np.mean(ranks <= k)) for k in (1, 5, 10)},
        "median_rank": np.median(ranks),
        "queries": 12,
    }
    order = np.random.default_rng(0).permutation(12)
    names = np.array([f"id{i}" for i in range(12)])
    moved = {"a": z["a"], "b": z["b"][order]}
    by_id = evaluate_embeddings(
        moved, {"a": labels, "b": labels[order]}, ids={"a": names, "b": names[order]}, options=QUICK
    )
    assert by_id["instances"]["a->b"] == scores
    fewer = {"a": z["a"], "b": z["b"][3:]}
    ids = {"a": np.arange(12), "b": np.arange(3, 12)}
    actual, values = full_report(check_embedded(fewer, {"a": labels, "b": labels[3:]}, ids), QUICK)
    assert actual["instances"]["a->b"]["queries"] == 9
    assert values["a->b"]["pair_rank"][:3].tolist() == [0, 0, 0]
    behind = (similarity[3:, 3:] >= np.diag(similarity)[3:, None]).sum(axis=1)
    assert values["a->b"]["pair_rank"][3:].tolist() == behind.tolist()
    assert evaluate_embeddings(fewer, {"a": labels, "b": labels[3:]}, options=QUICK)["instances"] == {}
    strangers = {"a": np.arange(12), "b": np.arange(100, 109)}
    assert evaluate_embeddings(fewer, {"a": labels, "b": labels[3:]}, ids=strangers, options=QUICK)["instances"] == {}


def test_of_several_captions_of_a_picture_the_first_found_counts():
    z = {"image": angles(0, 90), "text": angles(30, 70, 5, 100, 45)}
    ids = {"image": [7, 8], "text": [7, 7, 8, 8, 9]}
    _, values = full_report(check_embedded(z, None, ids), QUICK)
    # From 0 degrees: 5 (of 8), 30 (of 7); from 90 degrees: 100 (of 8).
    assert values["image->text"]["pair_rank"].tolist() == [2, 1]
    assert values["text->image"]["pair_rank"].tolist() == [1, 2, 2, 1, 0]
    both = {**z, "other": angles(1, 89)}
    scores = full_report(
        check_embedded(both, None, {**ids, "other": [7, 8]}), dataclasses.replace(QUICK, protocol=("others",))
    )
    assert scores[1]["image->others"]["pair_rank"].tolist() == [1, 1]


def test_captions_of_a_picture_are_drawn_together():
    """Five equal captions give no more information than one, so the interval is the same."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(40, 6))
    text = image + 1.5 * rng.normal(size=image.shape)
    options = dataclasses.replace(QUICK, bootstrap=1000)
    one = evaluate_embeddings({"image": image, "text": text}, ids=np.arange(40), options=options)
    ids = {"image": np.arange(40), "text": np.repeat(np.arange(40), 5)}
    five = evaluate_embeddings({"image": image, "text": np.repeat(text, 5, axis=0)}, ids=ids, options=options)
    assert five["instances"]["text->image"]["ci"] == one["instances"]["text->image"]["ci"]


def test_without_labels_only_pairs_are_scored_and_a_sentence_says_so():
    z, _ = clusters(modalities=("a", "b"))
    scores = evaluate_embeddings(z, options=QUICK)
    assert set(scores["instances"]) == {"a->b", "b->a"}
    assert {"map", "average", "metrics", "classes", "chance"}.isdisjoint(scores)
    assert scores["notes"] == ["there are no labels: only instance-level scores are reported"]
    with pytest.raises(InputError, match="neither labels nor pairs"):
        evaluate_embeddings({"a": z["a"], "b": z["b"][:5]}, options=QUICK)
    with pytest.raises(InputError, match="neither labels nor pairs"):
        evaluate_embeddings(z, options=Options(protocol=("within",)))


@pytest.mark.slow
def test_queries_without_relevant_items_count_0_or_are_left_out():
    z, labels = clusters(modalities=("a", "b"))
    given = {"a": np.where(np.arange(30) < 10, 9, labels), "b": labels}
    zero = evaluate_embeddings(z, given, options=Options(bootstrap=100))
    skip = evaluate_embeddings(z, given, options=Options(bootstrap=100, without_relevant="skip"))
    assert (zero["metrics"]["a->b"]["queries"], skip["metrics"]["a->b"]["queries"]) == (30, 20)
    assert_allclose(zero["map"]["a->b"] * 30, skip["map"]["a->b"] * 20)
    assert_allclose(zero["chance"]["a->b"] * 30, skip["chance"]["a->b"] * 20)
    for scores in (zero, skip):
        low, high = scores["metrics"]["a->b"]["ci"]["map"]
        assert low < scores["map"]["a->b"] < high
    assert zero["classes"]["a->b"]["9"]["map"] == 0
    assert "9" not in skip["classes"]["a->b"]
    with pytest.raises(InputError, match="a->b: no query has a relevant item"):
        evaluate_embeddings(z, {"a": labels, "b": labels + 5}, options=Options(without_relevant="skip"))


def test_intervals_hold_their_means_and_follow_the_seed():
    z, labels = clusters(n=60, modalities=("a", "b"))
    scores = evaluate_embeddings(z, labels, options=Options(k=(1, 5), bootstrap=200))
    for direction, metrics in scores["metrics"].items():
        assert set(metrics["ci"]) == set(metrics) - {"ci", "curve", "queries"}
        for name, (low, high) in metrics["ci"].items():
            assert low <= metrics[name] <= high
        pairs = scores["instances"][direction]
        assert set(pairs["ci"]) == set(pairs) - {"ci", "queries"}
        assert pairs["ci"]["median_rank"][0] <= pairs["median_rank"] <= pairs["ci"]["median_rank"][1]
    low, high = scores["average_ci"]
    assert low < scores["average"] < high
    again, other = (evaluate_embeddings(z, labels, options=Options((1, 5), bootstrap=200, seed=s)) for s in (0, 1))
    assert again == scores
    assert other["average_ci"] != scores["average_ci"]
    assert other["map"] == scores["map"]
    none = evaluate_embeddings(z, labels, options=Options(k=(1, 5), bootstrap=0))
    assert "average_ci" not in none
    assert "ci" not in none["metrics"]["a->b"]
    assert "ci" not in none["instances"]["a->b"]
    json.dumps(scores, allow_nan=False)


def test_zero_vectors_are_similar_to_nothing_and_reported():
    z = {"a": np.zeros((2, 3)), "b": np.array([[0.5, 0.25, 0], [0, 0.5, 0.25]])}
    scores = evaluate_embeddings(z, [0, 1], options=QUICK)
    assert_allclose(scores["metrics"]["a->b"]["map"], (1 + 1 / 2) / 2)  # all tie: gallery order
    assert scores["notes"] == ["2 of 2 embeddings of a are zero vectors; their similarity to everything is 0"]


def test_cut_offs_beyond_the_gallery_find_nothing_more():
    z, labels = clusters(n=6, modalities=("a", "b"))
    metrics = evaluate_embeddings(z, labels, options=Options(k=(6, 600), bootstrap=0))["metrics"]["a->b"]
    assert_allclose(metrics["precision@600"], metrics["precision@6"] / 100, **tolerances.HAND)
    assert_allclose([metrics["recall@600"], metrics["map@600"]], [metrics["recall@6"], metrics["map"]])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_numbers_of_any_width(dtype):
    z = {"a": np.eye(3, dtype=dtype), "b": np.eye(3, dtype=dtype)}
    assert evaluate_embeddings(z, [0, 1, 2], options=QUICK)["average"] == 1.0


def test_names_as_labels():
    z, labels = clusters(modalities=("a", "b"))
    names = np.array(["cat", "dog", "owl"])
    by_name = evaluate_embeddings(z, names[labels], options=QUICK)
    assert by_name["map"] == evaluate_embeddings(z, labels, options=QUICK)["map"]
    assert list(by_name["classes"]["a->b"]) == ["cat", "dog", "owl"]
    assert evaluate_embeddings(z, names[labels].astype("S"), options=QUICK) == by_name
    assert evaluate_embeddings(z, names[labels].astype(object), options=QUICK) == by_name
    for given in (pandas.Series(names[labels]), pandas.Categorical(names[labels])):
        assert evaluate_embeddings(z, given, options=QUICK) == by_name
    assert evaluate_embeddings(z, labels, ids=np.arange(30).astype(str).astype(object), options=QUICK)["instances"]
    turned = evaluate_embeddings(z, names[labels], class_names=["owl", "dog", "cat"], options=QUICK)
    assert turned["classes"]["a->b"] == by_name["classes"]["a->b"]


E = np.eye(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, [0]), "no embeddings"),
        (({"a": E, "b": E[:0]}, [0, 1, 2, 3]), r"b is empty, shape \[0, 4\]"),
        (({"a": E, "b": E[:, :0]}, [0, 1, 2, 3]), r"b is empty, shape \[4, 0\]"),
        (({"a": E, "b": E[0]}, [0, 1, 2, 3]), r"b is float64 \[4\]; embeddings must be"),
        (({"a": E, "b": E + 0j}, [0, 1, 2, 3]), r"b is complex128 \[4, 4\]; embeddings must be"),
        (({"a": E, "b": E.astype(str)}, [0, 1, 2, 3]), "embeddings must be real numbers"),
        (({"a": E, "b": E / E.max(axis=1) * [1, np.nan, 1, 1]}, None), "b holds values NaN.*row 0, column 1"),
        (({"a": E, "b": E * 1e300}, None), "b holds values NaN, inf or beyond float32, the first in row 0, column 0"),
        (({"a": E, "b": [[1, 2], [3]]}, None), "b is no array .*give an array that numpy.asarray takes"),
        (({"a": E, "b": E}, [[0], [1, 2], [3], [0]]), "labels is no array"),
        (({"a": E, "b": E[:, :3]}, [0, 1, 2, 3]), "numbers of columns differ: a has 4, b has 3"),
        (({"a": E}, [0, 1, 2, 3]), "a is the only modality"),
        (({"a": E, "b": E}, [0, 1, 2]), r"a has 4 rows, labels has shape \[3\]; give one per row, or a_labels"),
        (({"a": E, "b": E}, {"a": [0, 1, 2, 3]}), "b_labels is missing"),
        (({"a": E, "b": E}, 7), r"labels has shape \[\]"),
        (({"a": E, "b": E}, [0, 1, 2, -1]), "the value -1; classes are numbered from 0"),
        (({"a": E, "b": E}, [0, 1, 2, 0.5]), "values that are no integers"),
        (({"a": E, "b": E}, np.array(["x", None, "y", "z"], object)), "labels: the value 1 is missing"),
        (({"a": E, "b": E}, [0, 1, 2, np.nan]), "values that are no integers"),
        (({"a": E, "b": E}, 2 * E), "values other than 0 and 1"),
        (({"a": E, "b": E}, [True] * 4), "give integers or names"),
        (({"a": E, "b": E}, np.zeros((4, 2, 2))), "give integers or names"),
        (({"a": E, "b": E}, E.astype(str)), r"names as labels must be \[N\]"),
        (({"a": E, "b": E}, {"a": E, "b": [0, 1, 2, 3]}), "labels differ in form"),
        (({"a": E, "b": E}, {"a": E, "b": E[:, :2]}), "differ in their number of classes: a has 4, b has 2"),
        (({"a": E, "b": E}, [0, 1, 2, 3], None, ["x", "y"]), "class_names has 2 names for 4 classes"),
        (({"a": E, "b": E}, [0, 1], None, ["x", "x"]), "holds 'x' twice"),
        (({"a": E, "b": E}, ["x", "y", "z", "y"], None, ["x", "y"]), "label 'z' is not in class_names"),
        (({"a": E, "b": E}, None, [1, 2]), r"a has 4 rows, ids has shape \[2\]"),
        (({"a": E, "b": E}, None, E), "give text or integers"),
        (({"a": E, "b": E}, None, [1, 2, 3, np.nan]), "hold nan; give text or integers"),
        (({"a": E, "b": E}, None, [1, 2, 3, 3.5]), r"hold 3\.5; give text or integers"),
        (({"a": E, "b": E}, None, np.array([1, 2, 3, 2**63], np.uint64)), "hold 9223372036854775808; give text"),
        (({"a": E, "b": E}, None, {"a": [1, 2, 3, 4], "b": list("1234")}), "some ids are text, others numbers"),
    ],
)
def test_bad_input_is_reported_with_its_rule(arguments, message):
    z, labels, ids, names = (*arguments, None, None)[:4] if len(arguments) < 4 else arguments
    with pytest.raises(InputError, match=message):
        evaluate_embeddings(z, labels, ids=ids, class_names=names or ())


def test_one_protocol_or_cut_off_needs_no_tuple():
    assert Options(k=5, protocol="within") == Options(k=(5,), protocol=("within",))
    assert Options(k=np.array([1, 3]), protocol=["cross"]) == Options(k=(1, 3))


def test_one_row_has_no_gallery_within_its_modality():
    with pytest.raises(InputError, match="empty gallery within"):
        evaluate_embeddings({"a": E, "b": E[:1]}, {"a": [0] * 4, "b": [0]}, options=Options(protocol=("within",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": ()}, "k is empty"),
        ({"k": (0,)}, "k 0: give integers"),
        ({"k": (5, 5)}, "k 5 5: give integers from 1 on, each once"),
        ({"k": (2.5,)}, "k 2.5"),
        ({"protocol": ()}, "protocol is empty"),
        ({"protocol": ("all",)}, "protocol all: choose from cross, others, within"),
        ({"without_relevant": "drop"}, "choose zero or skip"),
        ({"bootstrap": 5}, "bootstrap 5: give 0 for no intervals, or 100"),
        ({"bootstrap": -1}, "bootstrap -1"),
    ],
)
def test_bad_options_are_reported(changes, message):
    with pytest.raises(InputError, match=message):
        Options(**changes)
