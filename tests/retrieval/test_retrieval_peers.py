"""Every retrieval metric against NumPy in float64, scikit-learn, torchmetrics, ranx and pytrec_eval.

Each peer scores what it defines as we do; `docs/retrieval.md` lists where definitions differ, and the second half of
this file pins those differences, so that a peer that changes its mind is noticed.

Shape letters: Q queries, G gallery items, K classes, R relevant items of a query.
"""

import contextlib
import itertools
from typing import NamedTuple

import numpy as np
import pytest
import pytrec_eval
import ranx
import reference
import sklearn.metrics
import tolerances
import torch
import torchmetrics.functional.retrieval as tm
from numba.typed import List
from rows import exact_rows
from torchmetrics.retrieval import RetrievalMAP

from mrl_jax.retrieval.measure import mean_average_precision, pair_ranks, retrieval_metrics

pytestmark = [
    pytest.mark.bench,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::numba.NumbaWarning"),
]

KS = (1, 5, 10, 3000)


class Case(NamedTuple):
    """The arguments of our functions, and the same data as scores and gains per query for the peers."""

    queries: np.ndarray
    gallery: np.ndarray
    query_labels: np.ndarray
    gallery_labels: np.ndarray
    scores: list[np.ndarray]
    gains: list[np.ndarray]
    exclude_self: bool

    def ours(self, ks=KS):
        return retrieval_metrics(*self[:4], k=ks, exclude_self=self.exclude_self)


def build(queries, gallery, multi, exclude_self=False):
    """Labels, the last one for a query without relevant items, and float64 similarities."""
    rng, q, g = np.random.default_rng(5), len(queries), len(gallery)
    given = [rng.random((n, 6)) < 0.3 if multi else rng.integers(0, 6, n) for n in (q, g)]
    given[0][-1] = False if multi else 77
    given = [given[0], given[0] if exclude_self else given[1]]
    gains = (given[0].astype(int) @ given[1].T.astype(int)) if multi else (given[0][:, None] == given[1]).astype(int)
    scores = unit(queries) @ unit(gallery).T
    kept = [np.arange(g) != i if exclude_self else np.ones(g, bool) for i in range(q)]
    rows = [[row[use] for row, use in zip(x, kept, strict=True)] for x in (scores, gains)]
    return Case(queries, gallery, *given, *rows, exclude_self)


def unit(x):
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)


def separated(q, g, exclude_self=False):
    """Random rows whose similarities differ by more than float32 errors, so that all peers give the same ranking."""
    for seed in itertools.count():
        rng = np.random.default_rng([seed, q, g])
        gallery = rng.normal(size=(g, 8)).astype(np.float32)
        queries = gallery if exclude_self else rng.normal(size=(max(4 * q, g), 8)).astype(np.float32)
        gaps = np.diff(np.sort(unit(queries) @ unit(gallery).T, axis=1), axis=1)
        clear = np.flatnonzero(gaps.min(axis=1, initial=1.0) > 1e-6)
        if len(clear) == len(queries):
            return queries[:q], gallery
        if not exclude_self and len(clear) >= q:
            return queries[clear[:q]], gallery


CASES = {
    f"{q}x{g}, {'several labels' if multi else 'one label'}{', within' if within else ''}": (q, g, multi, within)
    for q, g, within in ((1, 1, False), (3, 2, False), (21, 60, False), (24, 1100, False), (20, 20, True))
    for multi in (False, True)
}


@pytest.fixture(params=CASES)
def case(request):
    q, g, multi, within = CASES[request.param]
    return build(*separated(q, g, within), multi, within)


def agree(actual, expected):
    assert expected
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=tolerances.PRECISION, rtol=0, err_msg=name)


def per_query(rows):
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


# The peers, each in its own words


