"""Search by class posterior: results as evaluation ranks them, saved galleries and index files, refusals."""

import io
import json
import zipfile

import numpy as np
import pytest
from toy import TOY_FLAGS, save_npz, toy_arrays

from mrl_jax import Index, InputError, evaluate, load_run
from mrl_jax.eval.scores import Options
from mrl_jax.search.__main__ import main
from mrl_jax.search.searcher import Query, Searcher, search
from mrl_jax.train import main as train_main

pytestmark = pytest.mark.slow

KINDS = ("embedding", "posterior", "both")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("search")
    data = ["--data-path", str(save_npz(base / "toy.npz")), "--noise-rate", "0.5"]
    for name, flags in (("both", ["--representation", "both", *TOY_FLAGS]), ("cca", ["--method", "cca"])):
        assert train_main([*data, *flags, "--workdir", str(base / name)]) == 0
    return base


def products(run, kind, query):
    """Scores of the test gallery "touch" for a test row of "sound", float64."""
    arrays = toy_arrays()
    rows = load_run(run).represent({m: arrays[f"test_{m}"] for m in ("sound", "touch")}, kind)
    return rows["touch"].astype(np.float64) @ rows["sound"][query].astype(np.float64)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_results_rank_by_the_product_of_the_representation(runs, kind, capsys):
    own = kind or "both"
    flags = ["--workdir", str(runs / "both"), "--row", "sound:test:5", "--top", "27"]
    flags += [] if kind is None else ["--representation", kind]
    scores, stored = products(runs / "both", own, 5), f"1-test{'' if own == 'embedding' else '-' + own}.npz"
    for _ in range(2):  # then from the saved gallery
        assert main([*flags, "--json"]) == 0
        (answer,) = json.loads(capsys.readouterr().out)["queries"]
        metric = "cosine" if own == "embedding" else "dot"
        assert (answer["gallery"]["representation"], answer["gallery"]["metric"]) == (own, metric)
        assert [r["row"] for r in answer["results"]] == np.argsort(-scores, kind="stable").tolist()
        assert [r["score"] for r in answer["results"]] == pytest.approx(sorted(scores, reverse=True), abs=2e-6)
        assert (runs / "both" / "search" / stored).is_file()
    assert main(flags) == 0
    by = {
        "embedding": "by cosine",
        "posterior": "by probability of the same class",
        "both": "by probability of the same class + weighted cosine of embeddings",
    }
    assert f"; {by[own]}, ties in gallery order" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("kind", KINDS)
def test_search_ranks_like_evaluation(runs, kind):
    searcher = Searcher(runs / "both", representation=kind)
    values = []
    for i in range(27):
        hits = [r["hit"] for r in searcher.answer(Query("row", f"sound:test:{i}"), 27)["results"]]
        values.append((np.cumsum(hits) / (1 + np.arange(27)))[hits].mean())
    found = evaluate(runs / "both", representation=kind, options=Options(bootstrap=0))
    assert found["map"]["sound->touch"] == pytest.approx(np.mean(values), abs=1e-6)


def test_another_metric_has_a_gallery_of_its_own(runs):
    answer = Searcher(runs / "both", metric="cosine", representation="posterior").answer(Query("row", "sound:test:5"))
    assert answer["gallery"]["metric"] == "cosine"
    assert (runs / "both" / "search" / "1-test-posterior-cosine.npz").is_file()
    assert answer["results"][0]["score"] <= 1
    run = load_run(runs / "both")
    again = search(run, row="sound:test:5", data=toy_arrays(), metric="cosine", representation="posterior")
    assert [r["row"] for r in again["results"]] == [r["row"] for r in answer["results"]]


def test_a_row_of_its_own_modality_is_left_out_of_its_results(runs):
    answer = Searcher(runs / "both", modality="sound").answer(Query("row", "sound:test:5"), 27)
    assert len(answer["results"]) == 26
    assert 5 not in [r["row"] for r in answer["results"]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_file_keeps_the_representation(runs, kind, tmp_path):
    index = Index.build(runs / "both", modality="touch", representation=kind)
    index.save(tmp_path / "index.npz")
    read = Index.load(tmp_path / "index.npz")
    assert (read.representation, read.metric) == (kind, "cosine" if kind == "embedding" else "dot")
    query = load_run(runs / "both").represent({"sound": toy_arrays()["test_sound"][[5]]}, kind)["sound"]
    for a, b in zip(index.search(query, 27).__dict__.values(), read.search(query, 27).__dict__.values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read.search(query, 27).rows[0].tolist() == np.argsort(-products(runs / "both", kind, 5)).tolist()


def test_an_index_file_without_a_representation_holds_embeddings(runs, tmp_path):
    Index.build(runs / "both", representation="embedding").save(tmp_path / "old.npz")
    with zipfile.ZipFile(tmp_path / "old.npz") as archive:
        header = json.loads(np.load(io.BytesIO(archive.read("header.npy"))).tobytes())
    assert "representation" not in header  # the bytes of earlier versions
    assert Index.load(tmp_path / "old.npz").representation == "embedding"


def test_an_index_file_of_an_unknown_representation_is_refused(tmp_path):
    index = Index.build(np.eye(2) + 0.5)
    index.representation = "text"
    index.save(tmp_path / "index.npz")
    with pytest.raises(InputError, match=r"cannot be read \(its representation is 'text'\); build it again"):
        Index.load(tmp_path / "index.npz")


def test_what_makes_no_sense_is_one_line(runs, capsys):
    flags = ["--workdir", str(runs / "cca"), "--row", "sound:test:5", "--representation"]
    assert main([*flags, "embedding"]) == 0
    capsys.readouterr()
    for value, message in (("both", "the method cca assigns no classes; choose embedding"), ("x", "invalid choice")):
        assert main([*flags, value]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
    with pytest.raises(InputError, match="representation both: rows are indexed as they are; give it with a run"):
        Index.build(np.eye(2), representation="both")
    with pytest.raises(InputError, match="assigns no classes"):
        Index.build(runs / "cca", representation="posterior")


def test_faiss_refuses_an_index_of_posteriors(runs):
    pytest.importorskip("faiss")
    from mrl_jax.search.faiss_index import FaissIndex

    with pytest.raises(InputError, match=r"ranks by dot, FAISS here by cosine; .* representation='embedding'"):
        FaissIndex.build(Index.build(runs / "both"), "flat")
