"""Evaluation: the same numbers as training reported, from the checkpoint alone."""

import json
import shutil

import numpy as np
import pytest
from toy import TOY_FLAGS, save_npz, toy_arrays, toy_config

from mrl_jax import InputError, evaluate, load_run, train
from mrl_jax.eval import main as eval_main
from mrl_jax.train import main as train_main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("eval")
    data = save_npz(base / "toy.npz")
    flags = [*TOY_FLAGS, "--data-path", str(data), "--noise-rate", "0.5", "--workdir", str(base / "run")]
    assert train_main(flags) == 0
    return base / "run"


@pytest.mark.parametrize("split", ["test", "valid"])
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_numbers_equal_result_json_exactly(run, split, checkpoint, capsys):
    result = json.loads((run / "result.json").read_text())[split][checkpoint]
    assert eval_main(["--workdir", str(run), "--split", split, "--checkpoint", checkpoint, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {k: scores[k] for k in ("epoch", "map", "average")} == result
    assert (scores["split"], scores["checkpoint"]) == (split, checkpoint)


def test_json_goes_to_a_file_and_the_table_to_the_terminal(run, tmp_path, capsys):
    assert eval_main(["--workdir", str(run), "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    out = capsys.readouterr().out
    for direction, value in scores["map"].items():
        assert direction in out
        assert f"{value:.3f}" in out
    assert "chance" in out
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]


def test_an_epoch_number_names_a_checkpoint(run, capsys):
    assert eval_main(["--workdir", str(run), "--checkpoint", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epoch"] == 3


def test_from_python_with_folder_run_and_data(run):
    from_folder = evaluate(run)
    assert evaluate(load_run(run))["map"] == from_folder["map"]
    assert evaluate(load_run(run), toy_arrays())["map"] == from_folder["map"]
    assert set(evaluate(run, split="train")["map"]) == set(from_folder["map"])


def test_galleries_of_other_data_are_scored_too(run):
    arrays = toy_arrays()
    arrays["test_sound"] = np.random.default_rng(0).normal(size=arrays["test_sound"].shape)
    assert evaluate(load_run(run), arrays)["average"] < evaluate(run)["average"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workdir", "RUN", "--split", "dev"], "invalid choice: 'dev'"),
        (["--workdir", "RUN", "--checkpoint", "99"], "no checkpoint of epoch 99"),
        (["--workdir", "RUN", "--checkpoint", "first"], "choose best, last"),
        (["--workdir", "RUN/checkpoints"], "holds no run"),
        (["--workdir", "RUN", "--json", "RUN/no/such/dir/x.json"], "cannot be written"),
        (["--workdir", "RUN", "--json", "."], "names no file"),
        (["--workdir", "RUN", "--json", ""], "names no file"),
        ([], "--workdir"),
        (["--workdir", "RUN", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, flags, message, capsys):
    assert eval_main([f.replace("RUN", str(run)) for f in flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_changed_or_missing_data_are_refused(run, tmp_path, capsys):
    config = json.loads((run / "config.json").read_text())
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    arrays = toy_arrays()
    arrays["test_sound"][0, 0] += 1
    save_npz(tmp_path / "changed.npz", arrays)
    for path, message in (("changed.npz", "have changed"), ("absent.npz", "does not exist")):
        (moved / "config.json").write_text(json.dumps({**config, "data_path": str(tmp_path / path)}))
        assert eval_main(["--workdir", str(moved)]) == 2
        assert message in capsys.readouterr().err


def test_arrays_in_memory_must_be_passed_again(tmp_path):
    for name, config in (("custom", toy_config()), ("emoji", toy_config(preset="emoji"))):
        train(config, tmp_path / name, data=toy_arrays())
        with pytest.raises(InputError, match="trained on arrays in memory; pass them"):
            evaluate(tmp_path / name)
        assert evaluate(tmp_path / name, toy_arrays())["epoch"] >= 1


def test_data_of_other_width_are_refused(run):
    arrays = toy_arrays()
    for split in ("train", "valid", "test"):
        arrays[f"{split}_sound"] = arrays[f"{split}_sound"][:, :2]
    with pytest.raises(InputError, match=r"sound features have shape \[27, 2\]; this run was trained on \[N, 6\]"):
        evaluate(load_run(run), arrays)
    with pytest.raises(InputError, match="split 'dev'"):
        evaluate(run, split="dev")
