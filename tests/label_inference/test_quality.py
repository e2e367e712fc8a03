"""Quality of inferred labels: hand values and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mrl_jax import InputError
from mrl_jax.label_inference.quality import auroc, calibration_error, label_quality, transition_error, wrong_probability


def test_auroc_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    scores, positive = np.round(rng.normal(size=500), 1), rng.random(500) < 0.3
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), rel=1e-12)
    assert np.isnan(auroc(scores, np.zeros(500, bool)))


def test_calibration_error_by_hand():
    """Two bins: confidence .9, half right: gap .4; confidence .6, all right: gap .4."""
    q = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert calibration_error(q, np.array([0, 1, 0, 0])) == pytest.approx(0.4)
    assert calibration_error(np.eye(3), np.arange(3)) == 0.0


def test_quality_by_hand():
    q = np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    labels, clean = np.array([[0, 0, 0], [0, 1, 1]]), np.array([0, 1, 0])
    np.testing.assert_allclose(wrong_probability(q, labels), [[0.2, 0.7, 0.4], [0.2, 0.3, 0.6]])
    found = label_quality(q, labels, clean)
    assert found["accuracy"] == 1.0
    assert found["auroc"] == 1.0  # wrong: .7 and .6, above all others
    assert found["estimated"] == pytest.approx(2.4 / 6)
    assert found["true"] == pytest.approx(2 / 6)
    mask = np.array([[True, False, True], [True, True, True]])
    assert label_quality(q, labels, clean, mask)["true"] == pytest.approx(1 / 5)
    missing = np.array([[0, 9, 0], [0, 1, 1]])  # the label of a missing sample may be any number
    assert label_quality(q.tolist(), missing.tolist(), clean.tolist(), mask) == label_quality(q, labels, clean, mask)


@pytest.mark.parametrize(
    ("posterior", "labels", "clean", "mask", "message"),
    [
        (np.eye(3), np.zeros((2, 4), int), np.zeros(3), None, r"labels \[2, 4\], clean \[3\]; they must be"),
        (np.eye(3), np.zeros((2, 3), int), np.zeros(4), None, r"clean \[4\]; they must be \[N, K\], \[M, N\] and"),
        (np.eye(3), np.zeros((2, 3), int), np.zeros(3), np.ones(3, bool), r"mask is \[3\]; it must have the shape"),
        (np.eye(3), np.full((2, 3), 3), np.zeros(3), None, "labels are 3 to 3 with 3 classes; give 0 to 2"),
    ],
)
def test_input_that_does_not_fit_is_named(posterior, labels, clean, mask, message):
    with pytest.raises(InputError, match=message):
        label_quality(posterior, labels, clean, mask)


def test_the_lowest_auroc_is_that_of_one_modality():
    """The first modality: wrong .2 and .7, right .1. The second: wrong .9 and .2, right .3."""
    q = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    found = label_quality(q, np.array([[0, 0, 0], [1, 0, 1]]), np.array([0, 1, 1]))
    assert (found["auroc_lowest"], found["auroc"]) == (0.5, 0.75)
    noise_free = label_quality(q, np.array([[0, 1, 1], [1, 0, 1]]), np.array([0, 1, 1]))
    assert noise_free["auroc_lowest"] == 0.5  # the first modality has no wrong label
    assert np.isnan(label_quality(q, np.array([[0, 1, 1]]), np.array([0, 1, 1]))["auroc_lowest"])


def test_the_error_of_a_transition_by_hand():
    """Class 0 has the labels 0, 0, 1, 1, class 1 the label 1: the distances are 1/4 and 0."""
    labels, clean = np.array([[0, 0, 1, 1, 1]]), np.array([0, 0, 0, 0, 1])
    assert transition_error(np.array([[[0.75, 0.25], [0.0, 1.0]]]), labels, clean) == pytest.approx(4 * 0.25 / 5)
    assert transition_error(np.array([[[0.5, 0.5], [0.0, 1.0]]]), np.repeat(labels, 2, axis=0), clean) == 0.0
    mask = np.array([[True, False, False, True, True]])
    assert transition_error(np.array([[[0.5, 0.5], [0.0, 1.0]]]), labels, clean, mask) == 0.0
    with pytest.raises(InputError, match=r"transition is \[2, 2, 2\]; these labels have 1 annotators"):
        transition_error(np.zeros((2, 2, 2)), labels, clean)
    with pytest.raises(InputError, match=r"labels \[1, 5\], clean \[4\]; they must be"):
        transition_error(np.zeros((1, 2, 2)), labels, clean[:4])
    with pytest.raises(InputError, match="clean classes are 0 to 2 with 2 classes; give 0 to 1"):
        transition_error(np.zeros((1, 2, 2)), labels, clean * 2)
