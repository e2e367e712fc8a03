"""FAISS for large galleries; queries by the models that computed a run's features."""

import shutil
import sys

import numpy as np
import pytest
from raw_files import Job, small_models
from toy import TOY_FLAGS

from mrl_jax import InputError
from mrl_jax.search.__main__ import main
from mrl_jax.search.faiss_index import FaissIndex
from mrl_jax.search.index import Index, top_k
from mrl_jax.search.query import _encoder
from mrl_jax.search.searcher import search
from mrl_jax.train import main as train_main

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module", autouse=True)
def quiet_faiss():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's types, at import
        import faiss  # noqa: F401


@pytest.fixture(scope="module")
def clustered():
    """A gallery of 5,000 in 50 clusters, and 100 queries near them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, 32))
    gallery = centres[rng.integers(0, 50, 5000)] + 0.4 * rng.normal(size=(5000, 32))
    return gallery, centres[rng.integers(0, 50, 100)] + 0.4 * rng.normal(size=(100, 32))


@pytest.mark.parametrize(("kind", "least"), [("flat", 1.0), ("hnsw", 0.98), ("ivfpq", 0.05)])
def test_recall_against_the_exact_result(kind, least, clustered, tmp_path):
    gallery, queries = clustered
    engine = FaissIndex.build(gallery, kind)
    assert len(engine) == 5000
    measured = engine.recall(queries, gallery, 10)
    assert least <= measured <= 1
    index = Index.build(gallery, ids=[f"r{i}" for i in range(5000)], labels=np.arange(5000) % 7)
    assert engine.recall(queries, index, 10) == measured
    scores, rows = engine.search(queries, 10)
    assert scores.shape == rows.shape == (100, 10)
    assert (np.diff(scores, axis=1) <= 0).all()
    if kind == "flat":
        np.testing.assert_allclose(scores, top_k(queries, gallery, 10)[0], atol=1e-5)
    actual = index.found(scores, rows)
    assert actual.ids[0, 0] == f"r{rows[0, 0]}"
    engine.save(tmp_path / "a.faiss")
    again = FaissIndex.load(tmp_path / "a.faiss")
    np.testing.assert_array_equal(again.search(queries, 10)[1], rows)
    assert len(FaissIndex.build(index, kind)) == len(again) == 5000


def test_longer_codes_find_more(clustered):
    gallery, queries = clustered
    actual = [FaissIndex.build(gallery, "ivfpq", code_bytes=b).recall(queries, gallery, 10) for b in (4, 16)]
    assert actual[1] > actual[0] + 0.1


def test_a_memory_map_is_added_block_by_block(clustered, tmp_path):
    gallery, queries = clustered
    np.save(tmp_path / "g.npy", gallery)
    mapped = np.load(tmp_path / "g.npy", mmap_mode="r")
    assert FaissIndex.build(mapped, "flat").recall(queries, mapped, 5) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FaissIndex.build(np.eye(3), "tree"), "kind 'tree' is unknown; choose from hnsw, ivfpq, flat"),
        (lambda: FaissIndex.build(np.eye(3)).recall(np.eye(3), np.eye(2, 3)), "gallery has 2 rows, this index 3"),
        (lambda: FaissIndex.build(np.eye(3), links=1), "links 1: it must be an integer of 2 or more"),
        (lambda: FaissIndex.build(np.eye(3), construction=0), "construction 0: it must be an integer of 1"),
        (lambda: FaissIndex.build(np.eye(3), effort=2.5), "effort 2.5: it must be an integer"),
        (lambda: FaissIndex.build(np.zeros((0, 3))), "gallery is empty"),
        (lambda: FaissIndex.build([[np.nan, 1.0]]), "embeddings hold NaN"),
        (lambda: FaissIndex.build(np.ones(3)), "give numbers"),
        (lambda: FaissIndex.build(np.eye(30), "ivfpq"), "needs 256 rows or more"),
        (lambda: FaissIndex.build(np.eye(300), "ivfpq", code_bytes=7), "code_bytes must divide 300"),
        (lambda: FaissIndex.build(np.eye(3)).search(np.eye(3), 4), "k is 4"),
        (lambda: FaissIndex.build(np.eye(3)).search(np.eye(4), 1), "queries have 4 dimensions, the gallery has 3"),
        (lambda: FaissIndex.build(np.eye(3)).search(np.ones((0, 3)), 1), "no query"),
        (lambda: FaissIndex.build(np.eye(3)).search([[np.inf, 0, 0]], 1), "queries hold NaN, inf"),
        (lambda: FaissIndex.build(np.eye(3)).save("/no/such/place"), "cannot be written"),
        (lambda: FaissIndex.load("/no/such/place"), "does not exist"),
        (lambda: FaissIndex.load(__file__), r"cannot be read \(Index type .* not recognized\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_missing_package_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install faiss-cpu"):
        FaissIndex.build(np.eye(3))


# --- runs on files that `featurize` made: here, since they too need packages of the extra `bench` ---


def test_texts_and_pictures_become_features_by_the_models_of_the_run(tmp_path, tmp_path_factory, capsys):
    with small_models(tmp_path_factory.getbasetemp() / "models") as models:
        bert = tmp_path / "bert"  # a copy, to be changed below
        shutil.copytree(models["bert"], bert)
        job = Job(tmp_path, models["vit"], bert)
        output = job()
        flags = [*TOY_FLAGS[:4], "--epochs", "1", "--batch-size", "2", "--learning-rate", "0.01"]
        assert train_main([*flags, "--data-path", str(output), "--workdir", str(tmp_path / "run")]) == 0
        with np.load(output) as file:
            first = str(file["test_ids"][0])
        row = next(r for r in job.rows if r["id"] == first)
        for kind, query in (("text", {"text": row["text"]}), ("image", {"image": job.images / f"{first}.png"})):
            typed, by_row = search(tmp_path / "run", **query), search(tmp_path / "run", row=f"{kind}:test:0")
            assert typed["query"]["modality"] == kind
            assert [r["id"] for r in typed["results"]] == [r["id"] for r in by_row["results"]]
            for one, other in zip(typed["results"], by_row["results"], strict=True):
                assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        texts = {r["id"]: r["text"] for r in job.rows}
        assert all(r["text"] == texts[r["id"]] for r in search(tmp_path / "run", row="image:test:0")["results"])
        base = ["--workdir", str(tmp_path / "run")]
        for name, pictures in (("named.png", []), ("own.png", ["--pictures", str(job.images)])):
            assert main([*base, "--text", "a word", "--png", str(tmp_path / name), *pictures]) == 0
        assert (tmp_path / "named.png").read_bytes() == (tmp_path / "own.png").read_bytes()
        capsys.readouterr()
        assert main([*base, "--image", str(tmp_path / "none.png")]) == 2
        assert "does not exist" in capsys.readouterr().err
        _encoder.cache_clear()
        (bert / "note.txt").write_text("changed")
        assert main([*base, "--text", "a word"]) == 2
        assert "its files have changed" in capsys.readouterr().err
        shutil.rmtree(bert)
        assert main([*base, "--text", "a word"]) == 2
        assert "does not exist" in capsys.readouterr().err
