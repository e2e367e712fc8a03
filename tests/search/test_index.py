"""Top-k search against a float64 reference, files of an index, and wrong input."""

import json
import os
import re
import warnings
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from toy import save_npz, toy_arrays, toy_config

from mrl_jax import InputError, train
from mrl_jax.search.exact import unit_blocks
from mrl_jax.search.index import Index, recall, top_k


def reference(queries, gallery, k):
    """Float64 similarities in a stable ranking: ties in gallery order."""
    units = []
    for x in (queries, gallery):
        x = np.asarray(x, np.float64)
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        units.append(x / np.where(norm > 0, norm, 1))
    scores = units[0] @ units[1].T
    order = np.argsort(-np.round(scores, 12) + 0.0, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


def tied(rng, size, kinds=5, width=7):
    """A gallery with many equal rows."""
    return rng.normal(size=(kinds, width))[rng.integers(0, kinds, size)]


@pytest.mark.slow
@pytest.mark.parametrize("block", [128, 256, 8192])
@pytest.mark.parametrize(
    ("queries", "size", "k"), [(1, 1, 1), (3, 128, 5), (5, 700, 10), (17, 513, 300), (2, 300, 300)]
)
def test_equal_rows_rank_in_gallery_order_across_blocks(block, queries, size, k):
    rng = np.random.default_rng(size)
    gallery = tied(rng, size)
    x = rng.normal(size=(queries, 7))
    scores, rows = top_k(x, gallery, k, block=block)
    expected_scores, expected = reference(x, gallery, k)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    assert scores.dtype == np.float32
    actual = Index.build(gallery, block=block).search(x, k)
    np.testing.assert_array_equal(actual.rows, rows)
    np.testing.assert_array_equal(actual.scores, scores)


def test_more_queries_than_fit_at_once():
    rng = np.random.default_rng(0)
    x, gallery = rng.normal(size=(1500, 4)), rng.normal(size=(40, 4))
    scores, rows = top_k(x, gallery, 3)
    expected_scores, expected = reference(x, gallery, 3)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_a_zero_vector_has_similarity_zero_to_everything():
    gallery = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    scores, rows = top_k([[0.0, 0.0], [2.0, 0.0]], gallery, 4)
    assert rows.tolist() == [[0, 1, 2, 3], [2, 1, 3, 0]]
    assert scores.tolist() == [[0, 0, 0, 0], [1, 0, 0, -1]]
    assert not np.signbit(scores[0]).any()


def test_lengths_make_no_difference_however_large_or_small():
    gallery = np.array([[3e38, 3e38], [1e-30, 0.0], [0.0, 5.0]], np.float32)
    scores, rows = top_k([[1e-20, 0.0]], gallery, 3)
    assert rows.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(scores, [[1, np.sqrt(0.5), 0]], atol=1e-6)


def test_a_memory_map_is_searched_block_by_block(tmp_path):
    rng = np.random.default_rng(1)
    gallery = tied(rng, 1000, kinds=30)
    np.save(tmp_path / "g.npy", gallery)
    x = rng.normal(size=(4, 7))
    mapped = top_k(x, np.load(tmp_path / "g.npy", mmap_mode="r"), 9, block=256)
    np.testing.assert_array_equal(mapped[1], reference(x, gallery, 9)[1])


@pytest.mark.parametrize("pieces", [(1, 1, 1), (100, 28, 200), (128, 128), (5, 400, 1), (300, 300, 300)])
def test_adding_in_pieces_equals_building_at_once(pieces):
    rng = np.random.default_rng(2)
    gallery, x = tied(rng, sum(pieces)), rng.normal(size=(3, 7))
    ids, labels = np.arange(sum(pieces)) * 10, np.array([f"c{i % 3}" for i in range(sum(pieces))])
    payloads = [{"n": i} for i in range(sum(pieces))]
    index, start = Index(7, block=128), 0
    for n in pieces:
        part = slice(start, start := start + n)
        index.add(gallery[part], ids=ids[part], labels=labels[part], payloads=payloads[part])
    k = min(10, len(index))
    actual, whole = index.search(x, k), Index.build(gallery, ids=ids, labels=labels, block=128).search(x, k)
    np.testing.assert_array_equal(actual.rows, reference(x, gallery, k)[1])
    for name in ("rows", "ids", "labels"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(whole, name))
    assert index.payloads == payloads
    np.testing.assert_array_equal(
        np.concatenate(list(index.embeddings())), np.concatenate([*unit_blocks("", gallery, 9)])
    )


def test_approximate_search_reports_its_recall():
    rng = np.random.default_rng(3)
    index, x = Index.build(rng.normal(size=(600, 8)), block=256), rng.normal(size=(20, 8))
    assert index.search(x, 5, approximate=True).rows.shape == (20, 5)
    assert 0.8 <= index.recall(x, 5) <= 1
    assert recall([[0, 1], [2, 3]], [[1, 0], [3, 9]]) == 0.75
    with pytest.raises(InputError, match=r"rows found have shape .* give both as"):
        recall([[1]], [[1, 2]])


def test_hits_compare_labels():
    index = Index.build(np.eye(3), labels=["a", "b", "a"])
    actual = index.search(np.eye(3)[:2], 3)
    np.testing.assert_array_equal(actual.hits(["a", "b"]), [[True, False, True], [True, False, False]])
    with pytest.raises(InputError, match="one per row"):
        actual.hits(["a"])
    with pytest.raises(InputError, match="holds no labels"):
        Index.build(np.eye(3)).search(np.eye(3), 1).hits([0, 1, 2])


# --- files ---


def test_loading_changes_no_bit(tmp_path):
    index = Index.build(np.random.default_rng(0).normal(size=(2000, 48)))
    index.save(tmp_path / "a.npz")
    again = Index.load(tmp_path / "a.npz")
    assert (np.concatenate(list(again.embeddings())) == np.concatenate(list(index.embeddings()))).all()
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    "extras",
    [{}, {"ids": [5, 6, 7]}, {"ids": ["x", "y", "ß 木"], "labels": [0, 1, 0], "payloads": [{"a": 1}, None, "ü"]}],
)
def test_save_and_load_round_trip(tmp_path, extras):
    index = Index.build([[1.0, 2], [0, 0], [-3, 4]], **extras)
    index.metadata = {"made": "here"}
    index.save(tmp_path / "a.npz")
    again = Index.load(tmp_path / "a.npz")
    assert (len(again), again.width, again.metadata) == (3, 2, {"made": "here"})
    for name in ("ids", "labels"):
        assert np.array_equal(getattr(again, name), getattr(index, name))
    assert again.payloads == index.payloads
    actual, expected = again.search([[1.0, 1.0]], 3), index.search([[1.0, 1.0]], 3)
    np.testing.assert_array_equal(actual.scores, expected.scores)
    np.testing.assert_array_equal(actual.rows, expected.rows)
    index.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_an_empty_index_can_be_kept_but_not_searched(tmp_path):
    Index(4).save(tmp_path / "a.npz")
    index = Index.load(tmp_path / "a.npz")
    assert len(index) == 0
    with pytest.raises(InputError, match="index is empty; add"):
        index.search(np.ones((1, 4)), 1)
    with pytest.raises(InputError, match="index is empty"):
        index.export_parquet(tmp_path / "a.parquet")
    index.add(np.ones((1, 4)))
    assert index.search(np.ones((1, 4)), 1).rows.tolist() == [[0]]


