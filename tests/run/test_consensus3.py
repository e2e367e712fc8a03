"""Folders of the method consensus that format 3 wrote, before mixup and dropout of units: they load and go on.

`consensus3.tar.gz` holds their data, a complete run, whose best epoch is not the last, and the same run after its first
epoch; all written by that version.
"""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mrl_jax import evaluate, load_run, train
from mrl_jax.config import with_settings
from mrl_jax.train import main

OTHER_PROCESSOR = {"rel": 1e-4, "abs": 1e-5}  # float32 sums in another order
NUMBERS = {"dropout": 0.2, "hidden_dropout": 0.0, "mixup": 0.0}


@pytest.fixture
def old(tmp_path):
    with tarfile.open(Path(__file__).parent / "consensus3.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def data(old):
    return dict(np.load(old / "toy.npz"))


def test_a_complete_run_keeps_the_model_of_its_best_epoch(old, data):
    scores = json.loads((old / "complete" / "result.json").read_text())["test"]
    assert scores["best"]["epoch"] != scores["last"]["epoch"]
    assert load_run(old / "complete").epoch == load_run(old / "complete", "best").epoch == scores["best"]["epoch"]
    for checkpoint, which in (("kept", "best"), ("last", "last")):
        found = evaluate(old / "complete", data, checkpoint=checkpoint)["map"]
        assert found == pytest.approx(scores[which]["map"], **OTHER_PROCESSOR)
    (old / "complete" / "model.npz").write_bytes(b"damaged")
    assert load_run(old / "complete", "last").epoch == scores["last"]["epoch"]  # its checkpoint is sound


def test_a_run_goes_on_with_the_numbers_of_its_time(old, data):
    """The configuration is the one that began the run; today's default has mixup."""
    config = load_run(old / "complete").config
    assert config.method_numbers == NUMBERS
    begun = with_settings(config, method_options=("dropout=0.2",))
    assert begun.method_numbers["mixup"] == 0.5
    whole = [json.loads(line) for line in (old / "complete" / "metrics.jsonl").read_text().splitlines()]
    resumed = train(begun, old / "half", data=data, resume=True)
    assert resumed.run.config == config
    for after, before in zip(resumed.metrics, whole, strict=True):
        assert after["train"] == pytest.approx(before["train"], **OTHER_PROCESSOR)
        assert after["valid"]["map"] == pytest.approx(before["valid"]["map"], **OTHER_PROCESSOR)


def test_the_command_takes_the_flags_that_began_the_run(old, capsys):
    """Its data were arrays; a file of their name stands for data that a run names."""
    for name in ("half", "longer"):
        folder = shutil.copytree(old / "half", old / name) if name != "half" else old / name
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data_path": str(old / "toy.npz")}))
        longer = ["--epochs", "5"] if name == "longer" else []
        flags = ["--resume", "--workdir", str(folder), "--method-options", "dropout=0.2", *longer]
        assert main(flags) == 0, capsys.readouterr().err
        assert load_run(folder).config.method_numbers == NUMBERS
