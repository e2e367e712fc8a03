"""Tensors of other libraries in every public function that takes arrays; PyTorch itself with the extra `bench`."""

import jax
import numpy as np
import pytest
from toy import toy_arrays, toy_config

from mrl_jax import (
    Index,
    InputError,
    NoiseSpec,
    evaluate_embeddings,
    inject_noise,
    load_dataset,
    mean_average_precision,
    retrieval_metrics,
    top_k,
    train,
)
from mrl_jax.retrieval.measure import chance_map, pair_ranks, summarize_by_class
from mrl_jax.search.index import recall
from mrl_jax.tensors import from_tensor

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 4)).astype(np.float32), RNG.normal(size=(9, 4)).astype(np.float32)
LABELS, OTHERS = np.arange(12) % 3, np.arange(9) % 3


class Tensor:
    """What a tensor of PyTorch does that needs gradients and is on a GPU: NumPy cannot read it."""

    def __init__(self, value, here=False):
        self.value, self.here, self.shape = value, here, value.shape

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")

    def __len__(self):
        return len(self.value)

    def detach(self):
        return self

    def cpu(self):
        return Tensor(self.value, True)

    def numpy(self):
        if not self.here:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.value


class OfCupy:
    __cuda_array_interface__ = None

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def get(self):
        return X


def calls(t):
    """Public functions of arrays, each array converted by `t`."""
    x, y, labels, others = t(X), t(Y), t(LABELS), t(OTHERS)
    index = Index.build(y, labels=others, ids=t(np.arange(9)))
    per_query = retrieval_metrics(x, y, labels, others)
    yield mean_average_precision(x, y, labels, others)
    yield from per_query.values()
    yield summarize_by_class(per_query, labels)[1]["map"]
    yield chance_map(labels, others)
    yield pair_ranks(x, y, t(np.arange(12) % 9))
    yield from top_k(x, y, k=3)
    yield index.search(x, 3).rows
    yield index.search(x, 3).hits(labels)
    index.add(x, labels=labels, ids=t(np.arange(12)))
    yield np.concatenate(list(index.embeddings()))
    yield recall(t(np.array([[3, 1]])), t(np.array([[1, 2]])))
    scores = evaluate_embeddings({"a": x, "b": y}, {"a": labels, "b": others}, ids={"a": labels, "b": others})
    yield from scores["map"].values()


@pytest.mark.slow
def test_tensors_give_what_arrays_give():
    for given, expected in zip(calls(Tensor), calls(np.asarray), strict=True):
        np.testing.assert_array_equal(given, expected)


@pytest.mark.slow
def test_a_list_of_tensors_is_an_array():
    scores = top_k([Tensor(row) for row in X], [Tensor(row) for row in Y], k=2)
    np.testing.assert_array_equal(scores, top_k(X, Y, k=2))


@pytest.mark.slow
def test_runs_take_tensors():
    arrays = toy_arrays()
    data = load_dataset({name: Tensor(x) for name, x in arrays.items()})
    for m, x in load_dataset(arrays).splits["train"].features.items():
        np.testing.assert_array_equal(data.splits["train"].features[m], x)
    run = train(toy_config(epochs=1), data=arrays).run
    labels, spec, key = np.stack([LABELS, LABELS]), NoiseSpec(0.5, kind="nearest-class"), jax.random.key(0)
    noisy = [inject_noise(t(labels), spec, key, num_classes=3, features=[t(X), t(X)]) for t in (Tensor, np.asarray)]
    np.testing.assert_array_equal(noisy[0].labels, noisy[1].labels)
    z = run.embed({"sound": Tensor(arrays["test_sound"])})["sound"]
    np.testing.assert_array_equal(z, run.embed({"sound": arrays["test_sound"]})["sound"])


def test_arrays_of_cupy_are_copied_to_the_host_and_others_stay():
    assert from_tensor(OfCupy()) is X
    for x in (X, [1, 2], (), "text", None, {"a": 1}):
        assert from_tensor(x) is x


def test_sparse_matrices_give_what_arrays_give():
    sparse = pytest.importorskip("scipy.sparse")
    for t in (sparse.csr_matrix, sparse.coo_array):
        x, y = t(X), t(Y)
        assert mean_average_precision(x, y, LABELS, OTHERS) == mean_average_precision(X, Y, LABELS, OTHERS)
        np.testing.assert_array_equal(top_k(x, y, k=2), top_k(X, Y, k=2))
        scores = evaluate_embeddings({"a": x, "b": y}, {"a": LABELS, "b": OTHERS})
        assert scores == evaluate_embeddings({"a": X, "b": Y}, {"a": LABELS, "b": OTHERS})


MASKED = np.ma.masked_less(X, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_average_precision(MASKED, Y, LABELS, OTHERS), "mean_average_precision: queries are a masked"),
        (lambda: mean_average_precision(X, Y, np.ma.masked_equal(LABELS, 0), OTHERS), "labels of the queries are a"),
        (lambda: pair_ranks(X, MASKED), "pair_ranks: gallery are a masked"),
        (lambda: chance_map(np.ma.masked_equal(LABELS, 0), OTHERS), "a masked array"),
        (lambda: top_k(MASKED, Y, 1), "queries are a masked array"),
        (lambda: top_k(list(MASKED), Y, 1), r"queries are a masked array float32 \[4\]"),
        (lambda: Index.build(X, labels=np.ma.masked_equal(LABELS, 0)), "labels are a masked array"),
        (lambda: evaluate_embeddings({"a": MASKED, "b": X}, LABELS), "embeddings: a is a masked array"),
        (lambda: evaluate_embeddings({"a": X, "b": X}, np.ma.masked_equal(LABELS, 0)), "labels is a masked array"),
    ],
)
def test_masked_values_are_refused(call, message):
    with pytest.raises(InputError, match=f"{message}.*would be read as numbers; fill them .*leave those rows out"):
        call()


def test_a_masked_array_without_masked_values_is_an_array():
    values = np.ma.masked_less(X, -100)
    assert type(from_tensor(values)) is np.ndarray
    np.testing.assert_array_equal(from_tensor(values), X)
    assert from_tensor(MASKED, tensors_only=True) is MASKED


@pytest.mark.bench
def test_tensors_of_pytorch():
    import torch

    def leaf(x):
        return torch.tensor(x, requires_grad=np.issubdtype(x.dtype, np.floating))

    for given, expected in zip(calls(leaf), calls(np.asarray), strict=True):
        np.testing.assert_array_equal(given, expected)
    half = torch.tensor(X, requires_grad=True).bfloat16()
    values = half.detach().float().numpy()
    np.testing.assert_array_equal(from_tensor(half), values)
    assert mean_average_precision(half, leaf(Y), leaf(LABELS), leaf(OTHERS)) == mean_average_precision(
        values, Y, LABELS, OTHERS
    )
    np.testing.assert_array_equal(from_tensor(leaf(X).to_sparse()), X)
    np.testing.assert_array_equal(from_tensor(torch.nn.Parameter(torch.tensor(X))), X)