def by_numpy(case):
    def row(s, g):
        actual = {"ap": reference.average_precision(s, g), "r_precision": reference.r_precision(s, g)}
        actual |= {"rr": reference.reciprocal_rank(s, g), "ndcg": reference.ndcg(s, g)}
        actual |= {"curve": reference.interpolated_precision(s, g), "relevant": (g > 0).sum()}
        for k in KS:
            actual |= {f"ap@{k}": reference.average_precision(s, g, k), f"ndcg@{k}": reference.ndcg(s, g, k)}
            actual |= {f"ap_min@{k}": reference.average_precision(s, g, k, "relevant")}
            actual |= {f"precision@{k}": reference.precision(s, g, k), f"recall@{k}": reference.recall(s, g, k)}
        return actual

    return per_query([row(s, g) for s, g in zip(case.scores, case.gains, strict=True)])


def by_sklearn(case):
    def row(s, g):
        if not g.any():  # it warns and gives 0
            return dict.fromkeys(["ap", "ndcg", *(f"ndcg@{k}" for k in KS)], 0.0) | {"curve": np.zeros(11)}
        precision, recall, _ = sklearn.metrics.precision_recall_curve(g > 0, s)
        actual = {"ap": sklearn.metrics.average_precision_score(g > 0, s)}
        actual["curve"] = [precision[:-1][recall[:-1] >= level / 10 - 1e-9].max() for level in range(11)]
        if len(g) > 1:  # it refuses a single item
            actual["ndcg"] = sklearn.metrics.ndcg_score([g], [s])
            actual |= {f"ndcg@{k}": sklearn.metrics.ndcg_score([g], [s], k=k) for k in KS}
        return actual

    return per_query([row(s, g) for s, g in zip(case.scores, case.gains, strict=True)])


