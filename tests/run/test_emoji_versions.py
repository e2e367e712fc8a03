"""Runs on the embedded set keep the version and the split with which they began.

`emoji1.tar.gz` holds a run and a sweep that were trained on version 1.0.0, by the last program that knew no other. Of
the sweep's two runs it lacks the second, as if the sweep had been interrupted.
"""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mrl_jax import InputError, evaluate, grid, load_dataset, load_run, preset, sweep, train
from mrl_jax.data.emoji.features import image_features, text_features
from mrl_jax.data.emoji.load import load_records
from mrl_jax.errors import DatasetWarning
from mrl_jax.run import RunFolder
from mrl_jax.run.load import run_data
from mrl_jax.search.__main__ import main as search_main
from mrl_jax.search.output import Pictures
from mrl_jax.search.searcher import Query, Searcher, search
from mrl_jax.sweep.__main__ import main as sweep_main
from mrl_jax.train import main as train_main

pytestmark = pytest.mark.slow

OLD = "aba31c97582e73bf995a2ce8c186e3ff2760a9811160b5829301bcce15d224a2"
OTHER_PROCESSOR = {"rel": 1e-4, "abs": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).parent / "emoji1.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    recorded = json.loads((folder / "run" / "data.json").read_text())
    assert (recorded["sha256"], recorded["metadata"]["source"]) == (OLD, "emoji/1.0.0, made from packages")
    here = load_dataset("emoji:1.0.0").metadata["versions"]
    if here != recorded["metadata"]["versions"]:
        pytest.skip("other versions of the libraries: the last bits of the picture features may differ")
    return folder


@pytest.fixture
def run(old, tmp_path):
    shutil.copytree(old / "run", tmp_path / "run")
    return tmp_path / "run"


def digest_of(folder):
    return json.loads((Path(folder) / "data.json").read_text())["sha256"]


def refuse_wrong_rows(workdir, splits=("train", "test")):
    """Fields and pictures that a search shows are those of the rows of the run's data."""
    model, folder = load_run(workdir), RunFolder.open(workdir)
    data = run_data(model, folder)
    pictures = Pictures(model, folder, None, None)
    for split in splits:
        found = search(workdir, row=f"image:{split}:7", modality="text", splits=(split,), top=10_000)
        by_row = {r["row"]: r for r in found["results"]}
        assert sorted(by_row) == list(range(len(data.splits[split])))
        rows = [by_row[i] for i in range(len(by_row))]
        texts = text_features([r["text"] for r in rows])
        np.testing.assert_array_equal(texts, data.splits[split].features["text"])
        assert [data.class_names.index(r["label"]) for r in rows] == data.splits[split].labels["text"].tolist()
        assert found["query"]["id"] == rows[7]["id"]
        for i in (0, 7, len(rows) - 1):
            seen = image_features([pictures.of({"split": split, "row": i}, "image")])[0]
            np.testing.assert_allclose(seen, data.splits[split].features["image"][i], atol=1e-6)


def test_an_old_run_is_scored_and_searched_on_its_own_version(run, tmp_path):
    model = load_run(run)
    assert model.source == RunFolder.open(run).source() == "emoji:1.0.0"
    assert run_data(model, RunFolder.open(run)).digest() == run_data(model, None).digest() == OLD
    scores = json.loads((run / "result.json").read_text())["test"]["best"]
    assert evaluate(run)["map"] == pytest.approx(scores["map"], **OTHER_PROCESSOR)
    refuse_wrong_rows(run)
    without_folder = search(model, row="image:test:7", modality="text")
    assert without_folder == search(run, row="image:test:7", modality="text")
    ids = [r["id"] for r in load_records("test", source="emoji:1.0.0")]
    assert without_folder["query"]["id"] == ids[7]
    assert ids != [r["id"] for r in load_records("test")]
    flags = ["--workdir", run, "--row", "text:test:7", "--png", tmp_path / "found.png"]
    assert search_main(list(map(str, flags))) == 0
    assert (tmp_path / "found.png").stat().st_size > 1000


