"""Rows in files: read back by this package and by pandas, they have the scores of the run."""

import json

import numpy as np
import pandas as pd
import pytest

from mrl_jax import Index, InputError, compare, evaluate, evaluate_embeddings, export
from mrl_jax.eval.__main__ import main as eval_main
from mrl_jax.eval.evaluate import Options
from mrl_jax.export.__main__ import main
from mrl_jax.search.__main__ import main as search_main


def scored(path, out, capsys):
    """The scores of `python -m mrl_jax.eval --embeddings`."""
    assert eval_main(["--embeddings", str(path), "--json", str(out), "--bootstrap", "0"]) == 0
    capsys.readouterr()
    return json.loads(out.read_text())


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_npz_has_the_scores_of_the_run(split, toy_run, tmp_path, capsys):
    out = tmp_path / "rows.npz"
    assert main(["--workdir", str(toy_run), "--format", "embeddings", "--out", str(out), "--split", split]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    by_cosine = evaluate(toy_run, split=split, representation="embedding")
    export(toy_run, tmp_path / "z.npz", "embeddings", split=split, representation="embedding")
    found = scored(tmp_path / "z.npz", tmp_path / "z.json", capsys)
    assert found["map"] == by_cosine["map"]
    for direction, s in by_cosine["instances"].items():
        assert found["instances"][direction]["recall@1"] == s["recall@1"]
    with np.load(out) as file:
        assert set(file.files) == {"sound", "touch", "labels", "ids", "class_names"}
        assert file["sound"].shape[1] == 3 + 8  # posterior and embedding
        assert file["ids"][3] == f"{split}-3"


def test_missing_samples_and_longer_galleries_keep_their_pairs(ragged_run, tmp_path, capsys):
    export(ragged_run, tmp_path / "rows.npz", "embeddings")
    run, found = evaluate(ragged_run), scored(tmp_path / "rows.npz", tmp_path / "rows.json", capsys)
    assert found["map"] == run["map"]
    for direction, s in run["instances"].items():
        assert found["instances"][direction]["queries"] == s["queries"]
        assert found["instances"][direction]["recall@1"] == s["recall@1"]
    with pytest.raises(InputError, match=r"samples are missing here \(sound 27, touch 26, smell 27\); write .npz"):
        export(ragged_run, tmp_path / "folder", "embeddings")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.json", "rows.npz"]


def test_a_table_holds_rows_labels_and_pictures(toy_run, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "test-4.png").write_bytes(b"")
    export(toy_run, tmp_path / "rows.parquet", "embeddings", pictures=tmp_path / "pictures")
    table = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(table.columns) == ["modality", "id", "label", "split", "row", "picture", "embedding"]
    touch = table[table.modality == "touch"].reset_index()
    assert touch.loc[4, "picture"] == str(tmp_path / "pictures" / "test-4.png")
    assert touch["picture"].notna().sum() == 1
    rows = {m: np.stack(table[table.modality == m]["embedding"]) for m in ("sound", "touch")}
    names = {m: table[table.modality == m]["label"].to_numpy() for m in rows}
    expected = evaluate(toy_run, representation="both")
    options = Options(metric="dot", bootstrap=0)
    classes = ["low", "a|b", "<b>high</b>"]
    assert evaluate_embeddings(rows, names, class_names=classes, options=options)["map"] == expected["map"]


def test_a_folder_has_the_layout_of_clip_retrieval(toy_run, tmp_path, capsys):
    folder = tmp_path / "clip"
    assert export(toy_run, folder, "embeddings", representation="embedding") == [folder]
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {
        "sound_emb/sound_emb_0.npy",
        "touch_emb/touch_emb_0.npy",
        "metadata/metadata_0.parquet",
        "labels/labels.npy",
        "labels/ids.npy",
        "labels/class_names.npy",
    }
    found = scored(folder, tmp_path / "clip.json", capsys)
    expected = evaluate(toy_run, representation="embedding")
    assert list(found["map"].values()) == list(expected["map"].values())
    metadata = pd.read_parquet(folder / "metadata" / "metadata_0.parquet")
    assert list(metadata["id"]) == [f"test-{i}" for i in range(27)]
    assert list(metadata["label"][:3]) == ["low", "a|b", "<b>high</b>"]


def test_rows_of_a_checkpoint_are_compared_with_it(toy_run, tmp_path):
    export(toy_run, tmp_path / "last.npz", "embeddings", checkpoint="last", representation="embedding")
    result = compare(toy_run, tmp_path / "last.npz", checkpoint="last", representation="embedding")
    assert result["average"]["difference"] == 0


def test_an_index_of_written_rows_finds_what_search_finds(toy_run, tmp_path, capsys):
    export(toy_run, tmp_path / "rows.npz", "embeddings", representation="embedding")
    with np.load(tmp_path / "rows.npz") as file:
        index = Index.build(file["touch"], ids=file["ids"])
        found = index.search(file["sound"][7:8], 5)
    how = ["--row", "sound:test:7", "--top", "5", "--representation", "embedding", "--json"]
    assert search_main(["--workdir", str(toy_run), *how]) == 0
    results = json.loads(capsys.readouterr().out)["queries"][0]["results"]
    assert list(found.ids[0]) == [r["id"] for r in results]


def test_pictures_must_be_a_folder(toy_run, tmp_path):
    with pytest.raises(InputError, match="the folder does not exist; give the folder that holds the pictures"):
        export(toy_run, tmp_path / "x.parquet", "embeddings", pictures=tmp_path / "none")
