"""Votes of other instances: against regressions that leave each instance out, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist

from mrl_jax.label_inference.votes import loo_scores, vote_kernel

RNG = np.random.default_rng(0)
N, K = 60, 4
CLASSES = np.arange(N) % K
VIEWS = [(RNG.normal(size=(K, d))[CLASSES] + 0.8 * RNG.normal(size=(N, d))).astype(np.float32) for d in (5, 9)]
TARGETS = np.eye(K, dtype=np.float32)[np.where(RNG.random(N) < 0.4, RNG.integers(0, K, N), CLASSES)]
MASK = np.stack([np.arange(N) % 7 != 3, np.arange(N) % 5 != 1])


def reference_kernel(views, mask):
    """Mean of Gaussian kernels of centred rows of unit length, in float64."""
    total = np.zeros((len(views[0]), len(views[0])))
    for x, present in zip(views, mask, strict=True):
        x = np.float64(x) - np.float64(x)[present].mean(axis=0)
        u = x / np.linalg.norm(x, axis=1, keepdims=True)
        width = np.median(pdist(u[present], "sqeuclidean")) / 2
        k = np.exp(-((u[:, None] - u[None]) ** 2).sum(axis=-1) / width)
        total += k * np.outer(present, present) / len(views)
    return total


def left_out(kernel, targets, penalty):
    """Kernel ridge regression with an intercept, fitted without each instance in turn."""
    out = np.zeros(targets.shape)
    for j in range(len(kernel)):
        rest = np.delete(np.arange(len(kernel)), j)
        # [[K + penalty, 1], [1', 0]] [a; b] = [y; 0]: the intercept bears no penalty.
        system = np.ones((len(rest) + 1, len(rest) + 1))
        system[:-1, :-1] = kernel[np.ix_(rest, rest)] + penalty * np.eye(len(rest))
        system[-1, -1] = 0.0
        solved = np.linalg.solve(system, np.vstack([targets[rest], np.zeros((1, targets.shape[1]))]))
        out[j] = kernel[j, rest] @ solved[:-1] + solved[-1]
    return out


@pytest.mark.parametrize("mask", [None, MASK])
def test_the_kernel_is_the_mean_of_the_modalities(mask):
    found = vote_kernel(VIEWS, mask)
    expected = reference_kernel(VIEWS, np.ones((2, N), bool) if mask is None else mask)
    centred = expected - expected.mean(axis=0) - expected.mean(axis=1)[:, None] + expected.mean()
    basis = np.asarray(found.basis, np.float64)
    np.testing.assert_allclose(basis @ basis.T, centred, atol=2e-5)
    np.testing.assert_allclose(found.spectrum, (basis**2).sum(axis=0), atol=1e-4)


@pytest.mark.parametrize("mask", [None, MASK])
def test_scores_are_those_of_regressions_without_the_instance(mask):
    kernel = reference_kernel(VIEWS, np.ones((2, N), bool) if mask is None else mask)
    centred = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    penalties = np.geomspace(1e-3, 1e3, 19) * np.trace(centred) / N
    by_penalty = [left_out(kernel, TARGETS, p) for p in penalties]
    best = min(by_penalty, key=lambda scores: ((scores - TARGETS) ** 2).mean())
    np.testing.assert_allclose(loo_scores(vote_kernel(VIEWS, mask), TARGETS), best, atol=2e-4)


def test_an_own_label_has_no_part_in_its_votes():
    kernel, stays = vote_kernel(VIEWS), []
    before = np.asarray(loo_scores(kernel, TARGETS))
    for j in range(0, N, 4):
        changed = TARGETS.copy()
        changed[j] = np.eye(K)[(TARGETS[j].argmax() + 1) % K]
        after = np.asarray(loo_scores(kernel, changed))
        stays.append(np.abs(after[j] - before[j]).max() < 1e-5)
        assert np.abs(after - before).max() > 1e-2
    assert np.mean(stays) > 0.5  # a changed label may lead to another penalty, and that to other votes


def test_blocks_and_readers_change_nothing():
    class Rows:
        def __init__(self, x):
            self.x, self.most = x, 0

        def __len__(self):
            return len(self.x)

        def __getitem__(self, rows):
            self.most = max(self.most, len(self.x[rows]))
            return self.x[rows]

    readers = [Rows(x) for x in VIEWS]
    whole, blocks = vote_kernel(VIEWS, landmarks=16), vote_kernel(readers, landmarks=16, block=17)
    assert max(r.most for r in readers) == 17
    scores = [np.asarray(loo_scores(k, TARGETS)) for k in (whole, blocks)]
    np.testing.assert_allclose(*scores, atol=1e-4)


FORMS = {
    "list": lambda x: x.tolist(),
    "frame": lambda x: pytest.importorskip("pandas").DataFrame(x),
    "tensor": lambda x: pytest.importorskip("torch").tensor(x),
    "sparse": csr_matrix,
    "jax": jnp.asarray,
}


@pytest.mark.parametrize("form", FORMS)
def test_lists_frames_tensors_and_sparse_matrices_are_read(form):
    x = VIEWS[0]
    np.testing.assert_array_equal(vote_kernel([FORMS[form](x)]).basis, vote_kernel([x]).basis)


def test_landmarks_approximate_the_kernel():
    rng = np.random.default_rng(1)
    classes = np.arange(800) % K
    views = [rng.normal(size=(K, d))[classes] + rng.normal(size=(800, d)) for d in (6, 8)]
    targets = np.eye(K, dtype=np.float32)[classes]
    exact = np.asarray(loo_scores(vote_kernel(views), targets))
    right = (exact.argmax(axis=1) == classes).mean()
    few = np.asarray(loo_scores(vote_kernel(views, landmarks=200), targets))
    assert vote_kernel(views, landmarks=200).basis.shape == (800, 200)
    assert abs((few.argmax(axis=1) == classes).mean() - right) < 0.03
    assert np.abs(few - exact).mean() < 0.05


def test_features_of_few_dimensions_have_a_kernel():
    """Their kernel has less rank than rows, so that its rounding makes it indefinite."""
    views = [np.random.default_rng(i).normal(size=(300, 2)).astype(np.float32) for i in range(2)]
    expected = reference_kernel(views, np.ones((2, 300), bool))
    centred = expected - expected.mean(axis=0) - expected.mean(axis=1)[:, None] + expected.mean()
    basis = np.asarray(vote_kernel(views).basis, np.float64)
    np.testing.assert_allclose(basis @ basis.T, centred, atol=5e-5)


@pytest.mark.parametrize("width", [20, 100, 300])
def test_a_modality_in_which_most_rows_are_equal_has_a_kernel(width):
    """The median distance is 0, and in float32 up to 1e-6."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, width)).astype(np.float32)
    x[rng.random(200) < 0.85] = x[0]
    u = np.float64(x) - np.float64(x).mean(axis=0)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    expected = np.exp(-((u[:, None] - u[None]) ** 2).sum(axis=-1))
    centred = expected - expected.mean(axis=0) - expected.mean(axis=1)[:, None] + expected.mean()
    basis = np.asarray(vote_kernel([x]).basis, np.float64)
    np.testing.assert_allclose(basis @ basis.T, centred, atol=1e-3)


def test_equal_and_constant_features_give_finite_scores():
    for views in ([np.ones((N, 3), np.float32)] * 2, [np.repeat(VIEWS[0][:1], N, axis=0), VIEWS[1]]):
        assert np.isfinite(loo_scores(vote_kernel(views), TARGETS)).all()
    nothing = np.stack([np.zeros(N, bool), np.ones(N, bool)])
    assert np.isfinite(loo_scores(vote_kernel(VIEWS, nothing), TARGETS)).all()


@pytest.mark.parametrize("count", [2, 3, 5, N])
def test_without_information_votes_are_the_class_shares_of_the_others(count):
    """Constant features, features of value 0, and instances without a sample."""
    expected = (TARGETS[:count].sum(axis=0) - TARGETS[:count]) / (count - 1)
    none = np.zeros((1, count), bool)
    for x, mask in ((np.full((count, 3), 3.3), None), (np.zeros((count, 3)), None), (VIEWS[0][:count], none)):
        np.testing.assert_allclose(loo_scores(vote_kernel([x], mask), TARGETS[:count]), expected, atol=1e-5)


def test_a_single_instance_has_finite_scores():
    assert np.isfinite(loo_scores(vote_kernel([VIEWS[0][:1]]), TARGETS[:1])).all()
