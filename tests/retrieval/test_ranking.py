"""Rankings block by block: equal results of all methods and block sizes, sharding, ties, self exclusion."""

import contextlib
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tolerances
from rows import exact_rows, labels, module_with, multi_hot, random_rows
from threadpoolctl import threadpool_info

import mrl_jax.retrieval.ranking
from mrl_jax.retrieval import on_host
from mrl_jax.retrieval.groups import equal_rows
from mrl_jax.retrieval.measure import mean_average_precision, pair_ranks, retrieval_metrics
from mrl_jax.retrieval.metrics import Ranking, rank
from mrl_jax.retrieval.ranking import map_rankings

METHODS = ["numpy", "xla", pytest.param("numba", marks=pytest.mark.bench)]


def gain_at_rank(r: Ranking):
    """Gains by rank [B, 31], the same for every form of a ranking."""
    place = jnp.where(r.gain > 0, r.rank, 0)
    rows = jnp.zeros((len(place), 32), jnp.uint8)
    return jnp.put_along_axis(rows, place, r.gain, axis=1, inplace=False)[:, 1:]


def ranked(method="numpy", multi=False, q=23, seed=0, **options):
    """Gains in ranked order of `q` queries in a gallery of 31, with many ties; ours and by argsort in float64."""
    queries, gallery = exact_rows(q, seed=seed), exact_rows(31, seed=seed + 1)
    given = [multi_hot(n).astype(np.uint8) if multi else labels(n).astype(np.int32) for n in (q, 31)]
    actual = map_rankings(gain_at_rank, queries, gallery, *given, method=method, **options)
    gains = given[0].astype(int) @ given[1].T if multi else given[0][:, None] == given[1]
    expected = [reference.ranked_gains(gallery @ x, g.astype(int)) for x, g in zip(queries, gains, strict=True)]
    return actual, np.array(expected)


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_methods_rank_alike(method, multi):
    actual, expected = ranked(method, multi)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.slow