def test_an_old_run_goes_on(run):
    before = json.loads((run / "result.json").read_text())
    for name in ("result.json", "model.npz"):
        (run / name).unlink()
    flags = ["emoji", "--hidden-dims", "2", "--embed-dim", "2", "--epochs", "1", "--workdir", str(run), "--resume"]
    assert train_main(flags) == 0
    again = json.loads((run / "result.json").read_text())
    assert again["test"]["best"]["map"] == pytest.approx(before["test"]["best"]["map"], **OTHER_PROCESSOR)
    assert train_main(["--epochs", "2", "--workdir", str(run), "--resume"]) == 0
    assert load_run(run, "last").epoch == 2
    assert digest_of(run) == OLD
    resumed = train(load_run(run).config, run, resume=True)
    assert resumed.run.source == "emoji:1.0.0"


def test_an_old_sweep_goes_on(old, tmp_path):
    shutil.copytree(old / "sweep", tmp_path / "sweep")
    assert sweep_main(["--resume", "--workdir", str(tmp_path / "sweep")]) == 0
    assert sweep_main(["--resume", "--seeds", "3", "--workdir", str(tmp_path / "sweep")]) == 0  # a new run
    runs = sorted((tmp_path / "sweep" / "runs").iterdir())
    assert [digest_of(run) for run in runs] == [OLD] * 3
    assert all((run / "result.json").exists() for run in runs)


SMALL = {"hidden_dims": (2,), "embed_dim": 2, "epochs": 1}


def test_new_runs_have_the_newest_version(run, tmp_path):
    made = train(preset("emoji", **SMALL), tmp_path / "new").run
    assert made.source == load_run(tmp_path / "new").source == "emoji:2.0.0"
    assert digest_of(tmp_path / "new") == load_dataset("emoji").digest() != OLD
    with pytest.warns(DatasetWarning, match=r"another split \(emoji:1.0.0, split_seed 0\) .* scores are too high"):
        train(preset("emoji", **SMALL, init_from=str(run)))
    train(preset("emoji", **SMALL, init_from=str(tmp_path / "new")))  # warnings are errors


def test_a_version_in_memory_is_not_taken_for_another(tmp_path):
    made = train(preset("emoji", **SMALL), tmp_path / "run", data=load_dataset("emoji:1.0.0")).run
    assert digest_of(tmp_path / "run") == OLD
    assert run_data(made, None).digest() == OLD
    again = train(preset("emoji", **SMALL), tmp_path / "run", resume=True)  # the data need not be given again
    assert again.run.source == "emoji:1.0.0"


def test_a_run_on_another_split(tmp_path, capsys):
    flags = ["--hidden-dims", "2", "--embed-dim", "2", "--epochs", "1", "--workdir", str(tmp_path / "run")]
    assert train_main(["emoji", "--split-seed", "2", *flags]) == 0
    expected = load_dataset("emoji", split_seed=2)
    assert digest_of(tmp_path / "run") == expected.digest() != load_dataset("emoji").digest()
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["test"]["best"]
    assert evaluate(tmp_path / "run")["map"] == pytest.approx(scores["map"], **OTHER_PROCESSOR)
    assert evaluate(tmp_path / "run", data="emoji")["map"] == evaluate(tmp_path / "run")["map"]
    refuse_wrong_rows(tmp_path / "run")
    answer = Searcher(tmp_path / "run").answer(Query("text", "red flag"), 3)
    assert {r["id"] for r in answer["results"]} <= {r["id"] for r in load_records("test", split_seed=2)}
    assert train_main(["emoji", "--split-seed", "2", *flags, "--resume"]) == 0
    capsys.readouterr()
    assert train_main(["emoji", "--split-seed", "3", *flags, "--resume"]) == 2
    assert "split_seed 3 was given, but the run" in capsys.readouterr().err
    assert train_main(["emoji", "--split", "60/15/25", "--split-seed", "3", *flags[:-1], str(tmp_path / "x")]) == 2
    assert "emoji has its splits already, and split is for files" in capsys.readouterr().err


def test_a_sweep_over_splits(tmp_path):
    done = sweep(grid(preset("emoji", **SMALL), split_seed=[0, 1]), tmp_path / "sweep")
    digests = {digest_of(run.workdir) for run in done.runs.values()}
    assert digests == {load_dataset("emoji", split_seed=seed).digest() for seed in (0, 1)}
    for run in done.runs.values():
        refuse_wrong_rows(run.workdir, ("test",))


def test_a_seed_of_other_data_still_needs_a_cut(tmp_path):
    with pytest.raises(InputError, match="split_seed 3 needs split or valid_share"):
        preset("custom", split_seed=3)
    with pytest.raises(InputError, match="split_seed 3 needs split or valid_share"):
        train(preset("emoji", **SMALL, split_seed=3), data=load_dataset("emoji"))