def rewritten(path, **changes):
    """The same file with another header."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes()) | changes
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


def test_files_that_are_no_index_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    index = Index.build(np.eye(40), ids=np.arange(40))
    index.save(path)
    whole = path.read_bytes()
    for changes, message in (
        ({"version": 99}, "its format has version 99, this package reads versions 1 and 2.; build it again"),
        ({"format": "other"}, "it is no index"),
        ({"rows": 3}, r"embeddings are float32 \[40, 40\]"),
        ({"width": 3}, r"embeddings are float32 \[40, 40\]"),
        ({"metadata": 3}, "cannot be read"),
    ):
        path.write_bytes(whole)
        rewritten(path, **changes)
        with pytest.raises(InputError, match=message):
            Index.load(path)
    for damaged in (whole[:-50], whole[:300], b"", b"no index", whole.replace(b"\0\0\x80\x3f", b"\0\0\x80\x40", 1)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"cannot be read .*; build it again"):
            Index.load(path)
    np.savez(path, header=np.array([{"a": 1}], object))
    with pytest.raises(InputError, match="cannot be read"):
        Index.load(path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", b"")
    with pytest.raises(InputError, match="cannot be read"):
        Index.load(path)
    with pytest.raises(InputError, match="does not exist"):
        Index.load(tmp_path / "none.npz")
    with pytest.raises(InputError, match="cannot be read"):
        Index.load(tmp_path)


def test_damaged_columns_are_reported_with_the_file(tmp_path):
    path = tmp_path / "a.npz"
    Index.build(np.eye(4), ids=np.arange(4)).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "ids": np.arange(3)})
    with pytest.raises(InputError, match=r"a\.npz cannot be read \(ids are int64 \[3\]"):
        Index.load(path)


def test_ids_of_files_whose_names_are_no_utf8_are_kept(tmp_path):
    ids = [os.fsdecode(b"a\xff.png"), "b"]
    Index.build(np.eye(2), ids=ids).save(tmp_path / "a.npz")
    assert Index.load(tmp_path / "a.npz").ids.tolist() == ids


def test_claims_of_a_file_are_checked_before_anything_is_unpacked(tmp_path, monkeypatch):
    path, unpacked = tmp_path / "a.npz", []
    Index.build(np.eye(4), ids=np.arange(4)).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **{**arrays, "ids": np.zeros(10**6, np.int64)})
    monkeypatch.setattr(np.lib.format, "read_array", spied(np.lib.format.read_array, unpacked))
    with pytest.raises(InputError, match=r"ids are int64 \[1000000\]"):
        Index.load(path)
    assert max(unpacked) < 10_000
    np.savez(path, **{**arrays, "ids": np.array(3)})
    with pytest.raises(InputError, match=r"ids are int64 \[\]"):
        Index.load(path)
    np.savez(path, **{**arrays, "ids": np.full(4, 2**63, np.uint64)})
    with pytest.raises(InputError, match="ids hold 9223372036854775808; give integers below"):
        Index.load(path)


def spied(read, sizes):
    def counted(*args, **kwargs):
        array = read(*args, **kwargs)
        sizes.append(array.nbytes)
        return array

    return counted


def test_a_file_that_cannot_be_written_is_reported(tmp_path):
    index = Index.build(np.eye(2))
    for write in (index.save, index.export_parquet):
        with pytest.raises(InputError, match="cannot be written"):
            write(tmp_path / "no" / "such" / "place")
    assert list(tmp_path.iterdir()) == []


def test_parquet_holds_embeddings_ids_labels_and_payloads(tmp_path):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(300, 5))
    ids = [f"r{i}" for i in range(300)]
    index = Index.build(x, ids=ids, labels=np.arange(300) % 4, payloads=[{"n": i} for i in range(300)], block=128)
    index.export_parquet(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["id", "label", "payload", "embedding"]
    assert table["id"].to_pylist() == ids
    assert table["label"].to_pylist() == (np.arange(300) % 4).tolist()
    assert json.loads(table["payload"][7].as_py()) == {"n": 7}
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist()), units, atol=1e-6)
    Index.build(x).export_parquet(tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "b.parquet")["id"].to_pylist() == list(range(300))


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: i.search(np.ones((1, 3)), 1), "queries have 3 dimensions, the gallery has 2"),
        (lambda i: i.search(np.ones(2), 1), r"queries are float64 \[2\]; give numbers \[N, L\]"),
        (lambda i: i.search([["a", "b"]], 1), r"give numbers \[N, L\]"),
        (lambda i: i.search([[1.0], [1.0, 2.0]], 1), "queries are no array"),
        (lambda i: i.search(np.ones((0, 2)), 1), "there is no query"),
        (lambda i: i.search([[0.0, 1.0], [np.nan, 1.0]], 1), "queries hold NaN, inf .* the first in row 1"),
        (lambda i: i.search([[1e300, 1.0]], 1), "values beyond float32"),
        (lambda i: i.search([[1j, 1.0]], 1), r"give numbers \[N, L\]"),
        (lambda i: i.search(np.ones((1, 2)), 4), "k is 4; it must be an integer from 1 to 3, the size of the gallery"),
        (lambda i: i.search(np.ones((1, 2)), 0), "k is 0"),
        (lambda i: i.search(np.ones((1, 2)), 1.5), "k is 1.5"),
        (lambda i: i.search(np.ones((1, 2)), True), "k is True"),
        (lambda i: i.add(np.ones((1, 3))), "embeddings have 3 dimensions, the gallery has 2"),
        (lambda i: i.add([[np.inf, 0.0]], ids=[1], labels=["a"]), "embeddings hold NaN, inf"),
        (
            lambda i: i.add(np.ones((1, 2)), ids=[4]),
            "labels: this index has them; give labels for all rows or for no row",
        ),
        (lambda i: i.add(np.ones((1, 2)), labels=["a"]), "ids: this index has them"),
        (lambda i: i.add(np.ones((1, 2)), ids=[4], labels=["a"], payloads=[1]), "payloads: this index has none"),
        (lambda i: i.add(np.ones((1, 2)), ids=["x"], labels=["a"]), "ids are <U1, this index has int64"),
        (lambda i: i.add(np.ones((2, 2)), ids=[4], labels=["a", "b"]), r"ids are int64 \[1\]; give 2"),
        (lambda i: i.add(np.ones((1, 2)), ids=[4.5], labels=["a"]), "ids are float64"),
    ],
)
def test_bad_calls_name_the_rule_and_change_nothing(call, message):
    index = Index.build(np.eye(3)[:, :2], ids=[1, 2, 3], labels=["a", "b", "c"])
    with pytest.raises(InputError, match=message):
        call(index)
    assert (len(index), len(index.ids), len(index.labels)) == (3, 3, 3)
    assert index.search([[0.0, 1.0]], 1).ids.tolist() == [[2]]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Index.build(np.eye(2), payloads=[1]), "payloads: 1 for 2 rows"),
        (lambda: Index.build(np.eye(2), payloads=[object(), 1]), "JSON can represent"),
        (lambda: Index.build(np.eye(2), payloads=[np.nan, 1]), "JSON can represent"),
        (lambda: Index.build(np.eye(2), payloads="ab"), "payloads are a str"),
        (lambda: Index.build(np.eye(2), labels=[[0, 1]]), "labels are int64"),
        (lambda: Index.build(np.eye(2), labels=[None, "a"]), "labels are text and integers"),
        (lambda: Index.build(np.zeros((2, 0))), r"give numbers \[N, L\]"),
        (lambda: Index.build(np.eye(2), block=0), "block 0"),
        (lambda: top_k(np.eye(2), np.zeros((0, 2)), 1), "the gallery is empty"),
        (lambda: top_k(np.eye(3), np.eye(2), 1), "queries have 3 dimensions, the gallery has 2"),
        (lambda: top_k(np.eye(2), [[0, 1], [0, np.nan]], 1), "gallery hold NaN.* row 1"),
    ],
)
def test_bad_galleries_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


# --- from a run ---


@pytest.mark.slow
def test_an_index_of_a_run_holds_its_embeddings_and_classes(tmp_path):
    arrays = toy_arrays() | {"test_sound_mask": np.arange(27) != 4, "class_names": np.array(["low", "mid", "high"])}
    path = save_npz(tmp_path / "toy.npz", arrays)
    result = train(toy_config(data_path=str(path)), tmp_path / "run")
    index = Index.build(tmp_path / "run", modality="sound", splits=("test", "valid"))
    assert len(index) == 26 + 24
    assert index.ids[:6].tolist() == ["test:0", "test:1", "test:2", "test:3", "test:5", "test:6"]
    assert index.ids[-1] == "valid:23"
    assert index.labels[:4].tolist() == ["low", "mid", "high", "low"]
    assert index.payloads[4] == {"split": "test", "row": 5}
    z = result.run.embed({"sound": arrays["test_sound"][[5]]})["sound"]
    assert index.search(z, 1).rows.tolist() == [[4]]
    assert len(Index.build(result.run)) == 26  # the first modality, test
    for options, message in (
        ({"modality": "taste"}, "modality 'taste' is not in this run; choose from sound, touch"),
        ({"splits": ("dev",)}, "split dev: choose from train, valid, test"),
        ({"splits": ()}, "split none"),
        ({"ids": [1]}, "come from its data"),
        ({"checkpoint": 77}, "no checkpoint of epoch 77"),
    ):
        with pytest.raises(InputError, match=message):
            Index.build(tmp_path / "run", **options)


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "search.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(block, "search.md", "exec"), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gallery.npz", "gallery.parquet"]


def test_rows_that_another_engine_did_not_find_are_nothing_and_no_hit():
    for ids, labels, nothing in (([5, 6], [1, 1], -1), (["a", "b"], ["x", "x"], "")):
        index = Index.build(np.eye(2), ids=ids, labels=labels)
        actual = index.found(np.array([[0.5, -np.inf]]), np.array([[1, -1]]))
        assert actual.ids.tolist() == [[ids[1], nothing]]
        assert actual.labels.tolist() == [[labels[1], nothing]]
        assert actual.hits([labels[0]]).tolist() == [[True, False]]
        assert actual.hits([nothing]).tolist() == [[False, False]]
    for rows in ([[2]], [[-2]], [[0.5]]):
        with pytest.raises(InputError, match="rows must be integers from -1 to 1, the rows of this index"):
            index.found(np.zeros((1, 1)), np.array(rows))
    for row in (2, -1):
        with pytest.raises(InputError, match="rows must be integers from 0 to 1"):
            index.vectors([row])


def test_kinds_are_not_mixed_and_bfloat16_is_a_number():
    with pytest.raises(InputError, match="ids are text and integers; give one of the two"):
        Index.build(np.eye(2), ids=[1, "a"])
    index = Index.build(jnp.eye(2, dtype=jnp.bfloat16), labels=[0, 1])
    assert repr(index) == "Index(2 rows of 2 dimensions)"
    actual = index.search(np.eye(2), 1)
    with pytest.raises(InputError, match="query labels are <U1, those of this index int64"):
        actual.hits(["0", "1"])
    index.add(np.zeros((0, 2)), labels=[])
    assert len(index) == 2
    for width in (0, "a", True):
        with pytest.raises(InputError, match="it must be an integer of 1 or more"):
            Index(width)