@contextlib.contextmanager
def torch_float64():
    """Set float64: otherwise torchmetrics subtracts discounts that were summed in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def by_torchmetrics(case):
    def row(s, g):
        s, g = torch.tensor((1 + s) / 2), torch.tensor(g)  # relevant items of a score <= 0 would not count
        hit = g > 0
        actual = {"ap": tm.retrieval_average_precision(s, hit), "ndcg": tm.retrieval_normalized_dcg(s, g)}
        actual |= {"rr": tm.retrieval_reciprocal_rank(s, hit), "r_precision": tm.retrieval_r_precision(s, hit)}
        for k in KS:
            actual[f"ap@{k}"] = tm.retrieval_average_precision(s, hit, top_k=k)
            actual[f"precision@{k}"] = tm.retrieval_precision(s, hit, top_k=k)
            actual[f"recall@{k}"] = tm.retrieval_recall(s, hit, top_k=k)
            actual[f"ndcg@{k}"] = tm.retrieval_normalized_dcg(s, g, top_k=k)
        precision, recall, _ = tm.retrieval_precision_recall_curve(s, hit)
        levels = [precision[recall >= level / 10 - 1e-6] for level in range(11)]
        return {
            **{n: float(x) for n, x in actual.items()},
            "curve": [float(x.max()) if len(x) else 0.0 for x in levels],
        }

    with torch_float64():
        return per_query([row(s, g) for s, g in zip(case.scores, case.gains, strict=True)])


def at_k_from_map_cut(actual, relevant):
    """AP@k with both divisors, computed from AP@k divided by R."""
    for k in KS:
        cut, recall = actual.pop(f"map@{k}"), actual[f"recall@{k}"]
        actual[f"ap@{k}"] = np.divide(cut, recall, out=np.zeros_like(cut), where=recall > 0)
        actual[f"ap_min@{k}"] = cut * relevant / np.maximum(1, np.minimum(k, relevant))
    return actual


def by_ranx(case):
    qrels, run = List(), List()
    for s, g in zip(case.scores, case.gains, strict=True):
        order = np.argsort(-s, kind="stable")
        run.append(np.stack([order.astype(float), s[order]], axis=1))
        best = np.argsort(-g, kind="stable")  # the order that its ideal DCG relies on
        qrels.append(np.stack([best.astype(float), g[best].astype(float)], axis=1))
    names = {"map": "ap", "mrr": "rr", "r-precision": "r_precision", "ndcg": "ndcg"}
    names |= {f"{name}@{k}": f"{name}@{k}" for name in ("map", "precision", "recall", "ndcg") for k in KS}
    scores = ranx.evaluate(qrels, run, list(names), return_mean=False)
    actual = {ours: np.array(scores[theirs]) for theirs, ours in names.items()}
    return at_k_from_map_cut(actual, np.array([(g > 0).sum() for g in case.gains]))


def by_pytrec_eval(case):
    """Items have descending names, since trec_eval ranks the later name first among ties."""
    size = max(map(len, case.scores))
    item = [f"{size - j:07d}" for j in range(size)]
    qrels = {str(i): {item[j]: int(x) for j, x in enumerate(g)} for i, g in enumerate(case.gains)}
    run = {str(i): {item[j]: float(x) for j, x in enumerate(s)} for i, s in enumerate(case.scores)}
    cuts = ",".join(map(str, KS))
    names = {"map": "ap", "recip_rank": "rr", "Rprec": "r_precision", "ndcg": "ndcg", "num_rel": "relevant"}
    measures = {*names, "iprec_at_recall", *(f"{m}.{cuts}" for m in ("map_cut", "P", "recall", "ndcg_cut"))}
    for k in KS:
        names |= {f"map_cut_{k}": f"map@{k}", f"P_{k}": f"precision@{k}"}
        names |= {f"recall_{k}": f"recall@{k}", f"ndcg_cut_{k}": f"ndcg@{k}"}
    scores = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    rows = [scores[str(i)] for i in range(len(case.scores))]
    actual = {ours: np.array([row[theirs] for row in rows]) for theirs, ours in names.items()}
    return at_k_from_map_cut(actual, actual["relevant"]) | {"trec curve": trec_curve(rows)}


def trec_curve(rows):
    return np.array([[row[f"iprec_at_recall_{level / 10:.2f}"] for level in range(11)] for row in rows])


# Where they agree


@pytest.mark.parametrize("peer", [by_numpy, by_sklearn, by_torchmetrics, by_ranx, by_pytrec_eval])
def test_all_metrics_agree_with_a_peer(case, peer):
    expected, actual = peer(case), case.ours()
    curve = expected.pop("trec curve", None)
    if curve is not None:
        tens = actual["relevant"] % 10 == 0  # elsewhere it rounds levels of recall in its own way
        np.testing.assert_allclose(actual["curve"][tens], curve[tens], atol=tolerances.PRECISION)
    agree(actual, expected)


def test_every_metric_has_more_than_one_peer():
    case = build(*separated(21, 60), multi=True)
    peers = [set(peer(case)) for peer in (by_numpy, by_sklearn, by_torchmetrics, by_ranx, by_pytrec_eval)]
    for name in case.ours():
        assert sum(name in metrics for metrics in peers) >= 2, name


@pytest.mark.parametrize("peer", [by_numpy, by_ranx, by_pytrec_eval])
@pytest.mark.parametrize("multi", [False, True])
def test_tied_items_in_gallery_order_agree_where_a_peer_accepts_the_order(peer, multi):
    case = build(exact_rows(20), exact_rows(60, seed=1), multi)
    assert all(len(np.unique(s)) < 20 for s in case.scores)
    agree(case.ours(), {name: x for name, x in peer(case).items() if name != "trec curve"})


def test_ranks_of_pairs_agree_with_every_peer():
    queries, gallery = separated(20, 300)
    scores, own = unit(queries) @ unit(gallery).T, np.random.default_rng(0).integers(0, 300, 20)
    hit = np.arange(300) == own[:, None]
    ranks = pair_ranks(queries, gallery, own)
    case = Case(queries, gallery, own, np.arange(300), list(scores), list(hit.astype(int)), False)
    for peer in (by_numpy, by_torchmetrics, by_ranx, by_pytrec_eval):
        np.testing.assert_allclose(1 / peer(case)["rr"], ranks, rtol=tolerances.PRECISION)
    worst = [sklearn.metrics.coverage_error([h], [s]) for h, s in zip(hit, scores, strict=True)]
    np.testing.assert_array_equal(worst, ranks)


@pytest.mark.parametrize(("action", "without_relevant"), [("neg", "zero"), ("skip", "skip")])
def test_means_agree_with_torchmetrics_whatever_happens_to_queries_without_relevant_items(action, without_relevant):
    case = build(*separated(21, 60), multi=False)
    assert not case.gains[-1].any()
    index = torch.arange(21).repeat_interleave(60)
    scores, hit = torch.tensor(np.concatenate(case.scores)), torch.tensor(np.concatenate(case.gains) > 0)
    for k in (None, 5):
        expected = RetrievalMAP(empty_target_action=action, top_k=k)((1 + scores) / 2, hit, index)
        actual = mean_average_precision(*case[:4], k=k, without_relevant=without_relevant)
        assert actual == pytest.approx(float(expected), abs=tolerances.PRECISION)


# Where they differ, as the table in docs/retrieval.md says


def on_scores(scores, gains):
    """Two-dimensional rows with these similarities to the one query, in [-1, 1]."""
    s = np.array(scores)
    gallery = np.stack([s, np.sqrt(1 - s**2)], axis=1)
    hot = np.arange(1, max(gains) + 1)[None] <= np.array(gains)[:, None]
    return build(np.array([[1.0, 0.0]]), gallery, multi=False)._replace(
        query_labels=np.ones((1, max(gains)), bool), gallery_labels=hot, scores=[s], gains=[np.array(gains)]
    )


def test_divisors_of_ap_at_k():
    scores, hit = [0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 1, 0]
    case = on_scores(scores, hit)
    actual = case.ours(ks=(1, 2))
    assert (actual["ap@2"], actual["ap_min@2"]) == (pytest.approx(1), pytest.approx(1 / 2))
    assert float(tm.retrieval_average_precision(torch.tensor(scores), torch.tensor(hit), top_k=2)) == 1
    qrels = {"q": {str(i): x for i, x in enumerate(hit)}}
    run = {"q": {str(i): x for i, x in enumerate(scores)}}
    assert pytrec_eval.RelevanceEvaluator(qrels, {"map_cut.2"}).evaluate(run)["q"]["map_cut_2"] == pytest.approx(1 / 3)
    assert ranx_value("map@2", *as_lists(scores, hit)) == pytest.approx(1 / 3)


def as_lists(scores, gains):
    rows = [np.stack([np.arange(len(x), dtype=float), np.array(x, float)], axis=1) for x in (gains, scores)]
    return List([rows[0]]), List([rows[1]])


def ranx_value(metric, qrels, run):
    """A single metric@k fails, so a second metric is requested, too."""
    return float(ranx.evaluate(qrels, run, [metric, "mrr"], return_mean=False)[metric][0])


def test_torchmetrics_ignores_relevant_items_of_scores_that_are_not_positive():
    scores, hit = [0.5, -0.1, -0.2], [False, True, True]
    assert on_scores(scores, [0, 1, 1]).ours()["ap"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    s, h = torch.tensor(scores), torch.tensor(hit)
    for measure in (tm.retrieval_average_precision, tm.retrieval_reciprocal_rank, tm.retrieval_recall):
        assert float(measure(s, h)) == 0
        assert float(measure((1 + s) / 2, h)) > 0


def test_torchmetrics_sums_discounts_of_ndcg_in_float32():
    case = build(*separated(24, 1100), multi=False)
    actual = [float(tm.retrieval_normalized_dcg(*map(torch.tensor, row))) for row in zip(*case[4:6], strict=True)]
    error = np.abs(actual - by_numpy(case)["ndcg"]).max()
    assert 1e-6 < error < 1e-5
    agree(case.ours(), {"ndcg": by_torchmetrics(case)["ndcg"]})


def test_torchmetrics_takes_scores_in_float32():
    tied = tm.retrieval_normalized_dcg(torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([1, 0]))
    for by, equal in ((1e-9, True), (1e-6, False)):
        scores = torch.tensor([0.5 + by, 0.5], dtype=torch.float64)
        assert (tm.retrieval_normalized_dcg(scores, torch.tensor([1, 0])) == tied) == equal


def test_ndcg_of_tied_items_is_a_mean_over_their_orders_in_scikit_learn_and_torchmetrics():
    gains, scores = (3, 0, 1, 0), np.full(4, 0.5)
    orders = [on_scores(scores, g).ours(ks=(2,)) for g in set(itertools.permutations(gains))]
    for name, k in (("ndcg", None), ("ndcg@2", 2)):
        mean = np.mean([actual[name] for actual in orders])
        assert np.ptp([actual[name] for actual in orders]) > 0.1
        assert sklearn.metrics.ndcg_score([gains], [scores], k=k) == pytest.approx(mean, abs=tolerances.PRECISION)
        actual = tm.retrieval_normalized_dcg(torch.tensor(scores), torch.tensor(gains), top_k=k)
        assert float(actual) == pytest.approx(mean, abs=tolerances.PRECISION)


def test_scikit_learn_gives_tied_items_one_precision_and_the_last_rank():
    scores, first, last = np.full(2, 0.5), [1, 0], [0, 1]
    assert [float(on_scores(scores, g).ours()["ap"][0]) for g in (first, last)] == [1.0, 0.5]
    assert [sklearn.metrics.average_precision_score(g, scores) for g in (first, last)] == [0.5, 0.5]
    assert [sklearn.metrics.coverage_error([g], [scores]) for g in (first, last)] == [2, 2]


def test_trec_eval_ranks_tied_items_by_descending_name_and_in_float32():
    measure = pytrec_eval.RelevanceEvaluator({"q": {"a": 1}}, {"recip_rank"})
    assert measure.evaluate({"q": {"a": 0.5, "b": 0.5}})["q"]["recip_rank"] == 0.5
    assert measure.evaluate({"q": {"a": 0.5 + 1e-9, "b": 0.5}})["q"]["recip_rank"] == 0.5
    assert measure.evaluate({"q": {"a": 0.5 + 1e-6, "b": 0.5}})["q"]["recip_rank"] == 1.0


def test_trec_eval_rounds_levels_of_recall_by_adding_nine_tenths():
    # Hits at ranks 1, 2 and 12 of R = 3: recall 0.7 needs all three, but int(0.7 * 3 + 0.9) is 2 in binary floats.
    hit = [1, 1, *[0] * 9, 1]
    scores = np.linspace(0.9, 0.1, 12)
    curve = on_scores(scores, hit).ours()["curve"][0]
    qrels = {"q": {f"{i:02d}": x for i, x in enumerate(hit)}}
    run = {"q": {f"{i:02d}": x for i, x in enumerate(scores)}}
    theirs = trec_curve([pytrec_eval.RelevanceEvaluator(qrels, {"iprec_at_recall"}).evaluate(run)["q"]])[0]
    assert (curve[7], theirs[7]) == (pytest.approx(3 / 12), pytest.approx(1))
    np.testing.assert_allclose(np.delete(curve, 7), np.delete(theirs, 7), atol=tolerances.PRECISION)


def test_pytrec_eval_leaves_out_queries_that_nothing_was_judged_for():
    measure = pytrec_eval.RelevanceEvaluator({"judged": {"a": 0}, "empty": {}}, {"map"})
    assert measure.evaluate({q: {"a": 1.0} for q in ("judged", "empty")}) == {"judged": {"map": 0.0}}


def test_exponential_gains_are_another_metric():
    scores, gains = [0.9, 0.5, 0.1], [1, 2, 0]
    actual = float(on_scores(scores, gains).ours()["ndcg"][0])
    assert ranx_value("ndcg", *as_lists(scores, gains)) > actual  # it takes the given order of the gains for the best
    qrels, run = as_lists(scores, gains)
    qrels[0] = qrels[0][np.argsort(-qrels[0][:, 1])]
    assert ranx_value("ndcg", qrels, run) == pytest.approx(actual, abs=tolerances.PRECISION)
    assert ranx_value("ndcg_burges", qrels, run) < actual - 0.01