@pytest.mark.parametrize("queries_per_block", [1, 4, 7, 22, 23, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_any_size_give_the_same_ranking(method, queries_per_block, monkeypatch):
    for name in ("_BLOCK_SCORES", "_CHUNK_SCORES"):
        monkeypatch.setattr(module_with(name), name, queries_per_block * 31 + 5)
    for name, value in (("_MIN_ROWS", 1), ("_THREADS_PAY", 0)):
        monkeypatch.setattr(module_with(name), name, value)
    actual, expected = ranked(method)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_gallery_larger_than_a_block_is_ranked_too(method, monkeypatch):
    for name in ("_BLOCK_SCORES", "_CHUNK_SCORES", "_MAX_SCORES", "_CACHED_SCORES"):
        monkeypatch.setattr(module_with(name), name, 10)
    for name, value in (("_MIN_ROWS", 1), ("_THREADS_PAY", 0)):
        monkeypatch.setattr(module_with(name), name, value)
    actual, expected = ranked(method)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("method", ["numpy", pytest.param("numba", marks=pytest.mark.bench)])
@pytest.mark.parametrize("cores", [1, 2, 5, 64])
def test_threads_do_not_change_the_ranking(method, cores, monkeypatch):
    for name, value in (("_MIN_ROWS", 2), ("_CHUNK_SCORES", 1), ("_THREADS_PAY", 0), ("usable_cores", lambda: cores)):
        monkeypatch.setattr(module_with(name), name, value)
    for multi in (False, True):
        actual, expected = ranked(method, multi, q=61)
        np.testing.assert_array_equal(actual, expected)


def test_threads_and_their_memory_are_bounded(monkeypatch):
    monkeypatch.setattr(on_host, "usable_cores", lambda: 64)
    for queries, items in ((462, 462), (23_661, 23_661), (10_000, 100_000), (10**6, 10**6), (5, 10**8)):
        workers, block = on_host._threads_and_block(queries, items, dims=512)
        assert 1 <= workers <= 64
        assert 5 * workers * block * items <= max(5 * 2**28, 5 / 16 * 4 * 512 * items)  # bytes


@pytest.mark.parametrize("method", METHODS)
def test_special_scores_rank_as_floats_do(method):
    """Scores that are negative, tiny, huge, or zero of both signs."""
    rng = np.random.default_rng(0)
    scores = rng.choice([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3e38, -3e38, -np.inf, 1.5e-39], (6, 31)).astype(
        np.float32
    )
    gain = rng.integers(0, 3, (6, 31)).astype(np.uint8)
    expected = [reference.ranked_gains(s, g) for s, g in zip(scores + np.float32(0), gain, strict=True)]
    if method == "xla":
        # XLA flushes denormal numbers to zero on some platforms; similarities of unit vectors do not come near them.
        scores[np.abs(scores) < 1e-37] = 0
        expected = [reference.ranked_gains(s, g) for s, g in zip(scores, gain, strict=True)]
        actual = rank(jnp.asarray(scores), jnp.asarray(gain))
    else:
        ranks, kept = np.empty((6, 31), np.int32), np.empty((6, 31), np.uint8)
        on_host._rank_on_host(scores, gain, ranks, kept, method)
        actual = Ranking(jnp.asarray(ranks), None, jnp.asarray(kept))
    np.testing.assert_array_equal(gain_at_rank(actual), expected)


def test_a_thread_that_fails_ends_the_others(monkeypatch):
    for name, value in (("_MIN_ROWS", 1), ("_CHUNK_SCORES", 1), ("_THREADS_PAY", 0), ("usable_cores", lambda: 2)):
        monkeypatch.setattr(module_with(name), name, value)
    calls = []

    def fail(*arguments):
        calls.append(1)
        raise MemoryError

    monkeypatch.setattr(on_host, "_rank_on_host", fail)
    ended = []

    def run():
        with pytest.raises(MemoryError):
            ranked(q=200)
        ended.append(True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert ended, "it hangs"


def test_blas_gets_its_threads_back_whoever_leaves_first(monkeypatch):
    threads = [x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"]
    one, other = on_host._OneBlasThread(), on_host._ONE_BLAS_THREAD
    with other:
        with other:
            assert {x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"} == {1}
        assert {x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"} == {1}
    assert [x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"] == threads
    with one:
        pass
    assert [x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"] == threads


def test_metrics_compile_once_whatever_the_context_and_thread(monkeypatch):
    compiled = []

    def reduce(r):
        compiled.append(1)
        return r.rank.sum(axis=1)

    monkeypatch.setattr(on_host, "_THREADS_PAY", 0)
    z, y = random_rows(1500), labels(1500).astype(np.int32)
    for precision in (None, "highest", None):
        with jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
            map_rankings(reduce, z, z, y, y, method="numpy")
    assert len(compiled) == 1


# Galleries sharded over devices


@pytest.mark.slow
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_sharded_gallery_ranks_like_one_device(count, multi):
    actual, expected = ranked("auto", multi, devices=jax.devices()[:count])
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("devices", [[], 4, "cpu", ["cpu:0"], [jax.devices()[0]] * 2])
def test_devices_are_a_list_of_different_ones(devices):
    x, y = np.eye(4), np.arange(4)
    with pytest.raises(ValueError, match=r"give some of jax\.devices\(\), each once, or None"):
        retrieval_metrics(x, x, y, y, devices=devices)


@pytest.mark.slow
def test_a_sharded_gallery_in_blocks_without_self(monkeypatch):
    monkeypatch.setattr(mrl_jax.retrieval.ranking, "_BLOCK_SCORES", 200)
    z, y = random_rows(61), labels(61)
    expected = retrieval_metrics(z, z, y, y, exclude_self=True)
    actual = retrieval_metrics(z, z, y, y, exclude_self=True, devices=jax.devices())
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=tolerances.PRECISION, err_msg=name)


def test_no_device_holds_the_whole_gallery(monkeypatch):
    held = []
    real = mrl_jax.retrieval.ranking._reduce_block

    def spy(reduce, queries, query_labels, gallery, *rest, **options):
        held.append({s.data.shape[0] for s in gallery.addressable_shards})
        return real(reduce, queries, query_labels, gallery, *rest, **options)

    monkeypatch.setattr(mrl_jax.retrieval.ranking, "_reduce_block", spy)
    mean_average_precision(random_rows(9), random_rows(61), labels(9), labels(61), devices=jax.devices())
    assert held == [{8}]


def test_embeddings_on_a_device_can_have_their_gallery_sharded():
    z, g, a, b = random_rows(9), random_rows(61, seed=1), labels(9), labels(61)
    expected = mean_average_precision(z, g, a, b)
    placed = (jax.device_put(x, jax.devices()[1]) for x in (z, g))
    actual = mean_average_precision(*placed, a, b, devices=jax.devices())
    assert actual == pytest.approx(expected, abs=tolerances.PRECISION)


# Equal rows


def test_equal_rows_are_found_with_zeros_of_both_signs():
    x = random_rows(40)[np.random.default_rng(0).integers(0, 40, 100)]
    x[7] = x[3]
    x[3, 0], x[7, 0] = 0.0, -0.0
    expected = [next(j for j in range(100) if (x[j] == x[i]).all()) for i in range(100)]
    np.testing.assert_array_equal(equal_rows(x), expected)
    assert equal_rows(random_rows(50)) is None


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dim", [33, 512])
def test_equal_gallery_rows_tie_whatever_the_matrix_product_does(method, dim):
    gallery = random_rows(6, dim=dim)[np.random.default_rng(2).integers(0, 6, 301)]
    arguments = (random_rows(11, dim=dim, seed=1), gallery, labels(11), labels(301, seed=1))
    expected = reference.mean_average_precision(*arguments)
    assert mean_average_precision(*arguments, method=method) == pytest.approx(expected, abs=tolerances.PRECISION)


@pytest.mark.slow
def test_equal_rows_tie_in_sharded_galleries_and_pair_ranks():
    gallery = random_rows(6, dim=64)[np.random.default_rng(2).integers(0, 6, 301)]
    arguments = (random_rows(11, dim=64, seed=1), gallery, labels(11), labels(301, seed=1))
    expected = reference.mean_average_precision(*arguments)
    actual = mean_average_precision(*arguments, devices=jax.devices())
    assert actual == pytest.approx(expected, abs=tolerances.PRECISION)
    first = [next(i for i in range(301) if (gallery[i] == row).all()) for row in gallery]
    ranks = pair_ranks(gallery, gallery)
    np.testing.assert_array_equal(ranks, [sum(first[j] == first[i] for j in range(i + 1)) for i in range(301)])


# Precision, choice of method


def test_bfloat16_similarity_is_near_float32():
    arguments = (random_rows(40, dim=64), random_rows(300, dim=64, seed=1), labels(40), labels(300, seed=1))
    exact = retrieval_metrics(*arguments)["ap"]
    rough = retrieval_metrics(*arguments, similarity="bfloat16")["ap"]
    assert 0 < np.abs(rough - exact).max() < 0.02  # similarities off by up to 2^-9 swap near neighbours


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fast"}, "choose from auto, numba, numpy, xla"),
        ({"method": "numpy", "devices": jax.devices()}, "choose xla for a gallery sharded over devices"),
        ({"similarity": "float16"}, "choose from float32, bfloat16"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mean_average_precision(np.eye(3), np.eye(3), np.arange(3), np.arange(3), **options)


@pytest.mark.parametrize("method", ["numpy", "xla"])
def test_excluding_self_needs_the_same_rows_on_both_sides(method):
    with pytest.raises(ValueError, match="6 queries and 3 gallery rows with exclude_self"):
        mean_average_precision(
            np.ones((6, 2)), np.ones((3, 2)), np.zeros(6, int), np.zeros(3, int), exclude_self=True, method=method
        )


def test_a_numba_that_cannot_be_imported_counts_as_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    mrl_jax.retrieval.ranking.radix.available.cache_clear()
    try:
        assert not mrl_jax.retrieval.ranking.radix.available()
    finally:
        mrl_jax.retrieval.ranking.radix.available.cache_clear()


def test_without_numba_the_fast_method_is_refused_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(mrl_jax.retrieval.ranking.radix, "available", lambda: False)
    monkeypatch.setattr(mrl_jax.retrieval.ranking, "_NUMBA_PAYS", 0)
    with pytest.raises(ValueError, match="numba is not installed"):
        mean_average_precision(np.eye(3), np.eye(3), np.arange(3), np.arange(3), method="numba")
    assert mean_average_precision(np.eye(3), np.eye(3), np.arange(3), np.arange(3)) == 1.0
