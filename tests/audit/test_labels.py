"""The audit on plain arrays: noise that is known to the test alone, and hand-made duplicates, outliers and classes."""

import re

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import mrl_jax
from mrl_jax import Dataset, InputError
from mrl_jax.audit import audit, audit_labels
from mrl_jax.audit.duplicates import duplicates
from mrl_jax.audit.found import average_precision, ranking_quality
from mrl_jax.audit.geometry import class_overlap, nearest, outlyingness
from mrl_jax.data.dataset import Split

N, K = 600, 5


def problem(rate=0.4, seed=0, shared=False, spread=1.0):
    """Two views of five clusters, noisy labels [2, N], clean labels [N]."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, K, N)
    views = [2.0 * rng.normal(size=(K, d))[clean] + spread * rng.normal(size=(N, d)) for d in (8, 12)]
    draws = [np.where(rng.random(N) < rate, rng.integers(0, K, N), clean) for _ in range(1 if shared else 2)]
    return views, np.stack(draws * (2 if shared else 1)), clean


def same(a, b):
    for name in ("p_wrong", "suggested", "posterior", "agreement", "neighbours", "outlyingness", "overlap"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_wrong_labels_come_first():
    views, labels, clean = problem()
    found = audit(labels, z=views, clean=clean, modalities=("image", "text"), class_names=list("abcde"))
    wrong = labels != clean
    assert found.injected["all"]["auroc"] == pytest.approx(roc_auc_score(wrong.ravel(), found.p_wrong.ravel()))
    assert found.injected["all"]["auroc"] > 0.99
    assert found.injected["text"]["average_precision"] > 0.98
    np.testing.assert_allclose(found.noise.rate, wrong.mean(axis=1), atol=0.03)
    assert (found.suggested == clean).mean() > 0.97
    lines = list(found.lines())
    assert len(lines) == len(found) == 2 * N
    p = [line["p_wrong"] for line in lines]
    assert p == sorted(p, reverse=True)
    first = lines[0]
    i, j = ("image", "text").index(first["modality"]), first["row"]
    assert first["given"] == "abcde"[labels[i, j]]
    assert first["suggested"] == "abcde"[clean[j]] != first["given"]
    assert all(s["given"] != s["suggested"] for s in found.suspects(50))
    # One row per sample.
    assert len({(line["modality"], line["row"]) for line in lines}) == 2 * N


def test_clean_labels_only_score_what_is_found():
    views, labels, clean = problem()
    same(audit_labels(labels, z=views, clean=clean), audit_labels(labels, z=views))
    same(audit_labels(labels, z=views, clean=(clean + 1) % K), audit_labels(labels, z=views))


def test_probabilities_of_any_model_serve_as_votes():
    rng = np.random.default_rng(7)
    p = rng.dirichlet(np.full(K, 0.3), 2000)
    clean = (p.cumsum(axis=1) > rng.random((2000, 1))).argmax(axis=1)
    labels = np.where(rng.random(2000) < 0.4, rng.integers(0, K, 2000), clean)
    log_p = np.log(np.maximum(p, 1e-9))
    found = audit_labels(labels, log_p, clean=clean)
    plain = audit_labels(labels, log_p, method="model", clean=clean)
    np.testing.assert_allclose(plain.p_wrong[0], 1.0 - np.take_along_axis(p, labels[:, None], 1)[:, 0], atol=1e-5)
    assert found.injected["all"]["auroc"] > plain.injected["all"]["auroc"] - 0.005
    np.testing.assert_allclose(found.noise.rate, (labels != clean).mean(), atol=0.03)
    assert found.neighbours is None
    assert found.outlyingness is None
    # One model per modality: their mean counts, of those that are present.
    mask = np.ones((2, 2000), bool)
    mask[1, ::2] = False
    both = audit_labels(np.stack([labels, labels]), np.stack([log_p, log_p]), mask=mask)
    np.testing.assert_allclose(both.posterior[0], found.posterior[0], atol=1e-5)
    assert (both.p_wrong[1, ::2] == 0).all()
    assert len(both) == 3000


def test_labels_of_several_modalities_find_more_than_cleanlab_on_the_same_votes():
    pytest.importorskip("cleanlab")
    views, labels, clean = problem(0.5, spread=3.0)
    ours = audit_labels(labels, z=views, clean=clean).injected["all"]["auroc"]
    theirs = audit_labels(labels, z=views, clean=clean, method="confident").injected["all"]["auroc"]
    assert 0.6 < theirs < ours - 0.003


def test_transition_matrix_has_the_rate_and_holds_the_truth():
    views, labels, clean = problem(0.4, seed=3)
    noise = audit_labels(labels, z=views).noise
    np.testing.assert_allclose(noise.transition.sum(axis=2), 1.0)
    np.testing.assert_allclose(noise.counts.sum(axis=(1, 2)), N, rtol=1e-6)
    off = noise.counts.sum(axis=(1, 2)) - np.trace(noise.counts, axis1=1, axis2=2)
    np.testing.assert_allclose(off / N, noise.rate, atol=1e-6)
    assert (noise.transition_low <= noise.transition).all()
    assert (noise.transition <= noise.transition_high).all()
    true = np.zeros((2, K, K))
    for i in range(2):
        np.add.at(true[i], (clean, labels[i]), 1.0)
    true /= true.sum(axis=2, keepdims=True)
    inside = (noise.transition_low <= true) & (true <= noise.transition_high)
    assert inside.mean() > 0.9


def test_agreement_counts_the_other_modalities_that_are_present():
    labels = np.array([[0, 0, 0, 1], [0, 1, 1, 1], [0, 1, 0, 1]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], bool)
    z = np.random.default_rng(0).normal(size=(4, 3))
    found = audit_labels(labels, z=z, mask=mask, class_names=["a", "b"])
    np.testing.assert_array_equal(found.agreement, [[1, 0, 1, np.nan], [1, 0.5, np.nan, np.nan], [1, 0.5, 1, np.nan]])
    lines = {(line["modality"], line["row"]): line for line in found.lines()}
    assert len(lines) == 9  # missing samples have no line
    assert lines["modality 1", 3]["agreement"] is None


def test_average_precision_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 20, 300) / 20, rng.random(300) < 0.3
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores))
    quality = ranking_quality(np.array([0.9, 0.8, 0.1, 0.2]), np.array([True, False, True, False]), 0.5)
    assert quality["precision"] == 0.5
    assert quality["share"] == 0.5
    assert np.isnan(average_precision(scores, np.zeros(300, bool)))


def test_neighbours_are_the_nearest_others():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    x[5] = x[6] = x[7] = x[8]  # equal to more others than are named
    wanted = np.array([0, 5, 8, 33])
    found = nearest(x, wanted, 2)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(40):
        if i not in wanted:
            assert (found[i] == -1).all()
            continue
        similarity = unit @ unit[i]
        similarity[i] = -np.inf
        assert i not in found[i]
        np.testing.assert_allclose(np.sort(similarity[found[i]])[::-1], np.sort(similarity)[::-1][:2], atol=1e-6)
    assert (nearest(x[:1], np.array([0]), 3) == -1).all()


def test_an_instance_far_from_every_class_is_an_outlier():
    views, labels, _ = problem(0.2)
    views[0][17] = -40.0 * np.ones(8)
    views[1][17] = np.random.default_rng(9).normal(size=12) * 5
    found = audit_labels(labels, z=views)
    assert found.outlyingness.shape == (N,)
    x = np.concatenate([np.eye(3)[np.arange(90) % 3] + 0.01, [[-1.0, -1.0, -1.0]]])
    q = np.concatenate([np.eye(3)[np.arange(90) % 3], [[1 / 3] * 3]])
    far, limit = outlyingness(x + 1e-3 * np.random.default_rng(0).normal(size=x.shape), q)
    assert np.flatnonzero(far > limit).tolist() == [90]


def test_classes_that_cannot_be_told_apart_look_merged():
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 4, N)
    place = np.array([0, 1, 2, 2])[clean]  # the last two have the same features
    z = 4.0 * np.eye(3)[place] + rng.normal(size=(N, 3))
    found = audit_labels(clean, z=z, class_names=["a", "b", "c", "d"])
    assert [(pair["a"], pair["b"]) for pair in found.merged()] == [("c", "d")]
    overlap = class_overlap(np.eye(2)[[0, 0, 1, 1]], np.array([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5], [0.1, 0.9]]))
    np.testing.assert_allclose(overlap, [[1, (3 / 7 + 3 / 7) / 2], [(3 / 7 + 3 / 7) / 2, 1]])


def test_duplicates_are_found_within_the_training_split_and_across_splits():
    rng = np.random.default_rng(0)
    sizes = {"train": 50, "valid": 20, "test": 30}
    features = {name: {m: rng.normal(size=(n, 10)).astype(np.float32) for m in ("a", "b")} for name, n in sizes.items()}
    features["test"]["a"][3] = features["train"]["a"][7]
    features["test"]["b"][3] = features["train"]["b"][7]
    features["train"]["a"][11] = features["train"]["a"][12] + 1e-3
    labels = {name: np.arange(n) % 3 for name, n in sizes.items()}
    splits = {
        name: Split(
            features[name], {"a": labels[name], "b": labels[name]}, ids=np.array([f"{name}{i}" for i in range(n)])
        )
        for name, n in sizes.items()
    }
    found = duplicates(Dataset("toy", ("a", "b"), ("x", "y", "z"), splits))
    assert len(found) == 2
    first, second = found
    assert first["modalities"] == ["a", "b"]
    assert first["exact"]
    assert (first["a"]["id"], first["b"]["id"]) == ("train7", "test3")
    assert first["a"]["label"] == "y"
    assert first["b"]["label"] == "x"
    assert not first["same_label"]
    assert first["similarity"] == pytest.approx(1.0)
    assert second["modalities"] == ["a"]
    assert not second["exact"]
    assert {second["a"]["row"], second["b"]["row"]} == {11, 12}


def test_the_function_is_in_the_package_and_ids_are_shown():
    views, labels, _ = problem()
    found = mrl_jax.audit(labels, z=views, ids=[f"item {i}" for i in range(N)])
    assert all(line["id"] == f"item {line['row']}" for line in found.lines(20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_p": None, "z": None}, "give log_p, or z"),
        ({"labels": np.zeros((2, N)) + 0.5}, "integers"),
        ({"labels": np.zeros((0, 3), int)}, "integers"),
        ({"z": np.zeros((3, 2))}, re.escape(f"[{N}, D]")),
        ({"log_p": np.zeros((N, 3, 2, 2))}, "log_p is"),
        ({"log_p": np.full((N, K), 0.5)}, "above 0"),
        ({"log_p": np.full((N, K), np.nan)}, "not finite"),
        ({"ids": ["a"]}, "ids is"),
        ({"rows": np.zeros((1, 3))}, "rows is"),
        ({"margin": np.zeros(3)}, "margin is"),
        ({"modalities": ["a"]}, "give one name each"),
        ({"neighbours": -1}, "0 or more"),
        ({"log_p": np.full((N, 3), -1.0)}, "labels are 0 to 4 with 3 classes"),
        ({"class_names": ["a", "b"]}, "with 2 classes"),
        ({"mask": np.ones(3, bool)}, "mask is"),
        ({"method": "guess"}, "choose from consensus"),
        ({"method": "model"}, "needs log_p"),
        ({"clean": np.zeros(3, int)}, "clean is"),
        ({"data": "x"}, "belongs to a run"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    views, labels, _ = problem()
    arguments = {"labels": labels, "z": views, **changes}
    with pytest.raises(InputError, match=message):
        audit(arguments.pop("labels"), arguments.pop("log_p", None), arguments.pop("z"), **arguments)
