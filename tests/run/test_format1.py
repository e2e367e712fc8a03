"""Folders that format 1 wrote, the version before the `Method` interface: they load, resume, are scored and searched.

`format1.tar.gz` holds three runs (`mrl`; `elr` with clipping; `gmm` with the paper's recipe, so `cosine-hold`), a
sweep, and their data, all written by that version. `experiments/benchmarks/same_bits.py` compares whole runs bit by
bit; here numbers from another processor have a tolerance.
"""

import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mrl_jax import Config, evaluate, load_run, sweep, train
from mrl_jax.run import RunFolder
from mrl_jax.run.format1 import nested_of
from mrl_jax.search.searcher import Query, Searcher
from mrl_jax.sweep.folder import SweepFolder

RUNS = ("mrl", "elr", "gmm")
OTHER_PROCESSOR = {"rel": 1e-4, "abs": 1e-5}  # float32 sums in another order, through four epochs of Adam


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).parent / "format1.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    for file in [*folder.glob("*/config.json"), *folder.glob("*/runs/*/config.json"), folder / "sweep" / "sweep.json"]:
        file.write_text(file.read_text().replace("/format1/toy.npz", str(folder / "toy.npz")))
    return folder


def copy_of(old, name, tmp_path):
    shutil.copytree(old / name, tmp_path / name)
    return tmp_path / name


def cut_to_first_checkpoint(folder):
    for name in ("result.json", "model.npz"):
        (folder / name).unlink()
    for checkpoint in (folder / "checkpoints").iterdir():
        if checkpoint.name != "1":
            shutil.rmtree(checkpoint)


@pytest.mark.parametrize("name", RUNS)
def test_the_best_model_and_every_checkpoint_load(old, name, tmp_path):
    scores = json.loads((old / name / "result.json").read_text())
    best = load_run(old / name)
    assert best.epoch == scores["test"]["best"]["epoch"]
    assert (best.config.method, best.config.method_options) == ("mrl", ())
    assert best.config.schedule == ("cosine-hold-v1" if name == "gmm" else "cosine")
    for checkpoint in (1, "last"):
        assert load_run(old / name, checkpoint).epoch == (4 if checkpoint == "last" else 1)
    without = copy_of(old, name, tmp_path)
    (without / "model.npz").unlink()
    read = load_run(without)
    for a, b in zip(read.model.params.encoders, best.model.params.encoders, strict=True):
        np.testing.assert_array_equal(a["params"]["Dense_0"]["kernel"], b["params"]["Dense_0"]["kernel"])
    np.testing.assert_array_equal(read.model.params.centers, best.model.params.centers)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_scores_are_those_that_the_run_found(old, name):
    scores = json.loads((old / name / "result.json").read_text())
    for which in ("best", "last"):
        found = evaluate(old / name, checkpoint=which)
        assert found["map"] == pytest.approx(scores["test"][which]["map"], **OTHER_PROCESSOR)


def test_a_run_is_searched(old, tmp_path):
    searcher = Searcher(copy_of(old, "mrl", tmp_path))
    answer = searcher.answer(Query("row", "sound:test:3"), top=5)
    assert [r["rank"] for r in answer["results"]] == [1, 2, 3, 4, 5]
    assert answer["gallery"]["modality"] == "touch"


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumes_with_the_numbers_of_the_old_version(old, name, tmp_path):
    """Within a tolerance: another machine may have written the run. `same_bits` compares bits on one machine."""
    before = RunFolder.open(old / name).metrics()
    folder = copy_of(old, name, tmp_path)
    cut_to_first_checkpoint(folder)
    result = train(RunFolder.open(folder).config(), folder, resume=True)
    for line, expected in zip(result.metrics, before, strict=True):
        assert line["learning_rate"] == expected["learning_rate"]
        assert line["train"] == pytest.approx(expected["train"], **OTHER_PROCESSOR)
        assert line["valid"]["map"] == pytest.approx(expected["valid"]["map"], abs=1e-3)
    assert "format" not in json.loads((folder / "config.json").read_text())  # the folder stays what it was


def test_the_loss_decides_whether_a_checkpoint_has_ema_targets():
    three = SimpleNamespace(params=SimpleNamespace(encoders=(), centers=0), optimizer=(), step=0)
    three.samples = jax.ShapeDtypeStruct((9, 2, 5), np.float32)
    assert nested_of(three, three.params, Config(loss="elr"))["state"]["targets"].shape == (2, 9, 5)
    assert "targets" not in nested_of(three, three.params, Config(loss="gmm"))["state"]


@pytest.mark.slow
def test_a_run_of_a_sweep_is_scored_and_searched(old, tmp_path):
    folder = copy_of(old, "sweep", tmp_path)
    for name in SweepFolder.open(folder).configs():
        run = folder / "runs" / name
        scores = json.loads((run / "result.json").read_text())
        assert evaluate(run)["map"] == pytest.approx(scores["test"]["best"]["map"], **OTHER_PROCESSOR)
    answer = Searcher(run).answer(Query("row", "sound:test:3"), top=5)
    assert [r["rank"] for r in answer["results"]] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_sweep_goes_on_and_trains_what_is_missing(old, tmp_path):
    folder = copy_of(old, "sweep", tmp_path)
    names = list(SweepFolder.open(folder).configs())
    expected = json.loads((folder / "runs" / names[-1] / "result.json").read_text())
    for file in ("result.json", "model.npz", "metrics.jsonl"):
        (folder / "runs" / names[-1] / file).unlink()
    found = sweep([], folder, resume=True)
    assert list(found.runs) == names
    again = found.runs[names[-1]].scores
    assert again["test"]["last"]["map"] == pytest.approx(expected["test"]["last"]["map"], abs=1e-3)
    assert all(outcome.scores is not None for outcome in found.runs.values())
